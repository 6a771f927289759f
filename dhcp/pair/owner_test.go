package pair

import (
	"net/netip"
	"slices"
	"testing"
)

// TestOneOwner: each address has exactly one owner, whatever the order of the lists, and the parts are about equal.
func TestOneOwner(t *testing.T) {
	var all []netip.Addr
	for _, a := range []string{"198.18.0.2", "198.18.0.3", "198.18.0.4"} {
		all = append(all, netip.MustParseAddr(a))
	}
	count := make(map[netip.Addr]int)
	a := netip.MustParseAddr("198.18.4.0")
	for range 3000 {
		owners := 0
		for i, self := range all {
			if Owns(a, self, slices.Values(slices.Concat(all[i+1:], all[:i]))) {
				owners++
				count[self]++
			}
		}
		if owners != 1 {
			t.Fatalf("%v has %d owners", a, owners)
		}
		a = a.Next()
	}
	for self, n := range count {
		if n < 900 || n > 1100 {
			t.Errorf("%v owns %d of 3000", self, n)
		}
	}
}
