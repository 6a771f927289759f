package dhcp

import (
	"net/netip"
	"testing"
	"time"

	"everboot/dhcp/leases"
)

// TestWhoComesBackToABrokenChannelGivesNoAddressTwice: a node is away for longer than the longest lease, so that the other gives its addresses,
// too, and comes back, with its disk or a new one, or from a standstill, while the channel is cut and the other has the floating address, or no longer has it.
func TestWhoComesBackToABrokenChannelGivesNoAddressTwice(t *testing.T) {
	seeds := uint64(30)
	if testing.Short() {
		seeds = 6
	}
	for seed := range seeds {
		w := newTwins(t, seed)
		w.vip = 0
		w.pass(4 * time.Second)
		for range 3 {
			w.live(40)
			dead := w.rand.IntN(2)
			w.nodes[dead].down, w.vip = true, 1-dead
			w.note("%d dies", dead)
			for end := w.now.Add(11*time.Minute + time.Duration(w.rand.IntN(20))*time.Minute); w.now.Before(end); {
				w.pass(time.Duration(w.rand.IntN(10)) * time.Second)
				w.step()
			}
			w.cut = w.rand.IntN(4) > 0
			switch w.rand.IntN(4) {
			case 0:
				w.nodes[dead].down = false
				w.note("%d only stood still, cut: %v", dead, w.cut)
			case 1:
				w.nodes[dead].disk, w.nodes[dead].synced = make(map[netip.Addr]leases.Lease), time.Time{}
				fallthrough
			default:
				w.note("%d starts, cut: %v", dead, w.cut)
				w.start(dead)
			}
			w.live(20 + w.rand.IntN(100))
			if w.rand.IntN(2) == 0 {
				w.vip = dead
				w.note("the floating address is at %d", dead)
				w.live(w.rand.IntN(400))
			}
			w.cut = false
			w.note("mended")
			w.pass(5 * time.Second)
		}
		if w.acks < 250 {
			t.Fatalf("seed %d: only %d ACKs: the test tests nothing", seed, w.acks)
		}
	}
}

// live lets clients do what they do, so many times.
func (w *twins) live(steps int) {
	for range steps {
		w.step()
	}
}
