package pair

import (
	"iter"
	"net/netip"

	"everboot/site"
)

// Owns reports whether an address is a node's to give: whether no rival has a higher weight for it (site.Rendezvous). All nodes have the same list, each without
// itself, so each address has exactly one owner, and when a node comes or goes only its own part moves.
func Owns(a, self netip.Addr, rivals iter.Seq[netip.Addr]) bool {
	own := weight(a, self)
	for p := range rivals {
		if w := weight(a, p); w > own || w == own && p.Less(self) {
			return false
		}
	}
	return true
}

func weight(a, node netip.Addr) uint64 { return site.Rendezvous(a.AsSlice(), node.AsSlice()) }
