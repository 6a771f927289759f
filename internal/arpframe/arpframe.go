// Package arpframe makes the Ethernet frames of ARP that a packet socket sends. Package arp's own client needs an address on the interface at
// Dial and keeps it; a packet socket needs none.
package arpframe

import (
	"net"
	"net/netip"

	"github.com/mdlayher/arp"
	"github.com/mdlayher/ethernet"
)

// Probe returns the frame that asks who has addr without saying that we do (RFC 5227 §2.1.1): its sender's address is zero, so that nobody learns
// anything from it, and so that a proxy does not answer for others.
func Probe(mac net.HardwareAddr, addr netip.Addr) ([]byte, error) {
	return broadcast(arp.OperationRequest, mac, netip.IPv4Unspecified(), make(net.HardwareAddr, len(mac)), addr)
}

// Announcements returns the frames that tell everybody that addr is at mac. Some devices heed only the request form, some only the reply. The
// target's hardware address is nothing in a request (RFC 5227 §2.3), the sender's in a reply (RFC 5944 §4.6).
func Announcements(mac net.HardwareAddr, addr netip.Addr) ([][]byte, error) {
	request, err := broadcast(arp.OperationRequest, mac, addr, make(net.HardwareAddr, len(mac)), addr)
	if err != nil {
		return nil, err
	}
	reply, err := broadcast(arp.OperationReply, mac, addr, mac, addr)
	return [][]byte{request, reply}, err
}

func broadcast(op arp.Operation, mac net.HardwareAddr, sender netip.Addr, targetMAC net.HardwareAddr, target netip.Addr) ([]byte, error) {
	p, err := arp.NewPacket(op, mac, sender, targetMAC, target)
	if err != nil {
		return nil, err
	}
	payload, err := p.MarshalBinary()
	if err != nil {
		return nil, err
	}
	return (&ethernet.Frame{Destination: ethernet.Broadcast, Source: mac, EtherType: ethernet.EtherTypeARP, Payload: payload}).MarshalBinary()
}
