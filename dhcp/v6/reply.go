package v6

import (
	"crypto/sha256"
	"net"
	"net/netip"
	"slices"
	"strings"

	"everboot/dhcp"
	"everboot/site"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"
)

// serverID returns the identifier of all appliances of a site: to a client they are one server, and whichever lives answers its renewals.
func serverID(siteName string) *dhcpv6.DUIDUUID {
	sum := sha256.Sum256([]byte("everboot DHCPv6 server\x00" + siteName))
	d := &dhcpv6.DUIDUUID{UUID: [16]byte(sum[:16])}
	d.UUID[6] = d.UUID[6]&0x0f | 0x80 // version 8, made as its maker likes (RFC 9562 §5.8)
	d.UUID[8] = d.UUID[8]&0x3f | 0x80
	return d
}

// begin starts the answer with what all answers have.
func (h *exchange) begin(kind dhcpv6.MessageType) {
	h.reply = &dhcpv6.Message{MessageType: kind, TransactionID: h.r.msg.TransactionID}
	if id := h.r.msg.Options.ClientID(); id != nil {
		h.reply.AddOption(dhcpv6.OptClientID(id))
	}
	h.reply.AddOption(dhcpv6.OptServerID(h.duid))
}

func (h *exchange) put(code dhcpv6.OptionCode, value []byte) {
	h.reply.AddOption(&dhcpv6.OptionGeneric{OptionCode: code, OptionData: value})
}

func (h *exchange) status(code iana.StatusCode, text string) {
	h.reply.AddOption(&dhcpv6.OptStatusCode{StatusCode: code, StatusMessage: text})
}

// give puts an association into the answer: its address, and those that it must not use any more.
func (h *exchange) give(ia *dhcpv6.OptIANA, a netip.Addr, gone ...netip.Addr) {
	c, lease := h.r.client(ia.IaId), h.sub.lease()
	o := &dhcpv6.OptIANA{IaId: ia.IaId, T1: lease / 2, T2: lease * 4 / 5} // RFC 8415 §21.4
	if a.IsValid() {
		o.Options.Add(&dhcpv6.OptIAAddress{IPv6Addr: a.AsSlice(), PreferredLifetime: lease, ValidLifetime: lease})
		if !h.addr.IsValid() {
			h.addr = a
		}
		if h.reply.MessageType == dhcpv6.MessageTypeReply {
			h.known.put(a, use{client: h.holder(c, a), mac: h.r.mac, until: h.now.Add(lease)})
		}
	}
	for _, x := range gone {
		if x != a {
			o.Options.Add(&dhcpv6.OptIAAddress{IPv6Addr: x.AsSlice()})
			h.known.forget(x, c)
		}
	}
	h.reply.AddOption(o)
}

// refuse puts an association without an address into the answer.
func (h *exchange) refuse(ia *dhcpv6.OptIANA, code iana.StatusCode, text string) {
	o := &dhcpv6.OptIANA{IaId: ia.IaId}
	o.Options.Add(&dhcpv6.OptStatusCode{StatusCode: code, StatusMessage: text})
	h.reply.AddOption(o)
}

// refuseOthers answers the associations of kinds that we have nothing for: temporary addresses and prefixes.
func (h *exchange) refuseOthers() {
	for i, ia := range h.r.msg.Options.IATA() {
		if i >= maxIAs {
			break
		}
		o := &dhcpv6.OptIATA{IaId: ia.IaId}
		o.Options.Add(&dhcpv6.OptStatusCode{StatusCode: iana.StatusNoAddrsAvail, StatusMessage: "no temporary addresses here"})
		h.reply.AddOption(o)
	}
	for i, ia := range h.r.msg.Options.IAPD() {
		if i >= maxIAs {
			break
		}
		o := &dhcpv6.OptIAPD{IaId: ia.IaId}
		o.Options.Add(&dhcpv6.OptStatusCode{StatusCode: iana.StatusNoPrefixAvail, StatusMessage: "no prefixes here"})
		h.reply.AddOption(o)
	}
}

