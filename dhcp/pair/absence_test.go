package pair

import (
	"net/netip"
	"testing"
	"time"

	"everboot/dhcp/leases"
)

// TestWhoWasAwayForLongGivesNothingOfItsOwn until it has heard what became of that, or until the other is gone. If the other is seen to live, not even
// clients that had an address get it.
func TestWhoWasAwayForLongGivesNothingOfItsOwn(t *testing.T) {
	type absence struct {
		name   string
		away   time.Duration // zero: its disk is new
		behind bool
	}
	for _, x := range []absence{
		{"its disk is new", 0, true}, {"for less than the longest lease", 50 * time.Minute, false}, {"for longer", time.Hour + 2*margin, true},
	} {
		t.Run(x.name, func(t *testing.T) {
			c := newCouple(t, 1)
			c.pass(time.Second)
			c.cut = true
			c.pass(2 * time.Minute)
			if x.away > 0 {
				c.synced = c.now.Add(-x.away)
			}
			i := 0
			for !c.nodes[0].Owns(nth(i)) {
				i++
			}
			had := lease(i, 1)
			had.State, had.Start, had.Expires = leases.Bound, c.now.Add(-4*time.Hour), c.now.Add(-3*time.Hour)
			c.start(0, []leases.Lease{had})
			may := func(client int) bool {
				return c.nodes[0].Owns(nth(i)) && c.nodes[0].table.Available(c.now, nth(i), lease(i, client).Client)
			}
			picks := false
			look := func() {
				_, picks = c.nodes[0].table.Pick(c.now, netip.MustParsePrefix("198.18.0.0/15"), func(netip.Addr) bool { return false })
			}
			c.pass(5 * time.Second)
			if look(); picks == x.behind || c.nodes[0].Behind() != x.behind || !may(1) || may(2) == x.behind {
				t.Errorf("out of contact: it picks %v, behind %v, its own client %v, another %v", picks, c.nodes[0].Behind(), may(1), may(2))
			}
			c.nodes[0].seen = true
			c.pass(time.Second)
			if look(); may(1) == x.behind || picks == x.behind || c.nodes[0].Yields() != x.behind {
				t.Errorf("the other is seen: it picks %v, its own client %v", picks, may(1))
			}
			c.nodes[0].seen, c.cut = false, false
			c.pass(3 * time.Second)
			if look(); !picks || c.nodes[0].Behind() || !may(1) {
				t.Errorf("in contact: it picks %v, behind %v", picks, c.nodes[0].Behind())
			}
		})
	}
}

// TestAClockThatWasSetBackKnowsNothing: what the disk says of a time that is yet to come does not make known what peers did until then.
func TestAClockThatWasSetBackKnowsNothing(t *testing.T) {
	c := newCouple(t, 1)
	c.cut, c.synced = true, c.now.Add(24*time.Hour)
	c.start(0, nil)
	c.pass(5 * time.Second)
	if !c.nodes[0].Behind() || c.nodes[0].Until().After(c.now) {
		t.Errorf("behind %v, known until %s", c.nodes[0].Behind(), c.nodes[0].Until())
	}
}

// TestWhoOutlivesItsPeerStartsAnew: it is not taken for one that comes back from a long absence.
func TestWhoOutlivesItsPeerStartsAnew(t *testing.T) {
	c := newCouple(t, 1)
	c.pass(time.Second)
	c.cut = true
	c.pass(2*time.Hour + time.Minute)
	c.synced = c.nodes[0].Synced(c.now)
	c.start(0, nil)
	c.pass(5 * time.Second)
	if c.nodes[0].Behind() || !c.nodes[0].Settled() || c.now.Sub(c.synced) > time.Minute {
		t.Errorf("behind %v, settled %v, synced %s", c.nodes[0].Behind(), c.nodes[0].Settled(), c.synced)
	}
	// Who learns nothing for as long as that takes its peer for gone.
	c.synced = time.Time{}
	c.start(0, nil)
	c.pass(time.Hour)
	if !c.nodes[0].Behind() || !c.nodes[0].Synced(c.now).IsZero() {
		t.Error("it gives addresses of its own before the other is gone")
	}
	if c.pass(time.Minute); c.nodes[0].Behind() {
		t.Error("it gives nothing for ever")
	}
}

// TestAPeerThatComesBackBehindABrokenChannel: the survivor waits for it as long as at a start, and then answers again, though the other lives.
func TestAPeerThatComesBackBehindABrokenChannel(t *testing.T) {
	c := newCouple(t, 1)
	c.pass(time.Second)
	c.cut = true
	c.pass(time.Hour + time.Minute)
	c.nodes[0].seen = true
	c.pass(time.Second)
	if c.nodes[0].Settled() || c.nodes[0].Peers()[0].State != Away {
		t.Errorf("settled %v, the peer is %s", c.nodes[0].Settled(), c.nodes[0].Peers()[0].State)
	}
	c.pass(startPatience)
	if !c.nodes[0].Settled() {
		t.Error("it answers nobody for ever")
	}
}

// TestARegistryVouchesForANewDisk: what the peer wrote down there is as good as its word, once it would have been seen to live there, and until it is.
func TestARegistryVouchesForANewDisk(t *testing.T) {
	c := newCouple(t, 1)
	c.cut = true
	c.start(0, nil)
	n := c.nodes[0]
	picks := func() bool {
		_, ok := n.table.Pick(c.now, netip.MustParsePrefix("198.18.0.0/15"), func(netip.Addr) bool { return false })
		return ok
	}
	n.Vouch(c.now)
	if c.pass(vouchAfter - time.Second); picks() {
		t.Error("it gives addresses before the peer could be seen in the registry")
	}
	if c.pass(2 * time.Second); !picks() {
		t.Error("the peer is dead, and it gives nothing")
	}
	n.Lives(c.now, addrs[1])
	if c.pass(time.Second); picks() {
		t.Error("the peer lives, and it gives addresses that the peer may have given")
	}
}
