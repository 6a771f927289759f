package pair

import (
	"net/netip"
	"testing"
	"time"

	"everboot/dhcp/leases"
)

// still has the first node stand still while the other takes it for gone and gives an address of its part, which is returned. Its clock stands still,
// too, or not.
func (c *couple) still(frozen bool) netip.Addr {
	c.pass(2 * time.Second)
	i := 0
	for !c.nodes[0].Owns(nth(i)) {
		i++
	}
	n, lasted := c.nodes[0], time.Hour+time.Minute
	n.still = true
	c.pass(lasted)
	if c.nodes[1].Peers()[0].State != Gone || !c.nodes[1].Owns(nth(i)) {
		c.t.Fatal("it is not gone for the other")
	}
	c.bind(1, lease(i, 1), time.Hour)
	if n.still = false; frozen {
		n.skew -= lasted
	}
	return nth(i)
}

// given reports whether the first node would give an address to somebody.
func (c *couple) given(a netip.Addr) bool {
	n := c.nodes[0]
	now := c.now.Add(n.skew)
	return n.Ready(now) && n.Owns(a) && n.table.Available(now, a, lease(0, 2).Client)
}

// TestWhoStoodStillAnswersNobody: before it has compared, if its clock says so, and for a beat of the other at most if its clock stood still, too. Behind
// a channel that is broken now it gives nothing of its own.
func TestWhoStoodStillAnswersNobody(t *testing.T) {
	for _, frozen := range []bool{false, true} {
		c := newCouple(t, 1)
		a := c.still(frozen)
		if !frozen && c.given(a) {
			t.Error("it gives away what the other gave, before it has looked round")
		}
		c.pass(beatEvery + 40*time.Millisecond)
		for range 50 {
			if c.given(a) {
				t.Fatalf("clock frozen %v: it gives away what the other gave", frozen)
			}
			c.pass(100 * time.Millisecond)
		}
		if d := c.differ(); len(d) > 0 || c.states() != "in touch, in touch" || !c.nodes[0].Settled() || !c.nodes[1].Settled() {
			t.Errorf("clock frozen %v: %s, %d differ", frozen, c.states(), len(d))
		}
	}
	c := newCouple(t, 1)
	a := c.still(false)
	c.cut = true
	if c.pass(time.Minute); c.given(a) || !c.nodes[0].Settled() || !c.nodes[0].Behind() {
		t.Errorf("with the channel cut: settled %v, behind %v", c.nodes[0].Settled(), c.nodes[0].Behind())
	}
}

// TestASnapshotIsNoPresent: a machine that is taken back to what its memory was gives nothing away that was given since, and is in touch again at once.
func TestASnapshotIsNoPresent(t *testing.T) {
	c := newCouple(t, 1)
	c.pass(2 * time.Second)
	then, memory := c.now, *c.nodes[0].Machine
	other := *memory.peers[0]
	c.pass(3 * time.Minute)
	i := 0
	for !c.nodes[0].Owns(nth(i)) {
		i++
	}
	c.bind(0, lease(i, 1), time.Hour)
	c.pass(time.Second)
	c.start(0, nil)
	n := c.nodes[0]
	n.skew = then.Sub(c.now)
	table := leases.NewTable([]leases.Pool{{First: nth(0), Last: nth(1023), Owns: func(a netip.Addr) bool { return n.Owns(a) }}})
	memory.table, memory.peers, memory.outbox, memory.receipts = table, []*peer{&other}, newOutbox(), make(map[netip.Addr][]uint32)
	n.table, n.Machine = table, &memory
	c.pass(beatEvery + 40*time.Millisecond)
	for range 30 {
		if c.given(nth(i)) {
			t.Fatal("it gives away what it gave after the snapshot")
		}
		c.pass(100 * time.Millisecond)
	}
	if d := c.differ(); len(d) > 0 || c.states() != "in touch, in touch" || !n.Settled() {
		t.Errorf("%s, settled %v, %d differ", c.states(), n.Settled(), len(d))
	}
}
