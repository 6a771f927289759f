package dhcp

import (
	"net/netip"
	"testing"
	"time"

	"everboot/site"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// FuzzHandle gives the handler whatever parses as DHCP, of a node that is alone and of two that are one service, twice, with any time in between and
// the channel of the two cut or not. It must not panic; what it answers must be well formed; it answers only what an Ethernet machine asked, and gives
// nobody an address that is somebody else's.
func FuzzHandle(f *testing.F) {
	add := func(b []byte) {
		f.Add(b, uint16(0), false)
		f.Add(b, uint16(700), true)
	}
	for _, steps := range exchanges {
		for _, c := range steps {
			add(message(c.mac, c.kind, c.with...).ToBytes())
		}
	}
	for _, b := range captured(f) {
		add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte, seconds uint16, cut bool) {
		q, err := dhcpv4.FromBytes(b)
		if err != nil {
			return
		}
		one := NewState(alone())
		fuzzed(t, epoch, q, one, "198.18.0.2")
		fuzzed(t, epoch.Add(time.Duration(seconds)*time.Second), q, one, "198.18.0.2")
		two := newTwins(t, 1)
		two.pass(time.Second)
		two.boot(two.clients[0]) // so that there is a lease to be told of
		for range 2 {
			for i, n := range two.nodes {
				fuzzed(t, two.now.Add(n.skew), q, n.State, commonID.String())
				two.tell(1-i, n.pair.Flush(two.now.Add(n.skew)))
			}
			two.cut = cut
			two.now = two.now.Add(time.Duration(seconds) * time.Second)
			two.pass(5 * tickEvery)
		}
	})
}

// fuzzed gives one node a message and looks at its answer.
func fuzzed(t *testing.T, now time.Time, q *dhcpv4.DHCPv4, s *State, server string) {
	p, e := Handle(now, testView(), q, s)
	if e.Decision.Reason.Text() == "" {
		t.Errorf("no reason: %+v", e.Decision)
	}
	if p == nil {
		return
	}
	r, _ := read(q)
	if r.override.IsValid() {
		server = r.override.String()
	}
	wellFormed(t, q, p, server)
	d := destinationOf(q, p, alone().Subnets[0].Network)
	if !d.addr.Addr().Is4() || d.addr.Addr().IsUnspecified() {
		t.Errorf("an answer to %v", d.addr)
	}
	mac := site.MAC(q.ClientHWAddr)
	if q.OpCode != dhcpv4.OpcodeBootRequest || mac.IsZero() || mac[0]&1 != 0 {
		t.Error("garbage was answered")
	}
	if kind := q.MessageType(); kind != discover && kind != ask && kind != inform && kind != dhcpv4.MessageTypeNone {
		t.Errorf("%v was answered", kind)
	}
	if a, ok := netip.AddrFromSlice(p.YourIPAddr.To4()); ok && a.IsValid() && s.avoid(s.deviceOf(r))(a) {
		t.Errorf("%s was given %s", r.mac, a)
	}
	packetOf(ip("198.18.0.2"), d.addr, p.ToBytes())
}
