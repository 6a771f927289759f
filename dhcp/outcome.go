package dhcp

import (
	"maps"
	"slices"

	"everboot/site"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// finish makes the answer and the record of it.
func (h *exchange) finish(reason Reason) (*dhcpv4.DHCPv4, Effects) {
	switch h.kind {
	case dhcpv4.MessageTypeNak:
		h.reply = refusal(h.r, h.cfg.serverID(), reason)
	case dhcpv4.MessageTypeOffer, dhcpv4.MessageTypeAck:
		h.offer, h.boot = site.Boot(h.view, h.r.boot)
		h.reply = h.answer(reason)
	}
	d := Decision{
		At: h.now, MAC: h.r.mac, Message: messageName(h.r.kind), Reason: reason, Address: h.addr,
		Client: h.r.boot.Client, Arch: h.r.boot.Arch, Boot: h.boot, Vendor: h.r.vendor,
	}
	if h.reply != nil {
		d.Answer = messageName(h.kind)
		if h.kind == dhcpv4.MessageTypeNone {
			d.Answer = bootpReply
		}
	}
	if h.boot == site.Offered {
		d.Server, d.File = h.offer.Server, h.offer.File
	}
	return h.reply, Effects{Save: h.save, Decision: d, Probe: h.probe, Events: events(h.view, d)}
}

// opening are the messages that a client begins with.
var opening = []string{messageName(dhcpv4.MessageTypeDiscover), "v6-solicit"}

// Events returns what a decision adds to the timelines of targets, where no Server takes it (Note).
func Events(v *site.View, d Decision) []site.Event {
	if v == nil {
		v = &site.View{}
	}
	return events(v, d)
}

// events returns what a decision adds to the timelines of targets.
func events(v *site.View, d Decision) (list []site.Event) {
	if !d.told(v) {
		return nil
	}
	if slices.Contains(opening, d.Message) && d.Answer != "" {
		list = append(list, site.Event{At: d.At, MAC: d.MAC, What: d.Message, Detail: asks(d), Begins: d.Client != site.ClientOther})
	}
	return append(list, d.event())
}

// Answers reports whether an event tells what became of a message over IPv4.
func Answers(e site.Event) bool {
	return e.What == bootpReply || e.What == messageName(0xff) || slices.Contains(slices.Collect(maps.Values(messageNames)), e.What)
}

// bootpReply is the answer of a Decision on a message without DHCP.
const bootpReply = "reply"

// told reports whether a decision belongs into the timeline of a target's boot: not what another node answers, and of machines that
// neither boot nor are known only how it ended.
func (d Decision) told(v *site.View) bool {
	switch {
	case d.MAC.IsZero(), d.Reason == OtherNode, d.Reason == Comparing, d.Reason == Searching, d.Reason == Introduced:
		return false
	case d.Client != site.ClientOther || !slices.Contains(opening, d.Message) || d.Answer == "":
		return true
	}
	_, known := v.Devices[d.MAC]
	return known
}

// asks returns who sent a DISCOVER, in words.
func asks(d Decision) string {
	switch d.Client {
	case site.ClientIPXE:
		return "iPXE asks for an address and its script"
	case site.ClientPXE, site.ClientHTTP:
		return "firmware (" + d.Vendor + ") asks for an address and a boot file"
	}
	return "asks for an address"
}
