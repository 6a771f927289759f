// Package vrrp is the pure part of VRRP version 3 (RFC 9568): the codec of its one packet and the machine of one
// virtual router. It has no clock, no socket and no goroutine; times and packets come in as values.
package vrrp

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"
)

// Figures of RFC 9568.
const (
	Version  = 3   // §5.2.1
	Protocol = 112 // IP protocol number, §5.1.1.4
	TTL      = 255 // of every packet sent and accepted: it has crossed no router, §5.1.1.3

	// MinInterval and MaxInterval bound the Max Advertise Interval: 12 bits of centiseconds, 0 forbidden (§5.2.7).
	MinInterval = 10 * time.Millisecond
	MaxInterval = 4095 * 10 * time.Millisecond

	// Owner is the priority of the router whose own addresses the virtual ones are (§5.2.4).
	Owner = 255

	typeAdvertisement = 1  // §5.2.2
	headerLen         = 8  // §5.1
	ipv4HeaderLen     = 20 // RFC 791 §3.1, without options
)

// Group4 returns the multicast address that IPv4 advertisements go to (§5.1.1.2).
func Group4() netip.Addr { return netip.AddrFrom4([4]byte{224, 0, 0, 18}) }

// Group6 returns the multicast address that IPv6 advertisements go to (§5.1.2.2).
func Group6() netip.Addr { return netip.MustParseAddr("ff02::12") }

// LinkLocal returns the link-local address of an IPv6 virtual router that was given none: that of its virtual MAC address
// 00:00:5e:00:02:VRID (§7.3) by RFC 4291 appendix A. Each such router needs one, and its advertisements name it first (§5.2.9).
func LinkLocal(vrid uint8) netip.Addr {
	return netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 8: 0x02, 10: 0x5e, 11: 0xff, 12: 0xfe, 14: 0x02, 15: vrid})
}

// Checksum says over what the checksum of an IPv4 advertisement is taken. IPv6 always has its pseudo-header.
type Checksum uint8

// The two readings of the standard. RFC 5798 left open whether IPv4 has a pseudo-header; keepalived (2.2.7 has no other
// way), FRR before RFC 9568 and Wireshark's default take one, RFC 9568 §5.2.8 and Cisco take none. Both are accepted
// when they come in. The zero value is the one that works with keepalived.
const (
	PseudoHeader Checksum = iota // addresses, protocol and length before the message, as in UDP
	MessageOnly                  // RFC 9568 §5.2.8
)

// Advertisement is the one message of VRRP (§5.2).
type Advertisement struct {
	VRID      uint8
	Priority  uint8         // 0: the sender resigns; 255: it owns the addresses
	Interval  time.Duration // Max Advertise Interval, in steps of 10 ms
	Addresses []netip.Addr  // the virtual addresses, all of one family
	Checksum  Checksum
}

// Packet is an IP packet that carries VRRP.
type Packet struct {
	Source, Destination netip.Addr
	TTL                 uint8
	Payload             []byte
}

// Marshal returns the message as it goes from src to dst. The addresses are needed for the checksum.
func (a Advertisement) Marshal(src, dst netip.Addr) ([]byte, error) {
	centiseconds := a.Interval / (10 * time.Millisecond)
	switch {
	case a.VRID == 0:
		return nil, fmt.Errorf("marshalling advertisement: VRID 0 names no virtual router")
	case len(a.Addresses) == 0 || len(a.Addresses) > 255:
		return nil, fmt.Errorf("marshalling advertisement of VRID %d: %d addresses; 1 to 255 fit", a.VRID, len(a.Addresses))
	case a.Interval < MinInterval || a.Interval > MaxInterval || a.Interval%(10*time.Millisecond) != 0:
		return nil, fmt.Errorf("marshalling advertisement of VRID %d: interval %s is not a multiple of 10ms up to %s", a.VRID, a.Interval, MaxInterval)
	case src.Is4() != dst.Is4():
		return nil, fmt.Errorf("marshalling advertisement of VRID %d: %s and %s are of two families", a.VRID, src, dst)
	}
	b := make([]byte, headerLen, headerLen+len(a.Addresses)*16)
	b[0] = Version<<4 | typeAdvertisement
	b[1] = a.VRID
	b[2] = a.Priority
	b[3] = uint8(len(a.Addresses))
	binary.BigEndian.PutUint16(b[4:], uint16(centiseconds)) // the upper 4 bits are reserved: 0 (§5.2.6)
	for _, addr := range a.Addresses {
		if addr.Is4() != src.Is4() {
			return nil, fmt.Errorf("marshalling advertisement of VRID %d: %s is not of the family of %s", a.VRID, addr, src)
		}
		b = append(b, addr.AsSlice()...)
	}
	binary.BigEndian.PutUint16(b[6:], ^sum(a.Checksum, src, dst, b))
	return b, nil
}

