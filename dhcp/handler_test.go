package dhcp

import (
	"strings"
	"testing"
	"time"

	"everboot/site"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

const (
	discover = dhcpv4.MessageTypeDiscover
	ask      = dhcpv4.MessageTypeRequest
	release  = dhcpv4.MessageTypeRelease
	decline  = dhcpv4.MessageTypeDecline
	inform   = dhcpv4.MessageTypeInform
)

// step is one message and what must come of it: the answer's kind, its address and the reason; and how many leases go to disk.
type step struct {
	after  time.Duration // since the step before
	mac    site.MAC
	kind   dhcpv4.MessageType
	with   []change
	answer string // "offer 198.18.0.51", "nak", "" for silence
	reason Reason
	saves  int
}

// In alone(), all of the pool is ours, so that the first free address is 198.18.0.100.
var exchanges = map[string][]step{
	"a reservation from discover to release": {
		{0, known, discover, nil, "offer 198.18.0.51", Reserved, 0},
		{0, known, ask, []change{serverID("198.18.0.2"), requested("198.18.0.51")}, "ack 198.18.0.51", Reserved, 1},
		{0, known, ask, []change{ciaddr("198.18.0.51")}, "ack 198.18.0.51", Renewed, 1},
		{0, known, release, []change{ciaddr("198.18.0.51"), serverID("198.18.0.2")}, "", Freed, 1},
		{0, known, ask, []change{requested("198.18.0.51")}, "ack 198.18.0.51", Reserved, 1},
	},
	"a pool lease from discover to release, and the next client": {
		{0, stranger, discover, nil, "offer 198.18.0.100", Pooled, 0},
		{0, pooled, discover, nil, "offer 198.18.0.101", Pooled, 0},
		{0, stranger, ask, []change{serverID("198.18.0.2"), requested("198.18.0.100")}, "ack 198.18.0.100", Pooled, 1},
		{30 * time.Minute, stranger, ask, []change{ciaddr("198.18.0.100")}, "ack 198.18.0.100", Renewed, 1},
		{time.Minute, stranger, ask, []change{requested("198.18.0.100")}, "ack 198.18.0.100", Pooled, 1},
		{0, stranger, release, []change{ciaddr("198.18.0.100")}, "", Freed, 1},
		{0, stranger, discover, nil, "offer 198.18.0.100", Pooled, 0},
	},
	"a client that took another's offer is forgotten": {
		{0, stranger, discover, nil, "offer 198.18.0.100", Pooled, 0},
		{0, stranger, ask, []change{serverID("198.18.0.3"), requested("198.18.0.140")}, "", OtherServer, 0},
		{0, pooled, discover, []change{requested("198.18.0.100")}, "offer 198.18.0.100", Pooled, 0},
	},
	"an offer runs out": {
		{0, stranger, discover, nil, "offer 198.18.0.100", Pooled, 0},
		{offerHold, pooled, discover, []change{requested("198.18.0.100")}, "offer 198.18.0.100", Pooled, 0},
		{0, stranger, ask, []change{serverID("198.18.0.2"), requested("198.18.0.100")}, "nak", NotIts, 0},
	},
	"a lease runs out": {
		{0, stranger, ask, []change{serverID("198.18.0.2"), requested("198.18.0.120")}, "ack 198.18.0.120", Pooled, 1},
		{59 * time.Minute, pooled, discover, []change{requested("198.18.0.120")}, "offer 198.18.0.100", Pooled, 0},
		{2 * time.Minute, pooled, discover, []change{requested("198.18.0.120")}, "offer 198.18.0.100", Pooled, 0},
		{0, stranger, ask, []change{ciaddr("198.18.0.120")}, "ack 198.18.0.120", Pooled, 1},
	},
	"init-reboot": {
		{0, stranger, ask, []change{requested("198.18.9.7")}, "nak", WrongNetwork, 0},
		{0, stranger, ask, []change{requested("198.18.0.120")}, "", NoRecord, 0},
		{0, known, ask, []change{requested("198.18.0.120")}, "nak", NotIts, 0},
		{0, stranger, ask, []change{requested("198.18.0.150")}, "nak", NotIts, 0}, // reserved for diskless
		{0, stranger, ask, []change{requested("198.18.0.10")}, "nak", NotIts, 0},  // the VIP
		{0, stranger, ask, []change{serverID("198.18.0.2"), requested("198.18.0.120")}, "ack 198.18.0.120", Pooled, 1},
		{0, pooled, ask, []change{requested("198.18.0.120")}, "nak", NotIts, 0},
		{0, stranger, ask, []change{requested("198.18.0.121")}, "nak", NotIts, 0}, // it has 120
	},
	"renewing what we have no record of": {
		{0, stranger, ask, []change{ciaddr("198.18.0.120")}, "ack 198.18.0.120", Readopted, 1},
		{0, pooled, ask, []change{ciaddr("198.18.0.120")}, "nak", NotIts, 0},
		{0, pooled, ask, []change{ciaddr("198.18.0.60")}, "", NoRecord, 0}, // in no pool
		{0, pooled, ask, []change{ciaddr("203.0.113.1")}, "", NoSubnet, 0},
	},
	"decline": {
		{0, stranger, discover, nil, "offer 198.18.0.100", Pooled, 0},
		{0, stranger, decline, []change{requested("198.18.0.100"), serverID("198.18.0.3")}, "", OtherServer, 0},
		{0, pooled, decline, []change{requested("198.18.0.100"), serverID("198.18.0.2")}, "", NotALease, 0},
		{0, stranger, decline, []change{requested("198.18.0.100"), serverID("198.18.0.2")}, "", Isolated, 1},
		{0, stranger, discover, nil, "offer 198.18.0.101", Pooled, 0},
		{0, stranger, decline, []change{serverID("198.18.0.2")}, "", Malformed, 0},
		{0, stranger, decline, []change{requested("198.18.0.101")}, "", Malformed, 0}, // whose offer it was it must say
	},
	"a declined reservation": {
		{0, known, discover, nil, "offer 198.18.0.51", Reserved, 0},
		{0, known, decline, []change{requested("198.18.0.51"), serverID("198.18.0.2")}, "", Isolated, 1},
		{0, known, discover, nil, "offer 198.18.0.100", Pooled, 0},
		{quarantine, known, discover, nil, "offer 198.18.0.51", Reserved, 0},
	},
	"a machine that speaks BOOTP": {
		{0, known, dhcpv4.MessageTypeNone, nil, "bootp 198.18.0.51", Reserved, 0},
		{0, stranger, dhcpv4.MessageTypeNone, nil, "", NoPool, 0},
		{0, known, dhcpv4.MessageTypeNone, []change{giaddr("203.0.113.1")}, "", NoSubnet, 0},
	},
	"inform": {
		{0, stranger, inform, []change{ciaddr("198.18.0.60")}, "ack", Informed, 0},
		{0, stranger, inform, nil, "", Malformed, 0},
		{0, stranger, inform, []change{ciaddr("203.0.113.1")}, "", NoSubnet, 0},
	},
	"client identifiers": {
		{0, stranger, discover, []change{clientID("\x00one")}, "offer 198.18.0.100", Pooled, 0},
		{0, stranger, discover, []change{clientID("\x00two")}, "offer 198.18.0.101", Pooled, 0},
		{0, pooled, discover, []change{clientID("\x00one")}, "offer 198.18.0.100", Pooled, 0},
		{0, stranger, discover, nil, "offer 198.18.0.102", Pooled, 0},
		{0, stranger, discover, []change{clientID("\x01" + string(stranger[:]))}, "offer 198.18.0.102", Pooled, 0},
		{0, stranger, discover, []change{clientID(strings.Repeat("x", 256))}, "", Malformed, 0},
	},
	"a reservation belongs to the MAC, whatever the identifier": {
		{0, known, discover, []change{clientID("\x00firmware")}, "offer 198.18.0.51", Reserved, 0},
		{0, known, ask, []change{clientID("\x00firmware"), serverID("198.18.0.2"), requested("198.18.0.51")}, "ack 198.18.0.51", Reserved, 1},
		{0, known, discover, []change{clientID("\xff an operating system")}, "offer 198.18.0.51", Reserved, 0},
		{0, known, ask, []change{clientID("\xff an operating system"), serverID("198.18.0.2"), requested("198.18.0.51")}, "ack 198.18.0.51", Reserved, 1},
		{0, known, ask, []change{ciaddr("198.18.0.51")}, "ack 198.18.0.51", Renewed, 1},
		{0, known, release, []change{clientID("\xff an operating system"), ciaddr("198.18.0.51")}, "", Freed, 1},
	},
	"a reservation in the pool is taken out of it": {
		{0, stranger, discover, []change{requested("198.18.0.150")}, "offer 198.18.0.100", Pooled, 0},
		{0, diskless, discover, nil, "offer 198.18.0.150", Reserved, 0},
		{0, stranger, ask, []change{serverID("198.18.0.2"), requested("198.18.0.150")}, "nak", NotIts, 0},
	},
	"relay agents choose the subnet": {
		{0, stranger, discover, []change{giaddr("198.18.7.1")}, "offer 198.18.7.10", Pooled, 0},
		{0, pooled, discover, []change{giaddr("198.18.7.1")}, "offer 198.18.7.11", Pooled, 0},
		{0, diskless, discover, []change{giaddr("198.18.7.1")}, "", PoolEmpty, 0},
		{0, stranger, discover, []change{giaddr("198.18.8.1")}, "", NoPool, 0},
		{0, stranger, discover, []change{giaddr("203.0.113.1")}, "", NoSubnet, 0},
		{0, known, ask, []change{giaddr("198.18.7.1"), requested("198.18.0.51")}, "nak", WrongNetwork, 0},
		{0, known, ask, []change{giaddr("203.0.113.1"), requested("198.18.0.51")}, "", NoSubnet, 0},
		{0, known, ask, []change{giaddr("203.0.113.1"), serverID("198.18.0.2"), requested("198.18.0.51")}, "", NoSubnet, 0},
		{0, stranger, ask, []change{giaddr("198.18.7.1"), serverID("198.18.0.2"), requested("198.18.7.10")}, "ack 198.18.7.10", Pooled, 1},
		{0, stranger, discover, nil, "offer 198.18.0.100", Pooled, 0},
	},
	"what contradicts RFC 2131": {
		{0, stranger, ask, nil, "", Malformed, 0},
		{0, stranger, ask, []change{serverID("198.18.0.2")}, "", Malformed, 0},
		{0, stranger, ask, []change{serverID("198.18.0.2"), requested("10.0.0.1")}, "nak", WrongNetwork, 0},
		{0, stranger, release, nil, "", Malformed, 0},
		{0, stranger, release, []change{ciaddr("198.18.0.100")}, "", NotALease, 0},
		{0, stranger, release, []change{ciaddr("198.18.0.100"), serverID("198.18.0.3")}, "", OtherServer, 0},
		{0, stranger, discover, []change{option(50, "abc")}, "", Malformed, 0},
		{0, stranger, discover, []change{option(50, "\xff\xff\xff\xff")}, "", Malformed, 0},
		{0, stranger, discover, []change{option(50, "\x00\x00\x00\x00")}, "offer 198.18.0.100", Pooled, 0},
		{0, stranger, discover, []change{giaddr("255.255.255.255")}, "", Malformed, 0},
		{0, stranger, dhcpv4.MessageTypeOffer, nil, "", Unsupported, 0},
		{0, stranger, dhcpv4.MessageTypeNone, nil, "", NoPool, 0},
		{0, stranger, discover, []change{func(q *dhcpv4.DHCPv4) { q.OpCode = dhcpv4.OpcodeBootReply }}, "", Malformed, 0},
		{0, site.MAC{}, discover, nil, "", BadHardware, 0},
		{0, site.MAC{1, 0, 0x5e, 0, 0, 1}, discover, nil, "", BadHardware, 0},
		{0, stranger, discover, []change{func(q *dhcpv4.DHCPv4) { q.ClientHWAddr = nil }}, "", BadHardware, 0},
		{0, stranger, discover, []change{func(q *dhcpv4.DHCPv4) { q.HWType = 32 }}, "", BadHardware, 0},
	},
}

func TestExchanges(t *testing.T) {
	for name, steps := range exchanges {
		t.Run(name, func(t *testing.T) {
			s, view, now := NewState(alone()), testView(), epoch
			for i, c := range steps {
				now = now.Add(c.after)
				q := message(c.mac, c.kind, c.with...)
				p, e := Handle(now, view, q, s)
				got := ""
				if p != nil {
					got = messageName(p.MessageType())
					if !p.YourIPAddr.IsUnspecified() {
						got += " " + p.YourIPAddr.String()
					}
					wellFormed(t, q, p, "198.18.0.2")
				}
				if got != c.answer || e.Decision.Reason != c.reason || len(e.Save) != c.saves {
					t.Fatalf("step %d: %q, %q with %d saved; want %q, %q with %d", i, got, e.Decision.Reason, len(e.Save), c.answer, c.reason, c.saves)
				}
				if e.Decision.Reason.Text() == "" {
					t.Errorf("reason %q has no text", e.Decision.Reason)
				}
			}
		})
	}
}

// wellFormed checks what is true of every answer.
func wellFormed(t *testing.T, q, p *dhcpv4.DHCPv4, server string) {
	t.Helper()
	b := p.ToBytes()
	back, err := dhcpv4.FromBytes(b)
	switch {
	case err != nil:
		t.Errorf("not readable: %v", err)
	case back.OpCode != dhcpv4.OpcodeBootReply || back.TransactionID != q.TransactionID || back.ClientHWAddr.String() != q.ClientHWAddr.String():
		t.Error("not an answer to its question")
	case back.MessageType() == dhcpv4.MessageTypeNone && (back.Options.Has(dhcpv4.OptionServerIdentifier) || back.Options.Has(dhcpv4.OptionIPAddressLeaseTime)):
		t.Error("DHCP in an answer to BOOTP")
	case back.MessageType() != dhcpv4.MessageTypeNone && back.ServerIdentifier().String() != server:
		t.Error("no server identifier")
	case len(b) > 1472:
		t.Errorf("%d bytes do not fit into a packet", len(b))
	case back.MessageType() == dhcpv4.MessageTypeNak && (!back.YourIPAddr.IsUnspecified() || !back.ServerIPAddr.IsUnspecified() || back.Options.Has(dhcpv4.OptionBootfileName)):
		t.Error("a NAK carries something")
	}
}

// TestTheRunningAreLeftAlone: a reservation made while a machine runs from another address takes effect at its next start.
func TestTheRunningAreLeftAlone(t *testing.T) {
	s, view := NewState(alone()), testView()
	Handle(epoch, view, message(stranger, ask, serverID("198.18.0.2"), requested("198.18.0.120")), s)
	later := testView()
	later.Devices[stranger] = site.Device{MAC: stranger, Address: ip("198.18.0.61")}
	later.Devices[known] = site.Device{MAC: known, Address: ip("198.18.0.120")} // and its address goes to another
	p, _ := Handle(epoch, later, message(stranger, ask, ciaddr("198.18.0.120")), s)
	if p == nil || p.MessageType() != dhcpv4.MessageTypeAck {
		t.Fatalf("renewing: %v", p)
	}
	// The other one waits in the pool until the address is free.
	p, e := Handle(epoch, later, message(known, discover), s)
	if p.YourIPAddr.String() != "198.18.0.100" || e.Decision.Reason != Pooled {
		t.Fatalf("the new owner of the reservation: %v", e.Decision)
	}
	p, _ = Handle(epoch, later, message(stranger, ask, requested("198.18.0.120")), s)
	if p == nil || p.MessageType() != dhcpv4.MessageTypeNak {
		t.Fatalf("starting again: %v", p)
	}
	p, _ = Handle(epoch, later, message(stranger, discover), s)
	if p.YourIPAddr.String() != "198.18.0.61" {
		t.Fatalf("discover: %v", p)
	}
}

func TestNilView(t *testing.T) {
	p, e := Handle(epoch, nil, message(known, discover, vendor("PXEClient:Arch:00000:UNDI:002001")), NewState(alone()))
	if p == nil || p.YourIPAddr.String() != "198.18.0.100" || e.Decision.Boot != site.UnknownDevice {
		t.Errorf("%v %v", p, e.Decision)
	}
}

func TestEventsAndDecision(t *testing.T) {
	_, e := Handle(epoch, testView(), message(known, discover, vendor("PXEClient:Arch:00007:UNDI:003016"), archIs(7)), NewState(alone()))
	var got []string
	for _, ev := range e.Events {
		if ev.MAC != known || ev.At != epoch {
			t.Errorf("event of nobody: %+v", ev)
		}
		got = append(got, ev.What+": "+ev.Detail)
	}
	want := "discover: firmware (PXEClient:Arch:00007:UNDI:003016) asks for an address and a boot file\n" +
		"offer: discover → offer 198.18.0.51: the address is its reservation; boot file snponly.efi from 198.18.0.10"
	if strings.Join(got, "\n") != want {
		t.Errorf("events:\n%s\nwant\n%s", strings.Join(got, "\n"), want)
	}
	d := e.Decision
	if d.Boot != site.Offered || d.File != site.FileX64 || d.Server != ip("198.18.0.10") || d.Address != ip("198.18.0.51") {
		t.Errorf("decision %+v", d)
	}
	_, e = Handle(epoch, testView(), message(diskless, discover, vendor("PXEClient:Arch:00000:UNDI:002001")), NewState(alone()))
	if s := e.Decision.String(); !strings.Contains(s, "no boot file: neither the device nor its collection names a vDisk") {
		t.Error(s)
	}
}
