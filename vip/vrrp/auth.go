package vrrp

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
	"time"
)

// Authentication of advertisements between nodes of ours. RFC 9568 §9 has none. Behind the message stand a counter (8 bytes,
// big-endian) and the first 16 bytes of HMAC-SHA256 over source, destination (16 bytes each), message and counter. The checksum
// covers the message alone. A router that knows nothing of it finds the packet too long.
const (
	counterLen = 8
	macLen     = 16
	trailerLen = counterLen + macLen
	authLabel  = "everboot VRRP authentication 1"
)

// Auth seals what a router sends, and opens what it hears. It is not safe for concurrent use.
type Auth struct {
	key     []byte
	counter uint64
	last    map[netip.Addr]uint64 // the counter of each sender, who knows the key: it is bounded by how many there are
}

// NewAuth returns the Auth of a key that all routers of a group share. The key may serve other ends, too.
func NewAuth(key []byte) *Auth {
	derived := hmac.New(sha256.New, key)
	derived.Write([]byte(authLabel))
	return &Auth{key: derived.Sum(nil), last: map[netip.Addr]uint64{}}
}

// Seal returns the message with its trailer. The counter is the time: so it goes on growing when the process is another one.
func (a *Auth) Seal(now time.Time, src, dst netip.Addr, message []byte) []byte {
	a.counter = max(a.counter+1, uint64(max(now.UnixNano(), 0)))
	sealed := binary.BigEndian.AppendUint64(message, a.counter)
	return append(sealed, a.mac(src, dst, sealed)...)
}

// Open returns the packet without its trailer. It refuses what was not sealed with the key, and what is no newer than what its
// sender was heard to say: a replay.
func (a *Auth) Open(p Packet) (Packet, Reason) {
	n := len(p.Payload) - trailerLen
	if n < 0 {
		return Packet{}, BadAuth
	}
	signed := p.Payload[:n+counterLen]
	if !hmac.Equal(a.mac(p.Source, p.Destination, signed), p.Payload[n+counterLen:]) {
		return Packet{}, BadAuth
	}
	counter := binary.BigEndian.Uint64(signed[n:])
	if counter <= a.last[p.Source] {
		return Packet{}, Replayed
	}
	a.last[p.Source] = counter
	p.Payload = p.Payload[:n]
	return p, Accepted
}

func (a *Auth) mac(src, dst netip.Addr, signed []byte) []byte {
	m := hmac.New(sha256.New, a.key)
	from, to := src.As16(), dst.As16()
	m.Write(from[:])
	m.Write(to[:])
	m.Write(signed)
	return m.Sum(nil)[:macLen]
}
