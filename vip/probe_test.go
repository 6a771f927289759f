package vip

import (
	"bytes"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"everboot/internal/arpframe"
	"everboot/vip/vrrp"
)

var (
	ownMAC   = net.HardwareAddr{2, 0, 0, 0, 0, 1}
	otherMAC = net.HardwareAddr{2, 0, 0, 0, 0, 2}
	floats   = []netip.Addr{netip.MustParseAddr("198.18.0.10"), netip.MustParseAddr("198.18.0.11")}
)

// said returns what other stations say of an address of theirs: a request and a reply.
func said(t testing.TB, mac net.HardwareAddr, addr string) (request, reply []byte) {
	t.Helper()
	frames, err := arpframe.Announcements(mac, netip.MustParseAddr(addr))
	if err != nil {
		t.Fatal(err)
	}
	return frames[0], frames[1]
}

func TestWhoHasAnAddress(t *testing.T) {
	probe, err := arpframe.Probe(otherMAC, floats[0])
	if err != nil {
		t.Fatal(err)
	}
	request, good := said(t, otherMAC, "198.18.0.10")
	_, another := said(t, otherMAC, "198.18.0.12")
	_, ours := said(t, ownMAC, "198.18.0.10")
	vlan, hardware := bytes.Clone(good), bytes.Clone(good)
	vlan[13]++
	hardware[ethernetHeader+1] = 6
	for name, c := range map[string]struct {
		frame []byte
		has   bool
	}{
		"reply":                {good, true},
		"request":              {request, true},
		"cut to the packet":    {good[:ethernetHeader+arpLen], true},
		"another address":      {another, false},
		"our own word":         {ours, false},
		"another one who asks": {probe, false}, // a router of the group that starts, too
		"not ARP":              {vlan, false},
		"not of Ethernet":      {hardware, false},
		"one byte less":        {good[:ethernetHeader+arpLen-1], false},
		"nothing":              {nil, false},
	} {
		h, has := holderOf(c.frame, ownMAC, floats)
		if has != c.has || has && !bytes.Equal(h.mac, otherMAC) {
			t.Errorf("%s: got %v, %t; want %t", name, h, has, c.has)
		}
	}
}

// FuzzHolderOf holds that no frame leads outside itself, and that nobody has what is not ours.
func FuzzHolderOf(f *testing.F) {
	_, reply := said(f, otherMAC, "198.18.0.10")
	f.Add(reply)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, frame []byte) {
		if h, has := holderOf(frame, ownMAC, floats); has && h.addr != floats[0] && h.addr != floats[1] {
			t.Errorf("%x: %v", frame, h)
		}
	})
}

func (p *port) probes() int {
	p.cable.mu.Lock()
	defer p.cable.mu.Unlock()
	return len(p.asked)
}

// TestAClaimWaitsWhileSomebodyHasTheAddress, of whom no advertisement is heard; it does not wait for somebody who only probes.
func TestAClaimWaitsWhileSomebodyHasTheAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cable{}
		down := vrrp.DownInterval(DefaultPriority, DefaultInterval)
		a := c.run(t, "198.18.0.2", nil)
		for range 3 {
			a.answers <- holder{addr: a.vrrp.Addresses[0], mac: otherMAC}
			time.Sleep(down)
			a.wantState(t, vrrp.Backup)
		}
		if n := a.Status().Odd[InUse]; n != 3 {
			t.Errorf("a claim was put off %d times, want 3", n)
		}
		time.Sleep(down)
		a.wantState(t, vrrp.Active)
		if n := a.probes(); n != 8 { // two before each of the four times
			t.Errorf("it asked %d times", n)
		}
		select {
		case <-a.hushed:
		default:
			t.Error("it goes on listening to ARP")
		}
		a.stop(t)
	})
}

// TestATakeOverAsksNobody: a host that is dead but for its kernel would answer.
func TestATakeOverAsksNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cable{}
		a := c.run(t, "198.18.0.2", nil)
		time.Sleep(time.Second)
		b := c.run(t, "198.18.0.3", func(cfg *Config) { cfg.Priority = 90 })
		time.Sleep(time.Second)
		before := b.probes()
		select {
		case <-b.hushed: // nobody's answer can count
		default:
			t.Error("b listens to ARP although it has heard a")
		}
		a.set(func() { a.silent = true })
		time.Sleep(vrrp.DownInterval(90, DefaultInterval))
		b.wantState(t, vrrp.Active)
		if n := b.probes() - before; n != 0 {
			t.Errorf("b asked %d times before it took over", n)
		}
		a.stop(t)
		b.stop(t)
	})
}

func TestSolicitation(t *testing.T) {
	own := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	addr := netip.MustParseAddr("2001:db8::10")
	f := solicitation(own, addr)
	header, m := f[14:54], f[54:]
	group := netip.MustParseAddr("ff02::1:ff00:10")
	if got := net.HardwareAddr(f[:6]).String(); got != "33:33:ff:00:00:10" {
		t.Errorf("it goes to %s", got)
	}
	if got := netip.AddrFrom16([16]byte(header[8:])); got != netip.IPv6Unspecified() {
		t.Errorf("it says that it comes from %s: neighbours would learn that", got)
	}
	if got := netip.AddrFrom16([16]byte(header[24:])); got != group || header[7] != 255 {
		t.Errorf("it goes to %s with hop limit %d", got, header[7])
	}
	if m[0] != 135 || netip.AddrFrom16([16]byte(m[8:])) != addr || vrrp.Sum(58, netip.IPv6Unspecified(), group, m) != 0xffff {
		t.Errorf("the message is %x", m)
	}
	if _, ok := holderOf6(f, net.HardwareAddr{2, 0, 0, 0, 0, 2}, []netip.Addr{addr}); ok {
		t.Error("who only asks passes for who has it")
	}
}

func TestHolderOf6(t *testing.T) {
	own, other := net.HardwareAddr{2, 0, 0, 0, 0, 1}, net.HardwareAddr{2, 0, 0, 0, 0, 2}
	addr := netip.MustParseAddr("2001:db8::10")
	good := unsolicited(other, addr, false)
	if h, ok := holderOf6(good, own, []netip.Addr{addr}); !ok || h.addr != addr || h.mac.String() != other.String() {
		t.Errorf("of an advertisement it reads %v, %t", h, ok)
	}
	for what, change := range map[string]func(f []byte) []byte{
		"our own":         func(f []byte) []byte { copy(f[6:], own); return f },
		"another address": func(f []byte) []byte { f[len(f)-9]++; return f },
		"a hop limit":     func(f []byte) []byte { f[21] = 254; return f },
		"another message": func(f []byte) []byte { f[54] = 134; return f },
		"another header":  func(f []byte) []byte { f[20] = 17; return f },
		"a short frame":   func(f []byte) []byte { return f[:77] },
		"nothing":         func([]byte) []byte { return nil },
	} {
		if h, ok := holderOf6(change(bytes.Clone(good)), own, []netip.Addr{addr}); ok {
			t.Errorf("%s: %v", what, h)
		}
	}
}

func FuzzHolderOf6(f *testing.F) {
	addr := netip.MustParseAddr("2001:db8::10")
	f.Add(unsolicited(net.HardwareAddr{2, 0, 0, 0, 0, 2}, addr, true))
	f.Fuzz(func(t *testing.T, frame []byte) {
		if h, ok := holderOf6(frame, net.HardwareAddr{2, 0, 0, 0, 0, 1}, []netip.Addr{addr}); ok && h.addr != addr {
			t.Errorf("%x: %v", frame, h)
		}
	})
}
