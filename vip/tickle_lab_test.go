package vip_test

import (
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	vocabulary "everboot/site"
	"everboot/vip/vrrp"
)

// TestLabATickledClientConnectsAgain: its request was acknowledged, so that it has nothing to send again and would wait for ever for an
// answer of a host that is gone.
func TestLabATickledClientConnectsAgain(t *testing.T) {
	s := newSite(t)
	s.expect(s.start(s.a, "worker", config(100)), "state active")
	s.expect(s.start(s.b, "worker", config(90)), "state backup")
	l, err := s.a.Listen("tcp", floating+":7")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := s.c.Dial(t.Context(), "tcp", floating+":7")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	text, err := json.Marshal([]vocabulary.Connection{{
		Local: netip.MustParseAddrPort(server.LocalAddr().String()), Remote: netip.MustParseAddrPort(server.RemoteAddr().String()),
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.connections, text, 0o600); err != nil {
		t.Fatal(err)
	}

	s.cableA.Silence(true)
	silent := time.Now()
	if err := c.SetReadDeadline(silent.Add(patience)); err != nil {
		t.Fatal(err)
	}
	_, err = c.Read(make([]byte, 1))
	var netErr net.Error
	if errors.As(err, &netErr) && netErr.Timeout() || !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("the client's read returned %v, want a reset", err)
	}
	took := time.Since(silent)
	t.Logf("the client knows after %s", took.Round(time.Millisecond))
	// The second tickle comes 1.1 s after the first, should that be lost.
	if limit := vrrp.DownInterval(90, interval) + 2*time.Second; took > limit {
		t.Errorf("the client knew after %s only", took)
	}
}