// finish completes the answer and makes the record of it.
func (h *exchange) finish(reason dhcp.Reason) ([]byte, dhcp.Decision) {
	d := dhcp.Decision{At: h.now, MAC: h.r.mac, Reason: reason, Client: h.r.boot.Client, Arch: h.r.boot.Arch, Vendor: h.r.vendor}
	if h.r.msg != nil {
		d.Message = name(h.r.msg.MessageType)
	}
	if h.reply != nil {
		h.options()
		d.Answer = name(h.reply.MessageType)
	}
	d.Address, d.Boot = h.addr, h.boot
	if h.boot == site.Offered {
		d.Server, d.File = h.offer.Server, h.offer.File
	}
	if h.reply == nil {
		return nil, d
	}
	return h.wrap(h.reply).ToBytes(), d
}

// configures reports whether an answer to such a message says how the client is to be set up.
func configures(t dhcpv6.MessageType) bool {
	return t != dhcpv6.MessageTypeConfirm && t != dhcpv6.MessageTypeRelease && t != dhcpv6.MessageTypeDecline
}

// options puts into the answer what the client asked for.
func (h *exchange) options() {
	if status := h.reply.Options.Status(); !configures(h.r.msg.MessageType) || status != nil && status.StatusCode == iana.StatusUseMulticast {
		return
	}
	if slices.Contains(h.r.wants, dhcpv6.OptionDNSRecursiveNameServer) && len(h.sub.DNS) > 0 {
		var list []net.IP
		for _, a := range h.sub.DNS {
			list = append(list, a.AsSlice())
		}
		h.reply.AddOption(dhcpv6.OptDNS(list...))
	}
	if h.r.msg.MessageType == dhcpv6.MessageTypeInformationRequest {
		h.reply.AddOption(dhcpv6.OptInformationRefreshTime(max(h.sub.lease(), minRefresh)))
	}
	if h.offer, h.boot = site.Boot(h.view, h.r.boot); h.boot != site.Offered {
		return
	}
	h.reply.AddOption(dhcpv6.OptBootFileURL(h.offer.File)) // RFC 5970 §3.1
	// HTTP boot takes an answer for one to boot with only if it has its vendor class in it (UEFI 2.10 §24.7.3.1). PXE must not see its own: EDK2 then
	// looks for a boot server instead of loading the URL (PXE-E16). Option 60, parameters of the boot file, is not sent: nothing that we name takes
	// any, and EDK2 reads it as the file's size, which it can ask TFTP for.
	if h.r.boot.Client == site.ClientHTTP {
		h.reply.AddOption(&dhcpv6.OptVendorClass{EnterpriseNumber: intel, Data: [][]byte{[]byte(vendorHTTP)}})
	}
}

// wrap puts an answer into the envelopes of the relay agents that the message came through (RFC 8415 §19.3).
func (h *exchange) wrap(m dhcpv6.DHCPv6) dhcpv6.DHCPv6 {
	for _, r := range slices.Backward(h.r.relays) {
		out := &dhcpv6.RelayMessage{MessageType: dhcpv6.MessageTypeRelayReply, HopCount: r.HopCount, LinkAddr: r.LinkAddr, PeerAddr: r.PeerAddr}
		// An agent finds its way back by the interface that it named, and RFC 8357's by the port.
		for _, code := range []dhcpv6.OptionCode{dhcpv6.OptionInterfaceID, dhcpv6.OptionRelayPort} {
			if o := r.GetOneOption(code); o != nil {
				out.AddOption(o)
			}
		}
		out.AddOption(dhcpv6.OptRelayMessage(m))
		m = out
	}
	return m
}

// name returns what a message is called in decisions.
func name(t dhcpv6.MessageType) string {
	if _, ok := needs[t]; ok || t == dhcpv6.MessageTypeAdvertise || t == dhcpv6.MessageTypeReply {
		return "v6-" + strings.ToLower(t.String())
	}
	return "v6-other"
}
