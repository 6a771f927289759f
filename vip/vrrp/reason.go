package vrrp

import "slices"

// Reason says why a packet went no further. It feeds tests, metric labels and the status page alike.
type Reason string

// The ways of a packet. Those from BadTTL to BadInterval are the checks of RFC 9568 §7.1.
const (
	Accepted    Reason = ""
	BadTTL      Reason = "ttl"      // not 255: it crossed a router, or somebody made it up far away
	BadVersion  Reason = "version"  // such as VRRP version 2
	BadType     Reason = "type"     // not an advertisement
	BadLength   Reason = "length"   // not as long as its count of addresses says
	BadChecksum Reason = "checksum" // right by neither reading of §5.2.8
	NoAddresses Reason = "addresses"
	BadInterval Reason = "interval" // zero
	OtherVRID   Reason = "vrid"     // of another virtual router
	BadAuth     Reason = "auth"     // not sealed with the group's key
	Replayed    Reason = "replay"   // sealed, but heard before, or older than what was heard
	NotAPeer    Reason = "peer"     // from somebody else than the peers that we were told of
	FromSelf    Reason = "self"     // from our own address: looped back, or an address used twice
)

// Accept makes the checks of §7.1 for this virtual router.
func (c Config) Accept(p Packet) (Advertisement, Reason) {
	a, reason := Parse(p)
	switch {
	case reason != Accepted:
		return Advertisement{}, reason
	case a.VRID != c.VRID:
		return Advertisement{}, OtherVRID
	case p.Source == c.Primary:
		return Advertisement{}, FromSelf
	case len(c.Peers) > 0 && !slices.Contains(c.Peers, p.Source):
		return Advertisement{}, NotAPeer
	}
	return a, Accepted
}
