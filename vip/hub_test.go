package vip

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"everboot/vip/vrrp"
)

// hubWire makes a port of a cable the socket of a hub.
type hubWire struct{ *port }

func (w hubWire) Close() error { close(w.closed); return nil }

func TestAHubGivesEachRouterItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cable{}
		h := newHub(hubWire{c.port("198.18.0.2")})
		a, b := h.port(51), h.port(52)
		other := c.port("198.18.0.3")
		send := func(payload ...byte) {
			if err := other.Send(payload, other.addr, vrrp.Group4()); err != nil {
				t.Fatal(err)
			}
		}
		send(0x31, 52, 100)
		send(0x31, 99, 100) // nobody's: the first port counts it
		send(0x31, 51, 100)
		time.Sleep(time.Second)
		for _, want := range []struct {
			port *hubPort
			vrid byte
		}{{b, 52}, {a, 99}, {a, 51}} {
			if p, _, ok := want.port.Poll(); !ok || p.Payload[1] != want.vrid {
				t.Errorf("port %d has %v, %t; want a packet of VRID %d", want.port.vrid, p, ok, want.vrid)
			}
		}
		if _, _, ok := b.Poll(); ok {
			t.Error("port 52 has a second packet")
		}
		if err := a.Send([]byte{0x31, 51, 100}, netip.MustParseAddr("198.18.0.2"), vrrp.Group4()); err != nil {
			t.Error(err)
		}
		if p := <-other.queue; p.Payload[1] != 51 {
			t.Errorf("the cable got %v", p)
		}
		for range 2 * hubQueue { // nobody reads: nothing blocks
			send(0x31, 52, 100)
		}
		if err := a.Close(); err != nil {
			t.Error(err)
		}
		send(0x31, 99, 100) // the next port takes it
		synctest.Wait()
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		for range hubQueue {
			<-b.queue
		}
		if _, _, err := b.Receive(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Receive after Close = %v", err)
		}
	})
}

// failingWire is a socket that fails when it is told to.
type failingWire struct {
	hubWire
	fail chan error
}

func (w failingWire) Receive() (vrrp.Packet, vrrp.Reason, error) {
	return vrrp.Packet{}, vrrp.Accepted, <-w.fail
}

// TestEachRouterHearsOfAFailure: also one that is behind.
func TestEachRouterHearsOfAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := failingWire{hubWire{(&cable{}).port("198.18.0.2")}, make(chan error)}
		h := newHub(w)
		a, b := h.port(51), h.port(52)
		for range hubQueue {
			h.deliver(arrival{packet: vrrp.Packet{Payload: []byte{0x31, 52}}})
		}
		broken := errors.New("network is down")
		w.fail <- broken
		for _, p := range []*hubPort{a, b} {
			var err error
			for n := 0; n <= hubQueue && err == nil; n++ {
				_, _, err = p.Receive() // without an error for ever this test ends as a deadlock
			}
			if !errors.Is(err, broken) {
				t.Errorf("port %d: %v", p.vrid, err)
			}
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestPulseBeatsWhenAllHave(t *testing.T) {
	n := 0
	p := NewPulse(2, func() { n++ })
	a, b := p.Of(0), p.Of(1)
	for range 5 {
		a() // b hangs
	}
	if n != 0 {
		t.Fatalf("%d beats while one hangs", n)
	}
	b()
	a()
	b()
	if n != 2 {
		t.Errorf("%d beats, want 2", n)
	}
}

func TestCheckTogether(t *testing.T) {
	one, two := good(), good()
	two.VRID, two.Addresses = 52, prefixes("198.18.0.11/24")
	six := good()
	six.Addresses = prefixes("2001:db8::10/64")
	if err := CheckTogether([]Config{one, two, six}); err != nil {
		t.Error(err)
	}
	two.Addresses = one.Addresses
	if err := CheckTogether([]Config{one, two}); err == nil {
		t.Error("two VRIDs with one address are let through")
	}
	if err := CheckTogether([]Config{one, one}); err == nil {
		t.Error("a VRID that stands twice is let through")
	}
	two = one
	two.Interface = "eth1"
	if err := CheckTogether([]Config{one, two}); err == nil {
		t.Error("one address on two interfaces is let through")
	}
	six.Addresses = prefixes("fe80::10/64")
	two.Addresses = six.Addresses
	if err := CheckTogether([]Config{six, two}); err != nil {
		t.Errorf("a link-local address on each of two interfaces: %v", err)
	}
}
