package vrrp

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"maps"
	"net/netip"
)

// Authentication of advertisements between nodes of ours. RFC 9568 §9 has none. Behind the message stand a counter (8 bytes,
// big-endian) and the first 16 bytes of HMAC-SHA256 over source, destination (16 bytes each), message and counter. The checksum
// covers the message alone. A router that knows nothing of it finds the packet too long.
const (
	counterLen = 8
	macLen     = 16
	trailerLen = counterLen + macLen
	authLabel  = "everboot VRRP authentication 1"
	nameLabel  = "name of the key"
)

// MaxSenders bounds whose counters an Auth remembers. All of them know the key: a group has a few, and some have changed their address.
const MaxSenders = 32

// Auth seals what a router sends, and opens what it hears. It is not safe for concurrent use.
type Auth struct {
	key  []byte
	last map[netip.Addr]uint64 // the counter of each sender
}

// NewAuth returns the Auth of a key that all routers of a group share. The key may serve other ends, too.
func NewAuth(key []byte) *Auth {
	derived := hmac.New(sha256.New, key)
	derived.Write([]byte(authLabel))
	return &Auth{key: derived.Sum(nil), last: map[netip.Addr]uint64{}}
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

// Seal returns the message with its trailer. The counter must be above that of everything that was sent from src before, by whatever
// process.
func (a *Auth) Seal(counter uint64, src, dst netip.Addr, message []byte) []byte {
	sealed := binary.BigEndian.AppendUint64(message, counter)
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
	a.remember(p.Source, counter)
	p.Payload = p.Payload[:n]
	return p, Accepted
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

func (a *Auth) mac(src, dst netip.Addr, signed []byte) []byte {
	m := hmac.New(sha256.New, a.key)
	from, to := src.As16(), dst.As16()
	m.Write(from[:])
	m.Write(to[:])
	m.Write(signed)
	return m.Sum(nil)[:macLen]
}
