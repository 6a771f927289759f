package tftp_test

import (
	"bytes"
	"net"
	"testing"

	"everboot/tftp"
)

// TestEphemeralPorts: with the option each transfer has a port, and what comes for it anywhere else moves nothing.
func TestEphemeralPorts(t *testing.T) {
	s := serve(t, tftp.Config{EphemeralPorts: true})
	want := s.write("file", 100*512+7)
	one, two := s.dial(2), s.dial(2)
	one.free, two.free = true, true
	one.send(1, "file", "octet")
	two.send(1, "file", "octet")
	first := one.receive(soon)
	if got := two.receive(soon); !bytes.Equal(got, first) || len(first) != 516 {
		t.Fatalf("%.20q and %.20q", first, got)
	}
	if one.server.Port == two.server.Port {
		t.Errorf("both have port %d", one.server.Port)
	}

	own := one.server
	one.server = s.address
	one.ack(1)
	one.server = two.server
	one.ack(1)
	one.send(1, "file", "octet") // to the port of another transfer
	s.eventually("strays", func(c tftp.Stats) bool { return c.Dropped["stray"] == 3 && c.Active == 2 })

	one.server = own
	got := first[4:]
	one.ack(1)
	for n := uint16(2); len(got) < len(want); n++ {
		got = append(got, one.block(n)...)
	}
	if !bytes.Equal(got, want) {
		t.Error("other bytes")
	}
	two.send(5, "\x00\x00enough")
	s.eventually("both ended", func(c tftp.Stats) bool {
		return c.Active == 0 && c.Finished["complete"] == 1 && c.Finished["aborted"] == 1
	})
	for _, c := range []*client{one, two} {
		free, err := net.ListenUDP("udp4", c.server)
		if err != nil {
			t.Errorf("the port of a transfer that has ended is still open: %v", err)
			continue
		}
		free.Close()
	}

	three := s.dial(2)
	three.free = true
	three.send(1, "none", "octet")
	if got := three.receive(soon); len(got) < 4 || got[1] != 5 || got[3] != 1 {
		t.Errorf("no such file: %.40q", got)
	}
}

// TestEphemeralPortIsTakenOnTheOtherAppliance: the client takes nothing from another port, so that transfer has ended; the others have not.
func TestEphemeralPortIsTakenOnTheOtherAppliance(t *testing.T) {
	p := newPair(t, tftp.Config{EphemeralPorts: true})
	p.a.write("file", 100*512)
	p.b.write("file", 100*512)
	w, other := p.a.dial(2), p.a.dial(2)
	for _, c := range []*client{w, other} {
		c.free = true
		c.send(1, "file", "octet")
		c.block(1)
	}
	p.await(1)
	if err := p.a.stop(); err != nil {
		t.Fatal(err)
	}
	taken, err := net.ListenUDP("udp4", w.server)
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	p.b.start()
	p.b.Own(floating)
	p.b.eventually("one goes on", func(s tftp.Stats) bool { return s.Dropped["no_port"] == 1 && s.Resumed == 1 && s.Active == 1 })
	other.block(2)
}
