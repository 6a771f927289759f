package dhcp

import (
	"testing"

	"everboot/site"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// TestReservationByClientID: who sends a device's client identifier has its reservation from any network card, and the device itself has it
// whatever it sends. A reservation by MAC comes first.
func TestReservationByClientID(t *testing.T) {
	id := site.ClientID("\xff\x00\x01desk")
	view := testView()
	d := view.Devices[known]
	d.ClientID = id
	view.Devices[known] = d
	dock := site.MAC{0x52, 0x54, 0, 0, 0, 0x77}
	for name, c := range map[string]struct {
		mac    site.MAC
		id     string
		want   string
		reason Reason
	}{
		"its own MAC":                          {known, "", "198.18.0.51", Reserved},
		"its own MAC and another identifier":   {known, "else", "198.18.0.51", Reserved},
		"another MAC with its identifier":      {dock, string(id), "198.18.0.51", Reserved},
		"another device with its identifier":   {diskless, string(id), "198.18.0.150", Reserved}, // which has a reservation of its own
		"a pooled device with its identifier":  {pooled, string(id), "198.18.0.51", Reserved},
		"another MAC with no identifier":       {dock, "", "198.18.0.100", Pooled},
		"another MAC with part of identifiers": {dock, string(id[:4]), "198.18.0.100", Pooled},
	} {
		var with []change
		if c.id != "" {
			with = append(with, clientID(c.id))
		}
		s := NewState(alone())
		p, e := Handle(epoch, view, message(c.mac, discover, with...), s)
		if p == nil || p.YourIPAddr.String() != c.want || e.Decision.Reason != c.reason || e.Decision.MAC != c.mac {
			t.Errorf("%s: %v", name, e.Decision)
			continue
		}
		p, e = Handle(epoch, view, message(c.mac, ask, append(with, serverID("198.18.0.2"), requested(c.want))...), s)
		if p == nil || p.MessageType() != dhcpv4.MessageTypeAck || e.Save[0].Reserved != (c.reason == Reserved) || e.Save[0].MAC != c.mac {
			t.Errorf("%s: REQUEST: %v %+v", name, e.Decision, e.Save)
		}
	}
	// It is taken out of its dock: the lease moves with the identifier, and back with the MAC.
	s := NewState(alone())
	take := func(mac site.MAC, with ...change) string {
		with = append(with, serverID("198.18.0.2"), requested("198.18.0.51"))
		_, e := Handle(epoch, view, message(mac, ask, with...), s)
		return e.Decision.Answer
	}
	if got := []string{take(known, clientID("else")), take(dock, clientID(string(id))), take(dock), take(known)}; got[0] != "ack" || got[1] != "ack" || got[2] != "nak" || got[3] != "ack" {
		t.Errorf("in the dock, out of it, a stranger, in it again: %v", got)
	}
}
