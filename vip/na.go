package vip

import (
	"encoding/binary"
	"net"
	"net/netip"

	"everboot/vip/vrrp"
)

// Figures of RFC 4861.
const (
	icmpv6                 = 58
	neighbourAdvertisement = 136  // §4.4
	routerFlag             = 0x80 // R, in the first byte of the flags
	overrideFlag           = 0x20 // O: it replaces what the receiver knows
	targetLinkLayer        = 2    // the option's type, §4.6.1
	ndHopLimit             = 255
	etherTypeIPv6          = 0x86dd
	etherTypeIPv4          = 0x0800
)

// unsolicited returns the Ethernet frame that tells all nodes that addr is at mac (RFC 4861 §7.2.6): an unsolicited neighbour
// advertisement. router says whether the host forwards: neighbours that hold it for a router would drop it if this flag fell.
func unsolicited(mac net.HardwareAddr, addr netip.Addr, router bool) []byte {
	all := netip.IPv6LinkLocalAllNodes()
	m := make([]byte, 8, 32)
	m[0] = neighbourAdvertisement
	m[4] = overrideFlag
	if router {
		m[4] |= routerFlag
	}
	m = append(m, addr.AsSlice()...)
	m = append(m, targetLinkLayer, 1) // in units of 8 bytes
	m = append(m, mac...)
	binary.BigEndian.PutUint16(m[2:], ^vrrp.Sum(icmpv6, addr, all, m))
	f := []byte{0x33, 0x33, 0, 0, 0, 1} // ff02::1 (RFC 2464 §7)
	f = append(f, mac...)
	f = binary.BigEndian.AppendUint16(f, etherTypeIPv6)
	f = append(f, ipv6Header(addr, all, icmpv6, ndHopLimit, len(m))...)
	return append(f, m...)
}
