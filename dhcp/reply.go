package dhcp

import (
	"cmp"
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"time"

	"everboot/site"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

const (
	// maxFile is the room of the header's file field without its closing zero.
	maxFile = 127
	// optionIPXE carries iPXE's own options, encapsulated; 0xb0 in it says that no proxyDHCP server is to be waited for.
	optionIPXE        = 175
	ipxeNoProxy       = 0xb0
	maxMachineID      = 17   // option 97: a type byte and a UUID (RFC 4578 §2.3)
	pxeDiscovery      = 6    // option 43: PXE_DISCOVERY_CONTROL
	pxeUseOfferedFile = 0x08 // bit 3: no multicast or broadcast discovery, no prompt; load the file that this answer names
	pxeEnd            = 0xff
)

// answer returns an OFFER or an ACK.
func (h *exchange) answer(reason Reason) *dhcpv4.DHCPv4 {
	p := blank(h.r, h.kind, h.cfg.serverID())
	put := func(code dhcpv4.OptionCode, value []byte) { p.Options[code.Code()] = value }
	// An INFORM is answered without an address and without a time (RFC 2131 §4.3.5).
	if reason != Informed {
		p.YourIPAddr = netIP(h.addr)
		lease := h.sub.lease()
		put(dhcpv4.OptionIPAddressLeaseTime, seconds(lease))
		put(dhcpv4.OptionRenewTimeValue, seconds(lease/2))       // T1, RFC 2131 §4.4.5
		put(dhcpv4.OptionRebindingTimeValue, seconds(lease*7/8)) // T2
	}
	if h.r.kind != dhcpv4.MessageTypeDiscover {
		p.ClientIPAddr = netIP(h.r.ciaddr) // RFC 2131 table 3: an ACK repeats ciaddr, an OFFER has zero
	}
	put(dhcpv4.OptionSubnetMask, net.CIDRMask(h.sub.Network.Bits(), 32))
	if h.sub.Router.IsValid() {
		put(dhcpv4.OptionRouter, h.sub.Router.AsSlice())
	}
	if len(h.sub.DNS) > 0 {
		put(dhcpv4.OptionDomainNameServer, slices.Concat(each(h.sub.DNS)...))
	}
	if h.sub.Domain != "" {
		put(dhcpv4.OptionDomainName, []byte(h.sub.Domain))
	}
	if h.boot == site.Offered {
		bootOptions(p, h.r, h.offer)
	}
	return p
}

// PutBoot puts an offer into the answer to a message, for DHCP servers that are not ours.
func PutBoot(answer, q *dhcpv4.DHCPv4, o site.Offer) {
	if r, reason := read(q); reason == "" {
		bootOptions(answer, r, o)
	}
}

// bootOptions tells a client where to boot from, in the way that its firmware understands.
func bootOptions(p *dhcpv4.DHCPv4, r request, o site.Offer) {
	put := func(code uint8, value []byte) { p.Options[code] = value }
	p.ServerIPAddr = netIP(o.Server)
	put(dhcpv4.OptionBootfileName.Code(), []byte(o.File))
	// UEFI wants the identifier that it sent back (PXE 2.1 §2.2.3); longer ones are not what they claim to be.
	if id := r.msg.Options.Get(dhcpv4.OptionClientMachineIdentifier); len(id) > 0 && len(id) <= maxMachineID {
		put(dhcpv4.OptionClientMachineIdentifier.Code(), id)
	}
	if r.boot.Client == site.ClientHTTP {
		// UEFI HTTP boot takes an offer for one only with this vendor class, and option 67 is a URL (UEFI 2.10 §24.7.3.1).
		put(dhcpv4.OptionClassIdentifier.Code(), []byte(vendorHTTP))
		return
	}
	put(dhcpv4.OptionTFTPServerName.Code(), []byte(o.Server.String()))
	// Old PXE ROMs read nothing but the header; a longer name has option 67 alone, rather than a name cut short.
	if len(o.File) <= maxFile {
		p.BootFileName = o.File
	}
	switch r.boot.Client {
	case site.ClientPXE:
		// With the vendor class the answer counts as a PXE one, and with the discovery control no firmware looks for a boot server
		// or shows a menu: it loads the file named here.
		put(dhcpv4.OptionClassIdentifier.Code(), []byte(vendorPXE))
		put(dhcpv4.OptionVendorSpecificInformation.Code(), []byte{pxeDiscovery, 1, pxeUseOfferedFile, pxeEnd})
	case site.ClientIPXE:
		// iPXE holds an offer for 2 s in case a proxyDHCP server has a better one, unless told that there is none.
		put(optionIPXE, []byte{ipxeNoProxy, 1, 1})
	}
}

// refusal returns a NAK: no address, and nothing but the identifier and the reason (RFC 2131 table 3).
func refusal(r request, server netip.Addr, reason Reason) *dhcpv4.DHCPv4 {
	p := blank(r, dhcpv4.MessageTypeNak, server)
	// A relay agent looks at this bit to know how to send it on: the client cannot be reached at an address (RFC 2131 §4.3.2).
	if r.giaddr.IsValid() {
		p.SetBroadcast()
	}
	p.Options[dhcpv4.OptionMessage.Code()] = []byte(reason.Text())
	return p
}

// blank returns what all answers have in common.
func blank(r request, kind dhcpv4.MessageType, server netip.Addr) *dhcpv4.DHCPv4 {
	p := &dhcpv4.DHCPv4{
		OpCode: dhcpv4.OpcodeBootReply, HWType: r.msg.HWType, TransactionID: r.msg.TransactionID, Flags: r.msg.Flags,
		ClientIPAddr: net.IPv4zero, YourIPAddr: net.IPv4zero, ServerIPAddr: net.IPv4zero, GatewayIPAddr: netIP(r.giaddr),
		ClientHWAddr: net.HardwareAddr(r.mac[:]), Options: make(dhcpv4.Options),
	}
	p.Options[dhcpv4.OptionDHCPMessageType.Code()] = []byte{byte(kind)}
	p.Options[dhcpv4.OptionServerIdentifier.Code()] = cmp.Or(r.override, server).AsSlice()
	// The client's identifier and the relay's information come back as they were (RFC 6842 §3, RFC 3046 §2.2).
	for _, code := range []dhcpv4.OptionCode{dhcpv4.OptionClientIdentifier, dhcpv4.OptionRelayAgentInformation} {
		if v := r.msg.Options.Get(code); len(v) > 0 && len(v) <= maxClientID {
			p.Options[code.Code()] = v
		}
	}
	return p
}

func netIP(a netip.Addr) net.IP {
	if !a.IsValid() {
		return net.IPv4zero
	}
	return net.IP(a.AsSlice())
}

func each(list []netip.Addr) [][]byte {
	out := make([][]byte, len(list))
	for i, a := range list {
		out[i] = a.AsSlice()
	}
	return out
}

func seconds(d time.Duration) []byte {
	return binary.BigEndian.AppendUint32(nil, uint32(min(d/time.Second, 0xffffffff)))
}
