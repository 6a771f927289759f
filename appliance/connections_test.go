package appliance

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"everboot/site"
)

func connection(n int) site.Connection {
	return site.Connection{
		Local:  netip.MustParseAddrPort("198.18.0.10:3260"),
		Remote: netip.AddrPortFrom(netip.MustParseAddr("198.18.0.51"), uint16(n)),
	}
}

// node is one appliance's connections; what it tells goes to heard.
func node(now *time.Time, former []site.Connection, heard func([]byte)) *connections {
	return newConnections([]netip.Addr{netip.MustParseAddr("198.18.0.10")}, former, heard, func() time.Time { return *now })
}

func wantLost(t *testing.T, c *connections, when string, want ...int) {
	t.Helper()
	var got []int
	for _, conn := range c.Lost() {
		got = append(got, int(conn.Remote.Port()))
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("%s: lost %v, want %v", when, got, want)
	}
}

func TestASurvivorKnowsTheConnectionsOfTheDead(t *testing.T) {
	now := time.Unix(0, 0)
	b := node(&now, nil, func([]byte) {})
	a := node(&now, nil, func(m []byte) { b.peerChanged("a", m) })
	end, floats := a.Open(connection(1))
	a.Open(connection(2))
	if !floats {
		t.Error("a connection at the VIP does not count")
	}
	if _, floats := a.Open(site.Connection{Local: netip.MustParseAddrPort("198.18.0.2:3260"), Remote: connection(3).Remote}); floats {
		t.Error("a connection at the node's own address counts")
	}
	wantLost(t, b, "two opened", 1, 2)
	wantLost(t, a, "one's own are not lost")
	end()
	wantLost(t, b, "one closed", 2)

	c := node(&now, nil, func([]byte) {})
	c.peerMerge("a", a.peerWhole())
	wantLost(t, c, "one who came later", 2)
	c.peerChanged("b", connection(7).Append([]byte{connectionsFormat, opened}))
	c.peerMerge("a", node(&now, nil, nil).peerWhole())
	wantLost(t, c, "the whole replaces what was known of that node, and of no other", 7)
}

// TestConnectionsAtTheAddressesOfGroupsCount: whoever takes a group's address over must know them, too.
func TestConnectionsAtTheAddressesOfGroupsCount(t *testing.T) {
	group := func(address string) VIPGroup {
		return VIPGroup{Addresses: []netip.Prefix{netip.MustParsePrefix(address)}}
	}
	v := VIPConfig{VIPGroup: group("198.18.0.10/24"), Groups: []VIPGroup{group("198.18.0.11/24"), group("2001:db8::10/64")}}
	c := newConnections(v.floating(), nil, func([]byte) {}, time.Now)
	for _, at := range []string{"198.18.0.10:3260", "198.18.0.11:3260", "[2001:db8::10]:3260"} {
		if _, floats := c.Open(site.Connection{Local: netip.MustParseAddrPort(at), Remote: connection(1).Remote}); !floats {
			t.Errorf("a connection at %s does not count", at)
		}
	}
}

// TestARestartMakesNobodyForget: a worker that died and is back before its peer has the address must not wipe the peer's list out.
func TestARestartMakesNobodyForget(t *testing.T) {
	now := time.Unix(0, 0)
	b := node(&now, nil, nil)
	again := node(&now, []site.Connection{connection(1)}, nil)
	wantLost(t, again, "the new worker knows them too", 1)
	b.peerMerge("a", again.peerWhole())
	wantLost(t, b, "after the restart", 1)
	now = now.Add(formerTime)
	b.peerMerge("a", again.peerWhole())
	wantLost(t, b, "when every election is over")
	wantLost(t, again, "when every election is over")
}

func TestWhatPeersTellIsBounded(t *testing.T) {
	now := time.Unix(0, 0)
	c := node(&now, nil, nil)
	for n := range 3 * maxNodes {
		c.peerChanged(fmt.Sprint(n), connection(1).Append([]byte{connectionsFormat, opened}))
		c.peerMerge(fmt.Sprint(n), connection(2).Append([]byte{connectionsFormat}))
	}
	if len(c.peers) > maxNodes {
		t.Errorf("%d nodes are kept", len(c.peers))
	}
	whole := []byte{connectionsFormat}
	for n := range maxConnections + 1000 {
		whole = site.Connection{Local: connection(0).Local, Remote: netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, byte(n >> 16), 1}), uint16(n))}.Append(whole)
	}
	c.peerMerge("0", whole)
	if n := len(c.peers["0"]); n > maxConnections {
		t.Errorf("%d connections of one node are kept", n)
	}
}

func FuzzPeerConnections(f *testing.F) {
	f.Add(connection(1).Append([]byte{connectionsFormat, opened})) // a change
	f.Add(connection(1).Append([]byte{connectionsFormat}))         // a whole
	f.Add([]byte{connectionsFormat, closed})                       // no connection
	f.Fuzz(func(t *testing.T, b []byte) {
		now := time.Unix(0, 0)
		c := node(&now, nil, nil)
		c.peerChanged("a", b)
		c.peerMerge("a", b)
		c.peerChanged("a", b)
		if n := len(c.Lost()); n > len(b) {
			t.Errorf("%d connections of %d bytes", n, len(b))
		}
	})
}
