package dhcp

import (
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
			d.Answer = "reply"
		}
	}
	if h.boot == site.Offered {
		d.Server, d.File = h.offer.Server, h.offer.File
	}
	e := Effects{Save: h.save, Decision: d, Probe: h.probe}
	if h.tells(d) {
		if h.r.kind == dhcpv4.MessageTypeDiscover && h.reply != nil {
			e.Events = append(e.Events, site.Event{At: h.now, MAC: d.MAC, What: d.Message, Detail: asks(d), Begins: d.Client != site.ClientOther})
		}
		e.Events = append(e.Events, d.event())
	}
	return h.reply, e
}

// tells reports whether a decision belongs into the timeline of a target's boot: not what another node answers, and of machines that
// neither boot nor are known only how it ended.
func (h *exchange) tells(d Decision) bool {
	switch {
	case d.MAC.IsZero(), d.Reason == OtherNode, d.Reason == Comparing:
		return false
	case d.Client != site.ClientOther || h.r.kind != dhcpv4.MessageTypeDiscover || h.reply == nil:
		return true
	}
	_, known := h.view.Devices[d.MAC]
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
