package pair

import (
	"net/netip"
	"testing"
	"time"

	"everboot/dhcp/leases"
)

// TestWhatIsGivenBackIsToldAlsoInNoPool: a client releases the address that was reserved for it, or an operator frees it or ends its quarantine; the
// other node knows it, also if it was out of contact then, and if this one started anew meanwhile.
func TestWhatIsGivenBackIsToldAlsoInNoPool(t *testing.T) {
	reserved := lease(0, 1)
	reserved.Address, reserved.Reserved = netip.MustParseAddr("198.18.0.51"), true
	for name, free := range map[string]func(*couple) (leases.Lease, bool){
		"released": func(c *couple) (leases.Lease, bool) {
			return c.nodes[0].table.Release(c.now, reserved.Address, reserved.Client)
		},
		"freed": func(c *couple) (leases.Lease, bool) { return c.nodes[0].table.Free(c.now, reserved.Address) },
		"freed from quarantine": func(c *couple) (leases.Lease, bool) {
			c.nodes[0].table.Decline(c.now, reserved.Address, reserved.Client, time.Hour)
			c.nodes[0].Changed(c.now, reserved.Address)
			c.pass(time.Second)
			return c.nodes[0].table.Free(c.now, reserved.Address)
		},
	} {
		for _, cut := range []bool{false, true} {
			c := newCouple(t, 1)
			c.pass(time.Second)
			c.bind(0, reserved, time.Hour)
			c.pass(20 * time.Second)
			c.cut = cut
			l, ok := free(c)
			c.nodes[0].Changed(c.now, reserved.Address)
			c.pass(5 * time.Second)
			if cut {
				c.start(0, []leases.Lease{l})
				c.cut = false
				c.pass(5 * time.Second)
			}
			for i, n := range c.nodes {
				if l, known := n.table.At(c.now.Add(n.skew), reserved.Address); !ok || known && l.Live() {
					t.Errorf("%s, cut %v: node %d has %+v", name, cut, i, l)
				}
			}
		}
	}
}
