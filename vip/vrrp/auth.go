package vrrp

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"maps"
	"net/netip"
)

// Authentication of advertisements. RFC 9568 §9 has none; this is what keepalived 2.4 calls auth_hmac. Behind the message stand
//
//	type 1, key 1, reserved 0 (1, 1 and 2 bytes)
//	counter (8 bytes, big-endian): seconds since 1970 in the upper half, then 16 bits of fraction and 16 that only count
//	the first 16 bytes of HMAC-SHA256
//
// over a pseudo-header (4 or 6 for the IP version, the VRRP version, the VRID, 0, and the source in 16 bytes, an IPv4 one zero-filled),
// the message with a checksum of zero, and the trailer with an HMAC of zero. The checksum itself covers the message alone over IPv4, and
// the trailer, too, over IPv6. A router that knows nothing of it finds the packet too long.
const (
	trailerType = 1 // HMAC-SHA256, cut to 128 bits
	trailerKey  = 1 // there is one key
	prefixLen   = 12
	macLen      = 16
	trailerLen  = prefixLen + macLen
	pseudoLen   = 20
	checksumAt  = 6 // in the message
	derivation  = "everboot VRRP authentication 1"
	nameLabel   = "name of the key"
)

// What a key may have, in bytes.
const (
	MinKey = 32
	MaxKey = 64
)

// MaxSenders bounds whose counters an Auth remembers. All of them know the key: a group has a few, and some have changed their address.
const MaxSenders = 32

// Auth seals what a router sends, and opens what it hears. It is not safe for concurrent use.
type Auth struct {
	key  []byte
	last map[netip.Addr]uint64 // the counter of each sender
}

// NewAuth returns the Auth of a key that all routers of a group share.
func NewAuth(key []byte) *Auth { return &Auth{key: key, last: map[netip.Addr]uint64{}} }

// DeriveKey returns the key that a secret stands for which serves other ends, too.
func DeriveKey(secret []byte) []byte {
	m := hmac.New(sha256.New, secret)
	m.Write([]byte(derivation))
	return m.Sum(nil)
}

// Resume takes over which counters senders were heard to have come to in an earlier life.
func (a *Auth) Resume(heard map[netip.Addr]uint64) {
	for sender, counter := range heard {
		a.remember(sender, counter)
	}
}

// KeyName returns a name of the key that does not give it away. Counters that were heard under another key mean nothing.
func (a *Auth) KeyName() string {
	m := hmac.New(sha256.New, a.key)
	m.Write([]byte(nameLabel))
	return hex.EncodeToString(m.Sum(nil)[:4])
}

// Heard returns the counter of each sender, in into if that is not nil.
func (a *Auth) Heard(into map[netip.Addr]uint64) map[netip.Addr]uint64 {
	if into == nil {
		return maps.Clone(a.last)
	}
	clear(into)
	maps.Copy(into, a.last)
	return into
}

// Seal returns the message, as Marshal makes it, with its trailer. The counter must be above that of everything that was sent from src
// before, by whatever process.
func (a *Auth) Seal(counter uint64, src, dst netip.Addr, message []byte) []byte {
	sealed := append(message, trailerType, trailerKey, 0, 0)
	sealed = binary.BigEndian.AppendUint64(sealed, counter)
	sealed = append(sealed, a.mac(src, sealed)...)
	if src.Is6() {
		setChecksum(src, dst, sealed)
	}
	return sealed
}

// Open returns the packet without its trailer. It refuses what was not sealed with the key, and what is no newer than what its
// sender was heard to say: a replay.
func (a *Auth) Open(p Packet) (Packet, Reason) {
	n := len(p.Payload) - trailerLen
	if n < headerLen {
		return Packet{}, BadAuth
	}
	prefix := [4]byte(p.Payload[n:])
	if prefix != [4]byte{trailerType, trailerKey} || !hmac.Equal(a.mac(p.Source, p.Payload[:n+prefixLen]), p.Payload[n+prefixLen:]) {
		return Packet{}, BadAuth
	}
	if p.Source.Is6() {
		if _, ok := verify(p); !ok {
			return Packet{}, BadChecksum
		}
	}
	counter := binary.BigEndian.Uint64(p.Payload[n+4:])
	if counter <= a.last[p.Source] {
		return Packet{}, Replayed
	}
	a.remember(p.Source, counter)
	p.Payload = p.Payload[:n:n]
	if p.Source.Is6() { // that of what is left
		setChecksum(p.Source, p.Destination, p.Payload)
	}
	return p, Accepted
}

func setChecksum(src, dst netip.Addr, b []byte) {
	binary.BigEndian.PutUint16(b[checksumAt:], 0)
	binary.BigEndian.PutUint16(b[checksumAt:], ^Sum(Protocol, src, dst, b))
}

// remember notes a sender's counter. When there are too many it forgets the lowest: counters go by the time, so that one was heard
// longest ago.
func (a *Auth) remember(sender netip.Addr, counter uint64) {
	a.last[sender] = max(a.last[sender], counter)
	if len(a.last) <= MaxSenders {
		return
	}
	oldest := sender
	for s, c := range a.last {
		if c < a.last[oldest] {
			oldest = s
		}
	}
	delete(a.last, oldest)
}

// mac returns the HMAC of a message and its trailer up to there.
func (a *Auth) mac(src netip.Addr, signed []byte) []byte {
	var pseudo [pseudoLen]byte
	pseudo[0], pseudo[1], pseudo[2] = 6, signed[0]>>4, signed[1]
	if src.Is4() {
		pseudo[0] = 4
	}
	copy(pseudo[4:], src.AsSlice())
	m := hmac.New(sha256.New, a.key)
	m.Write(pseudo[:])
	m.Write(signed[:checksumAt])
	m.Write([]byte{0, 0})
	m.Write(signed[checksumAt+2:])
	m.Write(make([]byte, macLen))
	return m.Sum(nil)[:macLen]
}
