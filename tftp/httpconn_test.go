package tftp

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"everboot/site"

	"golang.org/x/sys/unix"
)

// TestUnsentIsBound protects the speed with many clients.
func TestUnsentIsBound(t *testing.T) {
	tcp, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	l := patientListener{tcp, newPlaces(1, 1, nil), func(net.Conn) func() { return func() {} }, t.Context()}
	client, err := net.Dial("tcp4", tcp.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	raw, err := c.(patientConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	bound := 0
	if err := raw.Control(func(fd uintptr) { bound, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT) }); err != nil {
		t.Fatal(err)
	}
	if err != nil || bound != unsent {
		t.Errorf("%d bytes (%v) may be unsent, want %d", bound, err, unsent)
	}
}

// TestPartsOfThePlaces: an address has its part, whichever way it is written, and a /64 has half of all.
func TestPartsOfThePlaces(t *testing.T) {
	for _, c := range []struct{ name, address, full string }{
		{"an IPv4 address", "198.18.0.7", "198.18.0.7/32"}, {"the same as IPv6", "::ffff:198.18.0.7", "198.18.0.7/32"},
		{"an IPv6 address", "2001:db8:1:2::7", "2001:db8:1:2::7/128"}, {"with a zone", "fe80::7%eth0", "fe80::7/128"},
	} {
		p := newPlaces(16, 2, nil)
		a := netip.MustParseAddr(c.address)
		back, _ := p.take(a)
		_, _ = p.take(a)
		if again, full := p.take(a); again != nil || full.String() != c.full {
			t.Errorf("%s: it has three, or %s has too many", c.name, full)
		}
		if back(); len(p.held) == 0 {
			t.Errorf("%s: nothing is held", c.name)
		}
		if again, _ := p.take(a); again == nil {
			t.Errorf("%s: what it gave back is lost", c.name)
		}
	}
	p := newPlaces(16, 2, nil)
	a := netip.MustParseAddr("2001:db8::1")
	for range 8 {
		if back, _ := p.take(a); back == nil {
			t.Fatalf("%s has no place", a)
		}
		a = a.Next()
	}
	if back, full := p.take(a); back != nil || full.String() != "2001:db8::/64" {
		t.Errorf("a network has more than half, or %s is full", full)
	}
	if back, _ := p.take(netip.MustParseAddr("2001:db8:0:1::1")); back == nil {
		t.Error("another network has no place")
	}
}

// TestOneClientDoesNotTakeAllPlaces: what it has too many is closed and counted, others are served, and what it gives back it can have again.
func TestOneClientDoesNotTakeAllPlaces(t *testing.T) {
	tcp, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	files, err := NewFiles(FilesConfig{IPXE: "/nowhere"}, func() *site.View { return &site.View{} })
	if err != nil {
		t.Fatal(err)
	}
	h, err := NewHTTP(HTTPConfig{PerClient: 2}, files, func() *site.View { return &site.View{} }, nil, slog.New(slog.NewTextHandler(&text, nil)))
	if err != nil {
		t.Fatal(err)
	}
	l := patientListener{tcp, newPlaces(maxConns, h.cfg.PerClient, h.refuse), h.cfg.Opened, t.Context()}
	srv := &http.Server{Handler: h}
	var wait sync.WaitGroup
	wait.Go(func() { _ = srv.Serve(l) })
	defer wait.Wait()
	defer srv.Close()

	// ask opens a connection that is kept, and reports whether it is served.
	ask := func(from string) (net.Conn, bool) {
		t.Helper()
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		c, err := d.Dial("tcp4", tcp.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		_, _ = io.WriteString(c, "GET /bootstrap.ipxe HTTP/1.1\r\nHost: x\r\n\r\n") // the answer tells
		b := make([]byte, 15)
		_, err = io.ReadFull(c, b)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
			t.Fatal(err)
		}
		return c, string(b) == "HTTP/1.1 200 OK"
	}
	first, ok := ask("127.0.0.1")
	_, ok2 := ask("127.0.0.1")
	if !ok || !ok2 {
		t.Fatal("it is not served at all")
	}
	for range 3 {
		if _, ok := ask("127.0.0.1"); ok {
			t.Error("it has more than its part")
		}
	}
	if _, ok := ask("127.0.0.2"); !ok || h.Stats().Refused != 3 {
		t.Errorf("another is served: %v; %d were refused", ok, h.Stats().Refused)
	}
	first.Close()
	for end := time.Now().Add(10 * time.Second); ; {
		if _, ok := ask("127.0.0.1"); ok {
			break
		}
		if time.Now().After(end) {
			t.Fatal("what it gave back it does not get again")
		}
	}
	srv.Close()
	wait.Wait()
	if n := strings.Count(text.String(), "level=WARN"); n != 1 || !strings.Contains(text.String(), "client=127.0.0.1/32") {
		t.Errorf("the log says\n%s", text.String())
	}
	if l.places.mu.Lock(); len(l.places.held) != 0 {
		t.Errorf("%v are held by nobody", l.places.held)
	}
	l.places.mu.Unlock()
}
