package refusals_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"everboot/appliance/refusals"
	"everboot/internal/lab"
)

func TestMain(m *testing.M) { os.Exit(lab.TestMain(m)) }

// TestLabNobodyIsRefused: a SYN to the port of a floating address finds silence where nobody listens; other ports refuse, who listens
// answers, and the reset of an open connection goes out.
func TestLabNobodyIsRefused(t *testing.T) {
	l := lab.ForTest(t)
	lan := l.Segment("lan")
	server, client := l.Host("server"), l.Host("client")
	server.Join(lan, "198.18.0.10/24", "2001:db8::10/64")
	client.Join(lan, "198.18.0.51/24", "2001:db8::51/64")
	floating := []netip.Addr{netip.MustParseAddr("198.18.0.10"), netip.MustParseAddr("2001:db8::10")}
	do := func(f func() error) {
		t.Helper()
		if err := server.Do(f); err != nil {
			t.Fatal(err)
		}
	}
	dial := func(address string, patience time.Duration) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		return client.Dial(ctx, "tcp", address)
	}
	refused := func(address string) bool {
		_, err := dial(address, 10*time.Second)
		return errors.Is(err, syscall.ECONNREFUSED)
	}
	for range 2 { // the second time the table is there already
		do(func() error { return refusals.Drop(floating, 3260) })
	}
	for _, a := range floating {
		at := netip.AddrPortFrom(a, 3260).String()
		if err := lab.Eventually(20*time.Second, "the address is ready", func() bool { return refused(netip.AddrPortFrom(a, 80).String()) }); err != nil {
			t.Fatal(err)
		}
		if conn, err := dial(at, 400*time.Millisecond); err == nil || errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s: %v, %v; want silence", at, conn, err)
		}
		listener, err := server.Listen("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := dial(at, 10*time.Second)
		if err != nil {
			t.Fatalf("who listens is not reached: %v", err)
		}
		served, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		listener.Close()
		served.(*net.TCPConn).SetLinger(0)
		served.Close()
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.ReadAll(conn); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: the reset of an open connection: %v", at, err)
		}
		conn.Close()
	}
	do(refusals.Restore)
	if !refused("198.18.0.10:3260") || !refused("[2001:db8::10]:3260") {
		t.Error("still silent after Restore")
	}
	do(refusals.Restore) // nothing is there
}
