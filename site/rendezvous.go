package site

import "hash/fnv"

// Rendezvous returns the weight of a node for a thing: of several nodes the one with the highest weight gets it (highest random
// weight hashing, Thaler and Ravishankar 1998). Everybody computes the same, and when a node comes or goes only its own things move.
func Rendezvous(thing, node []byte) uint64 {
	h := fnv.New64a()
	h.Write(thing)
	h.Write(node)
	// FNV's high bits move little with the last bytes; a finalizer (splitmix64) spreads them.
	x := h.Sum64()
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