// Parse reads an advertisement and makes the checks of §7.1 that need no configuration. The reason is Accepted when the
// packet passed all of them.
func Parse(p Packet) (Advertisement, Reason) {
	b := p.Payload
	switch {
	case p.TTL != TTL:
		return Advertisement{}, BadTTL
	case len(b) == 0:
		return Advertisement{}, BadLength
	case b[0]>>4 != Version:
		return Advertisement{}, BadVersion
	case b[0]&0x0f != typeAdvertisement:
		return Advertisement{}, BadType
	case len(b) < headerLen:
		return Advertisement{}, BadLength
	}
	size, count := 16, int(b[3])
	if p.Source.Is4() {
		size = 4
	}
	// A longer packet is refused too: the checksum would cover bytes that mean nothing.
	if len(b) != headerLen+count*size {
		return Advertisement{}, BadLength
	}
	kind, ok := verify(p)
	if !ok {
		return Advertisement{}, BadChecksum
	}
	interval := time.Duration(binary.BigEndian.Uint16(b[4:])&0x0fff) * 10 * time.Millisecond
	switch {
	case count == 0:
		return Advertisement{}, NoAddresses // §5.2.5 with erratum 8299
	case interval == 0:
		return Advertisement{}, BadInterval // §7.1 with erratum 8301
	case b[1] == 0:
		return Advertisement{}, OtherVRID // 0 is outside the range of §5.2.3
	}
	a := Advertisement{VRID: b[1], Priority: b[2], Interval: interval, Checksum: kind, Addresses: make([]netip.Addr, 0, count)}
	for rest := b[headerLen:]; len(rest) > 0; rest = rest[size:] {
		addr, _ := netip.AddrFromSlice(rest[:size])
		a.Addresses = append(a.Addresses, addr)
	}
	return a, Accepted
}

// ParseIPv4 takes an IPv4 packet apart as a raw socket hands it over, header first.
func ParseIPv4(b []byte) (Packet, Reason) {
	if len(b) < ipv4HeaderLen || b[0]>>4 != 4 {
		return Packet{}, BadLength
	}
	header, total := int(b[0]&0x0f)*4, int(binary.BigEndian.Uint16(b[2:]))
	if header < ipv4HeaderLen || total < header || total > len(b) {
		return Packet{}, BadLength
	}
	return Packet{
		Source:      netip.AddrFrom4([4]byte(b[12:16])),
		Destination: netip.AddrFrom4([4]byte(b[16:20])),
		TTL:         b[8],
		Payload:     b[header:total],
	}, Accepted
}

// verify returns which reading of the standard the packet's checksum follows, or false.
func verify(p Packet) (Checksum, bool) {
	const intact = 0xffff // a message summed together with its checksum (RFC 1071 §1)
	if p.Source.Is4() == p.Destination.Is4() && sum(PseudoHeader, p.Source, p.Destination, p.Payload) == intact {
		return PseudoHeader, true
	}
	if p.Source.Is4() && sum(MessageOnly, p.Source, p.Destination, p.Payload) == intact {
		return MessageOnly, true
	}
	return 0, false
}

// sum returns the one's complement sum of an advertisement, with its pseudo-header if it has one.
func sum(kind Checksum, src, dst netip.Addr, message []byte) uint16 {
	if kind == MessageOnly && src.Is4() {
		return SumBytes(message)
	}
	return Sum(Protocol, src, dst, message)
}

// SumBytes returns the one's complement sum (RFC 1071) of bytes, of which there is an even number.
func SumBytes(b []byte) uint16 { return fold(addWords(0, b)) }

// Sum returns the one's complement sum (RFC 1071) of a message and the pseudo-header of its protocol (RFC 9293 §3.1, RFC 8200
// §8.1). The message has an even length; where it has a field for the checksum, that is the complement.
func Sum(protocol uint8, src, dst netip.Addr, message []byte) uint16 {
	total := addWords(addWords(0, src.AsSlice()), dst.AsSlice())
	// Protocol and length stand in fields of different widths in IPv4 and IPv6; the sum is the same.
	return fold(addWords(total+uint32(protocol)+uint32(len(message)), message))
}

func addWords(total uint32, b []byte) uint32 {
	for ; len(b) >= 2; b = b[2:] {
		total += uint32(b[0])<<8 | uint32(b[1])
	}
	return total
}

func fold(total uint32) uint16 {
	for total > 0xffff {
		total = total>>16 + total&0xffff
	}
	return uint16(total)
}
