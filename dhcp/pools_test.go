package dhcp

import (
	"net/netip"
	"slices"
	"testing"

	"everboot/site"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// relayed is a message that came by a relay agent with option 82 of these sub-options.
func relayed(agent, info string) change {
	return func(q *dhcpv4.DHCPv4) {
		giaddr(agent)(q)
		option(82, info)(q)
	}
}

// TestARelaySaysWhereAClientIs: RFC 3527 and RFC 5107. A client that speaks for an agent is not heeded.
func TestARelaySaysWhereAClientIs(t *testing.T) {
	link := string([]byte{1, 3, 'a', 'b', 'c', 5, 4, 198, 18, 7, 1})
	override := string([]byte{11, 4, 198, 18, 7, 1})
	for name, c := range map[string]struct {
		with           []change
		kind           dhcpv4.MessageType
		answer, server string
		reason         Reason
	}{
		"link selection":                    {[]change{relayed("198.18.0.1", link)}, discover, "198.18.7.10", "198.18.0.2", Pooled},
		"giaddr alone":                      {[]change{relayed("198.18.0.1", "\x01\x01a")}, discover, "198.18.0.100", "198.18.0.2", Pooled},
		"a link that we do not serve":       {[]change{relayed("198.18.0.1", "\x05\x04\xc6\x12\x63\x01")}, discover, "", "", NoSubnet},
		"a link that is none":               {[]change{relayed("198.18.0.1", "\x05\x03\xc6\x12\x63")}, discover, "198.18.0.100", "198.18.0.2", Pooled},
		"a sub-option that is cut short":    {[]change{relayed("198.18.7.1", "\x05\x04\xc6")}, discover, "198.18.7.10", "198.18.0.2", Pooled},
		"a client that says so itself":      {[]change{option(82, link)}, discover, "198.18.0.100", "198.18.0.2", Pooled},
		"server override":                   {[]change{relayed("198.18.7.1", override)}, discover, "198.18.7.10", "198.18.7.1", Pooled},
		"REQUEST to the overriding server":  {[]change{relayed("198.18.7.1", override), serverID("198.18.7.1"), requested("198.18.7.11")}, ask, "198.18.7.11", "198.18.7.1", Pooled},
		"REQUEST to it without an override": {[]change{relayed("198.18.7.1", "\x01\x01a"), serverID("198.18.7.1"), requested("198.18.7.11")}, ask, "", "", OtherServer},
	} {
		t.Run(name, func(t *testing.T) {
			p, e := Handle(epoch, testView(), message(stranger, c.kind, c.with...), NewState(alone()))
			if e.Decision.Reason != c.reason {
				t.Errorf("%s, want %s", e.Decision.Reason, c.reason)
			}
			if p == nil {
				if c.answer != "" {
					t.Error("no answer")
				}
				return
			}
			if p.YourIPAddr.String() != c.answer || p.ServerIdentifier().String() != c.server {
				t.Errorf("%s from %s, want %s from %s", p.YourIPAddr, p.ServerIdentifier(), c.answer, c.server)
			}
		})
	}
}

// TestSeveralPools: a subnet's pools are used one after the other, without what is excluded.
func TestSeveralPools(t *testing.T) {
	cfg := alone()
	pair := func(a, b string) [2]netip.Addr { return [2]netip.Addr{ip(a), ip(b)} }
	cfg.Subnets[0].Range = pair("198.18.0.100", "198.18.0.104")
	cfg.Subnets[0].Ranges = [][2]netip.Addr{pair("198.18.0.200", "198.18.0.201"), pair("198.18.0.210", "198.18.0.210")}
	cfg.Subnets[0].Exclude = [][2]netip.Addr{pair("198.18.0.100", "198.18.0.100"), pair("198.18.0.102", "198.18.0.103"), pair("198.18.0.201", "198.18.0.211")}
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	s := NewState(cfg)
	var got []string
	for i := range 5 {
		p, e := Handle(epoch, &site.View{}, message(site.MAC{2, 0, 0, 0, 0, byte(i)}, discover, requested("198.18.0.102")), s)
		if p == nil {
			if got = append(got, string(e.Decision.Reason)); i == 3 {
				break
			}
			continue
		}
		got = append(got, p.YourIPAddr.String())
	}
	if want := []string{"198.18.0.101", "198.18.0.104", "198.18.0.200", string(PoolEmpty)}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestNoClientGetsAnApplianceAddress: this host's own addresses and floating ones, which ARP does not find here, are in no pool.
func TestNoClientGetsAnApplianceAddress(t *testing.T) {
	cfg := alone()
	cfg.Taken = []netip.Addr{ip("198.18.0.100"), ip("198.18.0.102")}
	s := NewState(cfg)
	for i, q := range []*dhcpv4.DHCPv4{
		message(stranger, discover), message(pooled, discover, requested("198.18.0.102")), message(known, ask, ciaddr("198.18.0.100")),
	} {
		p, e := Handle(epoch, &site.View{}, q, s)
		if p == nil || slices.Contains([]string{"198.18.0.100", "198.18.0.102"}, p.YourIPAddr.String()) || i == 2 && e.Decision.Reason != NotIts {
			t.Errorf("%v", e.Decision)
		}
	}
}

// TestStrangersLeaveAddressesForDevices: machines that make up MACs take no more than what the site's own devices do not need.
func TestStrangersLeaveAddressesForDevices(t *testing.T) {
	view := testView()
	for i := range 30 {
		mac := site.MAC{0x52, 0x54, 0, 0, 2, byte(i)}
		view.Devices[mac] = site.Device{MAC: mac}
	}
	s, given := NewState(alone()), 0
	boots := func(mac site.MAC) Reason {
		p, e := Handle(epoch, view, message(mac, discover), s)
		if p == nil {
			return e.Decision.Reason
		}
		_, e = Handle(epoch, view, message(mac, ask, serverID("198.18.0.2"), requested(p.YourIPAddr.String())), s)
		return e.Decision.Reason
	}
	for i := range 200 {
		if reason := boots(site.MAC{2, 0, 0, 0, 0, byte(i)}); reason == Pooled {
			given++
		} else if reason != PoolKept {
			t.Fatal(reason)
		}
	}
	// Of 100 addresses 30 are kept, and one for the device that has none of its own in testView.
	if given < 60 || given > 69 {
		t.Errorf("%d strangers have an address", given)
	}
	for i := range 30 {
		if reason := boots(site.MAC{0x52, 0x54, 0, 0, 2, byte(i)}); reason != Pooled {
			t.Errorf("device %d: %s", i, reason)
		}
	}
}

// TestKeptAddressesAreNotCountedTwice: what is reserved for others, and what is not settled, is no address to spare.
func TestKeptAddressesAreNotCountedTwice(t *testing.T) {
	view, s := testView(), NewState(alone())
	for i := range 80 {
		mac := site.MAC{0x52, 0x54, 0, 0, 2, byte(i)}
		view.Devices[mac] = site.Device{MAC: mac}
		if i < 60 { // inside the range
			view.Devices[mac] = site.Device{MAC: mac, Address: netip.AddrFrom4([4]byte{198, 18, 0, byte(130 + i)})}
		}
	}
	given := 0
	for i := range 200 {
		if _, e := Handle(epoch, view, message(site.MAC{2, 0, 0, 0, 0, byte(i)}, discover), s); e.Decision.Reason == Pooled {
			given++
		}
	}
	// Of 100 addresses 60 are reserved, and 21 kept for the devices without an address of their own.
	if given != 19 {
		t.Errorf("%d strangers have an address", given)
	}
}

// TestWhoAsksForAnAddressIsAStrangerToo: no way into the pool passes the guard.
func TestWhoAsksForAnAddressIsAStrangerToo(t *testing.T) {
	for name, with := range map[string]func(string) []change{
		"an offer that we do not remember": func(a string) []change { return []change{serverID("198.18.0.2"), requested(a)} },
		"a lease that we do not know":      func(a string) []change { return []change{ciaddr(a)} },
	} {
		t.Run(name, func(t *testing.T) {
			view, s := testView(), NewState(alone())
			for i := range 30 {
				mac := site.MAC{0x52, 0x54, 0, 0, 2, byte(i)}
				view.Devices[mac] = site.Device{MAC: mac}
			}
			given := 0
			for i := range 100 {
				a := netip.AddrFrom4([4]byte{198, 18, 0, byte(100 + i)})
				p, e := Handle(epoch, view, message(site.MAC{2, 0, 0, 0, 0, byte(i)}, ask, with(a.String())...), s)
				switch {
				case p != nil && p.MessageType() == dhcpv4.MessageTypeAck:
					given++
				case a == ip("198.18.0.150"): // reserved
				case e.Decision.Reason != PoolKept:
					t.Fatalf("%s: %v", a, e.Decision)
				}
			}
			if given != 68 { // of 100 without one reservation and 31 kept
				t.Errorf("%d strangers have an address", given)
			}
		})
	}
}

// TestLongOptions: RFC 3396. What a client sends in pieces is one option, and a long one of ours goes in pieces.
func TestLongOptions(t *testing.T) {
	q := message(known, discover, vendor("PXEClient:Arch:00007:UNDI:003016"), archIs(7), option(77, "\x04iPXE"+string(make([]byte, 300))))
	parsed, err := dhcpv4.FromBytes(q.ToBytes())
	if err != nil {
		t.Fatal(err)
	}
	if n := len(parsed.Options.Get(dhcpv4.OptionUserClassInformation)); n != 305 {
		t.Errorf("an option of 305 bytes arrived with %d", n)
	}
	p, e := Handle(epoch, testView(), parsed, NewState(alone()))
	if e.Decision.Client != site.ClientIPXE || p == nil {
		t.Fatalf("%+v", e.Decision)
	}
	p.Options[17] = make([]byte, 300)
	if back, err := dhcpv4.FromBytes(p.ToBytes()); err != nil || len(back.Options[17]) != 300 {
		t.Errorf("%v", err)
	}
}
