package dhcp

import (
	"testing"

	"everboot/site"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// FuzzHandle gives the handler whatever parses as DHCP. It must not panic; what it answers must be well formed; and it answers only what
// an Ethernet machine asked.
func FuzzHandle(f *testing.F) {
	for _, steps := range exchanges {
		for _, c := range steps {
			f.Add(message(c.mac, c.kind, c.with...).ToBytes())
		}
	}
	for _, b := range captured(f) {
		f.Add(b)
	}
	view, state := testView(), NewState(alone())
	f.Fuzz(func(t *testing.T, b []byte) {
		q, err := dhcpv4.FromBytes(b)
		if err != nil {
			return
		}
		p, e := Handle(epoch, view, q, state)
		if e.Decision.Reason.Text() == "" {
			t.Errorf("no reason: %+v", e.Decision)
		}
		if p == nil {
			return
		}
		wellFormed(t, q, p)
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
		packetOf(ip("198.18.0.2"), d.addr, p.ToBytes())
	})
}
