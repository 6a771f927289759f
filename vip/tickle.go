package vip

import (
	"encoding/binary"
	"net/netip"

	"everboot/site"
	"everboot/vip/vrrp"
)

// maxTickles bounds the segments of one take-over: at some microseconds each they are out within a second.
const maxTickles = 100_000

// The fields of a tickle.
const (
	tcpProtocol  = 6
	tcpHeaderLen = 20
	tcpACK       = 0x10
	tickleWindow = 1024
	hopLimit     = 64
)

// tickle returns the IP packet that makes the remote end find out that its connection is dead: a bare ACK from the address that it
// talks to, with numbers that cannot be right. It answers with what it expects next (the challenge ACK of RFC 9293 §3.10.7.4), the
// new owner of the address knows of no such connection and resets it, and the client connects again at once rather than
// after its own time-out.
func tickle(c site.Connection) []byte {
	src, dst := c.Local.Addr().Unmap(), c.Remote.Addr().Unmap()
	segment := make([]byte, tcpHeaderLen)
	binary.BigEndian.PutUint16(segment[0:], c.Local.Port())
	binary.BigEndian.PutUint16(segment[2:], c.Remote.Port())
	segment[12] = tcpHeaderLen / 4 << 4
	segment[13] = tcpACK
	binary.BigEndian.PutUint16(segment[14:], tickleWindow)
	binary.BigEndian.PutUint16(segment[16:], ^vrrp.Sum(tcpProtocol, src, dst, segment))
	if src.Is4() {
		return append(ipv4Header(src, dst, tcpProtocol, hopLimit, len(segment)), segment...)
	}
	return append(ipv6Header(src, dst, tcpProtocol, hopLimit, len(segment)), segment...)
}

// ipv4Header returns a header without its checksum, which the kernel computes on a raw socket (raw(7)).
func ipv4Header(src, dst netip.Addr, protocol, ttl uint8, payload int) []byte {
	h := make([]byte, 20)
	h[0] = 0x45
	binary.BigEndian.PutUint16(h[2:], uint16(len(h)+payload))
	h[8], h[9] = ttl, protocol
	copy(h[12:], src.AsSlice())
	copy(h[16:], dst.AsSlice())
	return h
}

func ipv6Header(src, dst netip.Addr, next, hops uint8, payload int) []byte {
	h := make([]byte, 40)
	h[0] = 0x60
	binary.BigEndian.PutUint16(h[4:], uint16(payload))
	h[6], h[7] = next, hops
	copy(h[8:], src.AsSlice())
	copy(h[24:], dst.AsSlice())
	return h
}

// tickler is the edge that tickles go out by.
type tickler interface {
	// Tickle sends an IP packet, header first, to the address.
	Tickle(packet []byte, to netip.Addr) error
}

// tickleAll is the goroutine that sends tickles whenever the addresses have come here, so that a long list does not hold up the
// election. It ends when tickles is closed.
func (r *Router) tickleAll(done chan<- struct{}) {
	defer close(done)
	var list []site.Connection
	for again := range r.tickles {
		if !again {
			list = r.connections()
		}
		failed := 0
		var last error
		for _, c := range list {
			if err := r.edge.Tickle(tickle(c), c.Remote.Addr().Unmap()); err != nil {
				failed, last = failed+1, err
			}
		}
		if len(list) > 0 {
			r.log.Info("told clients that their connections are gone", "connections", len(list), "not sent", failed, "last error", last)
		}
		r.board.change(func(s *Status) { s.Tickled += uint64(len(list) - failed) })
	}
}

// connections returns the connections with our addresses that clients may still believe in.
func (r *Router) connections() []site.Connection {
	var list []site.Connection
	for _, c := range r.cfg.Connections() {
		if r.cfg.floats(c.Local.Addr().Unmap()) && c.Remote.Addr().Unmap().BitLen() == c.Local.Addr().Unmap().BitLen() && len(list) < maxTickles {
			list = append(list, c)
		}
	}
	return list
}

// tickle asks for tickles; again: for those of the last time. One that waits already is enough.
func (r *Router) tickle(again bool) {
	if r.cfg.Connections == nil {
		return
	}
	select {
	case r.tickles <- again:
	default:
	}
}
