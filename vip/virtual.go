package vip

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"everboot/vip/vrrp"
)

// virtualMAC returns the hardware address of an IPv4 virtual router (RFC 9568 §7.3), which moves with its addresses.
func virtualMAC(vrid int) net.HardwareAddr {
	return net.HardwareAddr{0x00, 0x00, 0x5e, 0x00, 0x01, byte(vrid)}
}

// hardware returns the address that neighbours are told.
func (c Config) hardware(link *net.Interface) net.HardwareAddr {
	if c.VirtualMAC {
		return virtualMAC(c.VRID)
	}
	return link.HardwareAddr
}

// virtualName is what the macvlan of a virtual MAC address is called.
func virtualName(link *net.Interface, vrid int) string {
	return fmt.Sprintf("vrrp%d-%d", link.Index, vrid)
}

// advertisementFrame returns the Ethernet frame of an IPv4 multicast advertisement that comes from the virtual MAC address, so that
// switches learn where it is (RFC 9568 §7.3).
func advertisementFrame(mac net.HardwareAddr, message []byte, from, to netip.Addr) []byte {
	group := to.As4()
	f := []byte{0x01, 0x00, 0x5e, group[1] & 0x7f, group[2], group[3]} // RFC 1112 §6.4
	f = append(f, mac...)
	f = binary.BigEndian.AppendUint16(f, etherTypeIPv4)
	header := ipv4Header(from, to, vrrp.Protocol, vrrp.TTL, len(message))
	header[1] = precedence
	binary.BigEndian.PutUint16(header[10:], ^vrrp.SumBytes(header))
	return append(append(f, header...), message...)
}

// checkVirtual says what of a configuration does not go together with a virtual MAC address.
func (c Config) checkVirtual() error {
	switch {
	case !c.VirtualMAC:
		return nil
	case c.is6():
		return fmt.Errorf("vip: vrid %d: virtual_mac is for IPv4; leave it out here", c.VRID)
	case len(c.Peers) > 0:
		return fmt.Errorf("vip: vrid %d: virtual_mac goes with multicast, which shows switches where the address is; leave virtual_mac or unicast out", c.VRID)
	}
	return nil
}
