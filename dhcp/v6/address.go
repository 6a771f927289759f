package v6

import (
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
	"time"

	"everboot/site"
)

const (
	// tries is how many addresses a client has in a pool: the first that nobody else is known to use is its own. With a pool that is full to
	// a half one client in 65,000 finds none.
	tries = 16
	// quarantine is for how long an address that a client declined is given to nobody: as long as with DHCPv4.
	quarantine = time.Hour
	// minRefresh is RFC 8415 §7.6's IRT_MINIMUM.
	minRefresh = 10 * time.Minute
	// maxKnown bounds what is remembered: whoever makes up clients makes us forget others, which costs nothing but a DECLINE.
	maxKnown = 1 << 15
)

// client is who asks for an address: a DUID, and which of its interfaces by its IAID (RFC 8415 §12).
type client struct {
	duid string
	iaid [4]byte
}

// candidate returns the n-th address of a client in a subnet's pools, all of which count as one.
func candidate(site string, s Subnet, c client, n int) netip.Addr {
	h := sha256.New()
	for _, part := range []string{"everboot address", site, s.Network.String(), c.duid, string(c.iaid[:])} {
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(part))))
		h.Write([]byte(part))
	}
	h.Write([]byte{byte(n)})
	number := binary.BigEndian.Uint64(h.Sum(nil))
	// Which pool by the first of it, where in the pool by the rest: pools are few and of like size, or else the small ones fill first.
	r := s.Ranges[int(number>>48)%len(s.Ranges)]
	number <<= 16
	number |= number >> 48
	first, last := low(r[0]), low(r[1])
	if size := last - first + 1; size != 0 { // 0: 2^64
		number %= size
	}
	b := r[0].As16()
	binary.BigEndian.PutUint64(b[8:], first+number)
	return netip.AddrFrom16(b)
}

func high(a netip.Addr) uint64 {
	b := a.As16()
	return binary.BigEndian.Uint64(b[:8])
}

func low(a netip.Addr) uint64 {
	b := a.As16()
	return binary.BigEndian.Uint64(b[8:])
}

// known is what is remembered of addresses, in two generations of at most maxKnown.
type known struct{ young, old map[netip.Addr]use }

// use is who has an address, or who declined it, and until when that counts.
type use struct {
	client   client
	mac      site.MAC // whose card it is, if that is known
	until    time.Time
	declined bool
}

func newKnown() *known { return &known{young: make(map[netip.Addr]use), old: make(map[netip.Addr]use)} }

func (k *known) of(now time.Time, a netip.Addr) (use, bool) {
	u, ok := k.young[a]
	if !ok {
		u, ok = k.old[a]
	}
	return u, ok && now.Before(u.until)
}

func (k *known) put(a netip.Addr, u use) {
	if _, there := k.young[a]; !there && len(k.young) >= maxKnown {
		k.old, k.young = k.young, k.old
		clear(k.young)
	}
	k.young[a] = u
}

// free reports whether an address may be given to a client: nobody else is known to use it, and nobody found it in use.
func (k *known) free(now time.Time, a netip.Addr, c client) bool {
	u, ok := k.of(now, a)
	return !ok || u.client == c && !u.declined
}

// keeps reports whether a client that says it has an address may go on with it. If another one declined it, that was because this one has it.
func (k *known) keeps(now time.Time, a netip.Addr, c client) bool {
	u, ok := k.of(now, a)
	return !ok || (u.client == c) != u.declined
}

// forget ends what a client had.
func (k *known) forget(a netip.Addr, c client) {
	if u, ok := k.young[a]; ok && u.client == c && !u.declined {
		delete(k.young, a)
	}
	if u, ok := k.old[a]; ok && u.client == c && !u.declined {
		delete(k.old, a)
	}
}
