package vip_test

import (
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"everboot/internal/lab"
	"everboot/vip"
	"everboot/vip/vrrp"
)

const virtualMAC = "00:00:5e:00:01:33"

// TestLabVirtualMAC: what a client knows of the address stays true through every move, it reaches the owner each time, and nothing is
// left on a host that is not the owner.
func TestLabVirtualMAC(t *testing.T) {
	s := newSite(t)
	virtual := func(priority int) vip.Config {
		cfg := config(priority)
		cfg.VirtualMAC = true
		return cfg
	}
	s.expectSettingsAskedFor(virtual(100))
	for _, h := range []*lab.Host{s.a, s.b} {
		h.Sysctl("ipv4/conf/all/arp_ignore", "1")
		h.Sysctl("ipv4/conf/all/arp_announce", "2")
		h.Sysctl("ipv4/conf/default/rp_filter", "2")
		s.serveName(h)
	}
	s.seg.Capture("vrrp or arp")
	guard := s.start(s.a, "guard", virtual(100))
	worker := s.expect(guard, `worker (\d+)`)[1]
	s.expect(guard, "state active")
	second := s.start(s.b, "worker", virtual(90))
	s.expect(second, "state backup")
	s.expectVirtualOwner(s.a, s.b)

	s.cableA.Silence(true)
	s.within(vrrp.DownInterval(90, interval), "b has the address of a silent a", s.answers(s.b))
	s.cableA.Silence(false)
	s.within(interval, "b has let go", not(s.holds(s.b)))
	s.expectVirtualOwner(s.a, s.b)

	s.signal(worker, syscall.SIGKILL)
	s.within(vrrp.SkewTime(90, interval), "b has the address of a killed a", s.answers(s.b))
	s.expect(guard, `released (\d+)`)
	s.expectVirtualOwner(s.b, s.a)
	s.within(patience, "a's macvlan has gone with its guard", func() bool { return !strings.Contains(s.run(s.a, "ip", "link"), "vrrp") })

	third := s.start(s.a, "worker", virtual(100))
	s.expect(third, "state backup")
	s.run(s.b, "sh", "-c", "ip link del $(ip -o link | grep -o 'vrrp[0-9]*-51')") // a vandal
	s.within(patience, "a has the address of which b was robbed", s.answers(s.a))
	s.expectVirtualOwner(s.a, s.b)

	if err := third.Stop(patience); err != nil {
		t.Error(err)
	}
	s.expectVirtualOwner(s.b, s.a)
	if err := second.Stop(patience); err != nil {
		t.Error(err)
	}
	if links := s.run(s.b, "ip", "link"); strings.Contains(links, "vrrp") {
		t.Errorf("a macvlan is left:\n%s", links)
	}
	s.expectVirtualFrames()
}

// expectSettingsAskedFor holds that Check says what the kernel must be told.
func (s *site) expectSettingsAskedFor(cfg vip.Config) {
	s.t.Helper()
	for _, key := range []string{"ipv4/conf/all/arp_ignore", "ipv4/conf/all/arp_announce"} {
		s.a.Sysctl(key, "0")
	}
	s.a.Sysctl("ipv4/conf/default/rp_filter", "1")
	var all string
	if err := s.a.Do(func() error {
		for _, err := range vip.Check(cfg) {
			all += err.Error() + "\n"
		}
		return nil
	}); err != nil {
		s.t.Fatal(err)
	}
	for _, want := range []string{"arp_ignore=1", "arp_announce=2", "default.rp_filter=2"} {
		if !strings.Contains(all, want) {
			s.t.Errorf("Check does not ask for %s:\n%s", want, all)
		}
	}
}

// serveName answers every TCP connection, to whatever address, with the host's name.
func (s *site) serveName(h *lab.Host) {
	s.t.Helper()
	l, err := h.Listen("tcp", ":7")
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprintln(c, h.Name())
			c.Close()
		}
	}()
}

// answers reports whether it is this host that answers the client at the address.
func (s *site) answers(h *lab.Host) func() bool {
	return func() bool {
		c, err := s.c.Dial(s.t.Context(), "tcp", net.JoinHostPort(floating, "7"))
		if err != nil {
			return false
		}
		defer c.Close()
		var name string
		_ = c.SetDeadline(time.Now().Add(time.Second))
		_, err = fmt.Fscan(c, &name)
		return err == nil && name == h.Name()
	}
}

// holds reports whether a host has the address, on whatever interface.
func (s *site) holds(h *lab.Host) func() bool {
	return func() bool { return strings.Contains(s.run(h, "ip", "-o", "address"), floating+"/") }
}

// expectVirtualOwner holds that the client reaches the owner by the virtual MAC address, and both hosts' own addresses by their own.
func (s *site) expectVirtualOwner(owner, other *lab.Host) {
	s.t.Helper()
	s.within(patience, owner.Name()+" answers", s.answers(owner))
	if !s.holds(owner)() || s.holds(other)() {
		s.t.Errorf("%s has the address: %t; %s has it: %t", owner.Name(), s.holds(owner)(), other.Name(), s.holds(other)())
	}
	for address, mac := range map[string]string{floating: virtualMAC, "198.18.0.2": s.cableA.MAC().String(), "198.18.0.3": s.cableB.MAC().String()} {
		c, err := s.c.Dial(s.t.Context(), "tcp", net.JoinHostPort(address, "7"))
		if err != nil {
			s.t.Errorf("connecting to %s: %v", address, err)
			continue
		}
		c.Close()
		if got := s.run(s.c, "ip", "neigh", "show", address); !strings.Contains(got, mac) {
			s.t.Errorf("the client knows %q, want %s at %s", got, address, mac)
		}
	}
}

// expectVirtualFrames holds that nobody was ever told of another MAC address, and that owners advertised from it.
func (s *site) expectVirtualFrames() {
	s.t.Helper()
	frames, err := s.seg.Decoded("vrrp.prio > 0 || arp.src.proto_ipv4 == "+floating, "eth.src", "arp.src.hw_mac", "ip.ttl", "ip.dsfield.dscp", "vrrp.checksum.status", "_ws.expert.message")
	if err != nil {
		s.t.Fatal(err)
	}
	advertised, told, own := 0, 0, 0
	for _, f := range frames {
		switch {
		case f == virtualMAC+"\t\t255\t48\t1\t":
			advertised++
		case strings.HasPrefix(f, virtualMAC+"\t"+virtualMAC+"\t"):
			told++
		case strings.Contains(f, "\t\t255\t"): // what a router that has just let go says once more
			own++
		default:
			s.t.Errorf("a frame that nobody should send: %q", f)
		}
	}
	if advertised < 20 || told < 10 || own > 2 {
		s.t.Errorf("from the virtual MAC address %d advertisements and %d times ARP; %d advertisements from another", advertised, told, own)
	}
}
