package dhcp

import (
	"hash/fnv"
	"net/netip"
)

// owns reports whether the first of the appliances is the owner of a pool address: the one with the highest weight for it
// (highest random weight hashing, Thaler and Ravishankar 1998). Every appliance has the same list in another order, so each
// address has exactly one owner, and when an appliance is added or removed only its own part moves.
func owns(addr, self netip.Addr, peers []netip.Addr) bool {
	own := weight(addr, self)
	for _, p := range peers {
		w := weight(addr, p)
		if w > own || w == own && p.Less(self) {
			return false
		}
	}
	return true
}

func weight(addr, appliance netip.Addr) uint64 {
	h := fnv.New64a()
	a, b := addr.As4(), appliance.As4()
	h.Write(a[:])
	h.Write(b[:])
	// FNV's high bits move little with the last bytes; a finalizer (splitmix64) spreads them.
	x := h.Sum64()
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
