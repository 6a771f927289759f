package streamer

import (
	"net"
	"net/netip"
	"testing"

	"everboot/site"
)

// madeUp is a connection that has addresses alone.
type madeUp struct {
	net.Conn
	local, remote string
}

func (c madeUp) LocalAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(c.local))
}
func (c madeUp) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(c.remote))
}

// An appliance that stands in for a streamer takes its targets' logins, but not those that directors pass on to what they believe to be that streamer: they
// would go in a circle.
func TestDirectorsThatDialAStandInAreTurnedAway(t *testing.T) {
	v := site.Empty("berlin", "embedded")
	v.Appliances = []site.Appliance{{Address: netip.MustParseAddr("198.18.0.2")}, {Address: netip.MustParseAddr("198.18.0.3")}}
	v.Streamers["s1"] = site.Streamer{Name: "s1", Addresses: []netip.AddrPort{netip.MustParseAddrPort("198.18.0.121:3260")}}
	for _, tt := range []struct {
		name, local, remote string
		want                bool
	}{
		{"a target at the floating address", "198.18.0.10:3260", "198.18.0.51:40000", false},
		{"a target at the streamer's address", "198.18.0.121:3260", "198.18.0.51:40000", false},
		{"the same, the listener takes IPv6 too", "[::ffff:198.18.0.121]:3260", "[::ffff:198.18.0.51]:40000", false},
		{"this director", "198.18.0.121:3260", "198.18.0.121:40000", true},
		{"another appliance's", "[::ffff:198.18.0.121]:3260", "[::ffff:198.18.0.3]:40000", true},
		{"an appliance at the floating address", "198.18.0.10:3260", "198.18.0.3:40000", false},
	} {
		if got := loops(v, madeUp{nil, tt.local, tt.remote}); got != tt.want {
			t.Errorf("%s: %t, want %t", tt.name, got, tt.want)
		}
	}
}
