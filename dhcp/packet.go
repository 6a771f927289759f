package dhcp

import (
	"encoding/binary"
	"net/netip"

	"everboot/site"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// destination is where an answer goes.
type destination struct {
	addr netip.AddrPort
	mac  site.MAC   // of the frame; zero: the packet is routed
	from netip.Addr // the source; zero: this node's own address
}

var (
	limitedBroadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})
	broadcastMAC     = site.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
)

// destinationOf returns where an answer to a request goes (RFC 2131 §4.1). local is the network of our interface.
func destinationOf(q, answer *dhcpv4.DHCPv4, local netip.Prefix) destination {
	giaddr, _ := headerAddr(q.GatewayIPAddr)
	ciaddr, _ := headerAddr(q.ClientIPAddr)
	toClient := func(a netip.Addr) destination {
		return destination{addr: netip.AddrPortFrom(a, dhcpv4.ClientPort), mac: site.MAC(q.ClientHWAddr)}
	}
	switch {
	case giaddr.IsValid():
		return destination{addr: netip.AddrPortFrom(giaddr, dhcpv4.ServerPort)}
	case answer.MessageType() == dhcpv4.MessageTypeNak:
		return destination{addr: netip.AddrPortFrom(limitedBroadcast, dhcpv4.ClientPort), mac: broadcastMAC}
	case ciaddr.IsValid() && local.Contains(ciaddr):
		return toClient(ciaddr)
	case ciaddr.IsValid():
		return destination{addr: netip.AddrPortFrom(ciaddr, dhcpv4.ClientPort)}
	case q.IsBroadcast():
		return destination{addr: netip.AddrPortFrom(limitedBroadcast, dhcpv4.ClientPort), mac: broadcastMAC}
	}
	// The client does not answer ARP for an address that it does not have yet: the frame goes to its MAC.
	yiaddr, _ := headerAddr(answer.YourIPAddr)
	return toClient(yiaddr)
}

const (
	ipHeader  = 20
	udpHeader = 8
	ttl       = 64
	protoUDP  = 17
)

// packetOf returns an IPv4 packet with a UDP datagram from port 67.
func packetOf(from netip.Addr, to netip.AddrPort, payload []byte) []byte {
	return packetFrom(netip.AddrPortFrom(from, dhcpv4.ServerPort), to, payload)
}

func packetFrom(from, to netip.AddrPort, payload []byte) []byte {
	b := make([]byte, ipHeader+udpHeader, ipHeader+udpHeader+len(payload))
	src, dst := from.Addr().As4(), to.Addr().As4()
	b[0] = 4<<4 | ipHeader/4
	binary.BigEndian.PutUint16(b[2:], uint16(ipHeader+udpHeader+len(payload)))
	b[8], b[9] = ttl, protoUDP
	copy(b[12:], src[:])
	copy(b[16:], dst[:])
	binary.BigEndian.PutUint16(b[10:], checksum(0, b[:ipHeader]))

	u := b[ipHeader:]
	binary.BigEndian.PutUint16(u[0:], from.Port())
	binary.BigEndian.PutUint16(u[2:], to.Port())
	binary.BigEndian.PutUint16(u[4:], uint16(udpHeader+len(payload)))
	b = append(b, payload...)
	// The pseudo header of RFC 768: addresses, protocol, length.
	var pseudo uint32
	for i := 12; i < 20; i += 2 {
		pseudo += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	pseudo += protoUDP + uint32(udpHeader+len(payload))
	sum := checksum(pseudo, b[ipHeader:])
	if sum == 0 {
		sum = 0xffff // zero means that there is none
	}
	binary.BigEndian.PutUint16(b[ipHeader+6:], sum)
	return b
}

// checksum is the Internet checksum of RFC 1071, begun with sum.
func checksum(sum uint32, b []byte) uint16 {
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// ethernet puts an Ethernet header before an IPv4 packet.
func ethernet(from, to site.MAC, ip []byte) []byte {
	b := make([]byte, 0, 14+len(ip))
	b = append(b, to[:]...)
	b = append(b, from[:]...)
	b = append(b, 0x08, 0x00)
	return append(b, ip...)
}
