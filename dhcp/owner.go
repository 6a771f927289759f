package dhcp

import (
	"net/netip"

	"everboot/site"
)

// owns reports whether the first of the appliances is the owner of a pool address: the one with the highest weight for it
// (site.Rendezvous). Every appliance has the same list in another order, so each
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
	return site.Rendezvous(addr.AsSlice(), appliance.AsSlice())
}
