package vip

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"slices"

	"everboot/vip/vrrp"
)

// Figures of RFC 4861, and where a neighbour advertisement has what in an Ethernet frame.
const (
	neighbourSolicitation = 135 // §4.3
	ipv6HeaderLen         = 40
	icmpLen               = 24 // of both messages, without options
	icmpAt                = ethernetHeader + ipv6HeaderLen
	nextHeaderAt          = ethernetHeader + 6
	hopLimitAt            = ethernetHeader + 7
	targetAt              = icmpAt + 8
)

// solicitation returns the Ethernet frame that asks who has addr without saying that we do (RFC 4862 §5.4.2): a neighbour solicitation
// from the unspecified address, to the group that those join who have it.
func solicitation(mac net.HardwareAddr, addr netip.Addr) []byte {
	a := addr.As16()
	group := netip.AddrFrom16([16]byte{0: 0xff, 1: 0x02, 11: 0x01, 12: 0xff, 13: a[13], 14: a[14], 15: a[15]}) // RFC 4291 §2.7.1
	m := make([]byte, 8, icmpLen)
	m[0] = neighbourSolicitation
	m = append(m, addr.AsSlice()...)
	binary.BigEndian.PutUint16(m[2:], ^vrrp.Sum(icmpv6, netip.IPv6Unspecified(), group, m))
	f := []byte{0x33, 0x33, 0xff, a[13], a[14], a[15]} // RFC 2464 §7
	f = append(f, mac...)
	f = binary.BigEndian.AppendUint16(f, etherTypeIPv6)
	f = append(f, ipv6Header(netip.IPv6Unspecified(), group, icmpv6, ndHopLimit, len(m))...)
	return append(f, m...)
}

// holderOf6 reads a frame: whoever advertises one of the addresses from a hardware address other than ours has it (RFC 4862 §5.4.4). One
// that only solicits for it, as another router of the group does that starts at the same time, has not.
func holderOf6(frame []byte, own net.HardwareAddr, addrs []netip.Addr) (holder, bool) {
	if len(frame) < icmpAt+icmpLen || binary.BigEndian.Uint16(frame[12:]) != etherTypeIPv6 || frame[nextHeaderAt] != icmpv6 ||
		frame[hopLimitAt] != ndHopLimit || frame[icmpAt] != neighbourAdvertisement {
		return holder{}, false
	}
	h := holder{addr: netip.AddrFrom16([16]byte(frame[targetAt:])), mac: bytes.Clone(frame[6:12])}
	if bytes.Equal(h.mac, own) || !slices.Contains(addrs, h.addr) {
		return holder{}, false
	}
	return h, true
}
