package appliance

import (
	"net/netip"
	"slices"
	"testing"

	"everboot/vip"
)

// TestOwnedAreTheAddressesOfAllGroups: transfers go on at the addresses of every group that is active here, an IPv6 one, say, and at no other.
func TestOwnedAreTheAddressesOfAllGroups(t *testing.T) {
	groups := []vip.Config{
		{Addresses: []netip.Prefix{netip.MustParsePrefix("198.18.0.10/24"), netip.MustParsePrefix("198.18.0.11/24")}},
		{Addresses: []netip.Prefix{netip.MustParsePrefix("2001:db8::10/64")}},
	}
	for _, c := range []struct {
		active []bool
		want   []string
	}{
		{[]bool{false, false}, nil}, {[]bool{true, false}, []string{"198.18.0.10", "198.18.0.11"}}, {[]bool{false, true}, []string{"2001:db8::10"}},
		{[]bool{true, true}, []string{"198.18.0.10", "198.18.0.11", "2001:db8::10"}}, {nil, nil},
	} {
		var got []string
		for _, a := range owned(groups, c.active) {
			got = append(got, a.String())
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%v: %v, want %v", c.active, got, c.want)
		}
	}
}
