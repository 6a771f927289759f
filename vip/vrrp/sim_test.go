package vrrp

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// A world is a segment in simulated time: routers, whose cables may be cut, and packets under way.
type world struct {
	t       *testing.T
	now     time.Time
	random  *rand.Rand
	latency func() time.Duration
	nodes   []*simNode
	flying  []flight
	// overlap is the longest time for which two routers that hear each other held the addresses.
	overlap, since time.Duration
}

type simNode struct {
	*Machine
	addr   netip.Addr
	island int // routers hear each other on the same island
	alive  bool
	holds  bool
}

type flight struct {
	at   time.Time
	from *simNode
	to   *simNode
	a    Advertisement
}

func newWorld(t *testing.T, seed uint64, configs ...Config) *world {
	w := &world{t: t, now: epoch, random: rand.New(rand.NewPCG(seed, 0))}
	w.latency = func() time.Duration { return time.Duration(50+w.random.IntN(200)) * time.Microsecond }
	for i, c := range configs {
		c.VRID, c.Addresses = 51, v4
		c.Primary = netip.AddrFrom4([4]byte{198, 18, 0, byte(2 + i)})
		n := &simNode{Machine: New(c), addr: c.Primary}
		w.nodes = append(w.nodes, n)
		w.start(n)
	}
	return w
}

func (w *world) start(n *simNode) { n.alive = true; w.do(n, n.Step(w.now, Startup{})) }

// kill is the death of the whole machine: nothing is said, and the addresses are gone with it.
func (w *world) kill(n *simNode) { n.alive, n.holds = false, false; n.Machine = New(n.cfg) }

func (w *world) do(n *simNode, actions []Action) {
	for _, a := range actions {
		switch a := a.(type) {
		case Hold:
			n.holds = true
		case Drop:
			n.holds = false
		case Advertise:
			for _, to := range w.nodes {
				if to != n && to.island == n.island {
					w.flying = append(w.flying, flight{w.now.Add(w.latency()), n, to, n.Advertisement(a)})
				}
			}
		case Transition:
			n.alive = a.To != Initialize
			if (a.To == Active) != n.holds {
				w.t.Fatalf("%s: %s went to %s and holds the addresses: %t", w.now.Sub(epoch), n.addr, a.To, n.holds)
			}
		}
	}
}

// run lets the time pass until d from now.
func (w *world) run(d time.Duration) {
	end := w.now.Add(d)
	for {
		next, at := w.next(end)
		w.watch(at)
		w.now = at
		if next == nil {
			return
		}
		next()
	}
}

// next returns what happens first, or nil when nothing does until the end.
func (w *world) next(end time.Time) (func(), time.Time) {
	var happen func()
	at := end
	for _, n := range w.nodes {
		if d := n.Deadline(); n.alive && !d.IsZero() && d.Before(at) {
			at, happen = d, func() { w.do(n, n.Step(w.now, Tick{})) }
		}
	}
	for i, f := range w.flying {
		if f.at.Before(at) {
			at, happen = f.at, func() {
				w.flying = append(w.flying[:i], w.flying[i+1:]...)
				if f.to.alive && f.to.island == f.from.island {
					w.do(f.to, f.to.Step(w.now, Received{f.from.addr, f.a}))
				}
			}
		}
	}
	return happen, at
}

// watch counts the time until at, in which nothing changes, to the overlap if two owners hear each other.
func (w *world) watch(at time.Time) {
	owners := map[int]int{}
	two := false
	for _, n := range w.nodes {
		if n.holds {
			owners[n.island]++
			two = two || owners[n.island] > 1
		}
	}
	if !two {
		w.since = 0
		return
	}
	w.since += at.Sub(w.now)
	w.overlap = max(w.overlap, w.since)
}

func (w *world) owners(island int) []netip.Addr {
	var who []netip.Addr
	for _, n := range w.nodes {
		if n.holds && n.island == island {
			who = append(who, n.addr)
		}
	}
	return who
}

func (w *world) expectOwner(island int, want *simNode) {
	w.t.Helper()
	if who := w.owners(island); len(who) != 1 || who[0] != want.addr {
		w.t.Fatalf("%s: on island %d the addresses are with %v, want %s", w.now.Sub(epoch), island, who, want.addr)
	}
}

func priorities(interval time.Duration, preempt bool, ps ...uint8) []Config {
	var cs []Config
	for _, p := range ps {
		cs = append(cs, Config{Priority: p, Interval: interval, Preempt: preempt, Sick: 9})
	}
	return cs
}

func TestTwoRoutersElectTheBetterAndTheOtherTakesOver(t *testing.T) {
	const interval = 10 * time.Millisecond
	w := newWorld(t, 1, priorities(interval, false, 100, 90)...)
	a, b := w.nodes[0], w.nodes[1]
	w.run(second)
	w.expectOwner(0, a)
	w.kill(a)
	died := w.now
	for len(w.owners(0)) == 0 {
		w.run(time.Millisecond)
	}
	if took := w.now.Sub(died); took > DownInterval(90, interval)+time.Millisecond {
		t.Errorf("taking over from a dead router took %s", took)
	}
	w.start(a) // it comes back, and does not preempt
	w.run(second)
	w.expectOwner(0, b)
	w.do(b, b.Step(w.now, Shutdown{}))
	stopped := w.now
	for w.owners(0)[0] != a.addr {
		w.run(100 * time.Microsecond)
		if len(w.owners(0)) == 0 {
			t.Fatalf("%s after b began to stop nobody has the addresses", w.now.Sub(stopped))
		}
	}
	if took := w.now.Sub(stopped); took > SkewTime(100, interval)+time.Millisecond {
		t.Errorf("taking over from one that resigned took %s", took)
	}
	w.run(lingerTime + time.Millisecond)
	w.expectOwner(0, a)
	if w.overlap > lingerTime+time.Millisecond {
		t.Errorf("both had the addresses for %s", w.overlap)
	}
}

func TestAReleasedRouterDoesNotTakeBack(t *testing.T) {
	w := newWorld(t, 1, priorities(100*time.Millisecond, true, 100, 90)...)
	a, b := w.nodes[0], w.nodes[1]
	w.run(second)
	w.expectOwner(0, a)
	w.do(a, a.Step(w.now, Release{}))
	for range 1000 {
		w.run(time.Millisecond)
		if len(w.owners(0)) == 0 {
			t.Fatalf("%s: nobody has the addresses", w.now.Sub(epoch))
		}
	}
	w.run(10 * second) // although it would preempt
	w.expectOwner(0, b)
	w.kill(b)
	w.run(second)
	w.expectOwner(0, a)
	w.do(a, a.Step(w.now, Release{})) // to nobody
	for range 1000 {
		w.run(time.Millisecond)
		w.expectOwner(0, a)
	}
}

func TestASickRouterServesUntilAWellOneHasTakenOver(t *testing.T) {
	w := newWorld(t, 1, priorities(100*time.Millisecond, false, 100, 90)...)
	a, b := w.nodes[0], w.nodes[1]
	w.run(second)
	w.do(a, a.Step(w.now, SetPriority{5}))
	for range 100 {
		w.run(10 * time.Millisecond)
		if len(w.owners(0)) == 0 {
			t.Fatalf("%s: nobody has the addresses", w.now.Sub(epoch))
		}
	}
	w.expectOwner(0, b)
	w.do(a, a.Step(w.now, SetPriority{100})) // well again: no reason to move back
	w.run(10 * second)
	w.expectOwner(0, b)
	w.do(a, a.Step(w.now, SetPriority{5}))
	w.kill(b) // sick, but alone
	w.run(second)
	w.expectOwner(0, a)
}

func TestAPartitionThatHealsHasOneOwnerWithinAnAdvertisement(t *testing.T) {
	const interval = 100 * time.Millisecond
	w := newWorld(t, 2, priorities(interval, false, 100, 100, 80)...)
	w.run(5 * second)
	b := w.nodes[1] // of equal priority, the higher address
	w.nodes[0].island, w.nodes[2].island = 1, 1
	w.run(5 * second)
	w.expectOwner(1, w.nodes[0])
	w.nodes[0].island, w.nodes[2].island = 0, 0
	w.run(interval + time.Millisecond)
	w.expectOwner(0, b)
}

// TestHoursOfTrouble lets two to four routers lose their cables, die, come back, fall sick and get well for some hours, and
// holds that on each island there is exactly one owner once it has been quiet, and never two for longer than it takes to
// hear of each other.
func TestHoursOfTrouble(t *testing.T) {
	for seed := range uint64(12) {
		n := 2 + int(seed%3)
		preempt := seed%2 == 0
		t.Run(fmt.Sprintf("%d routers, preempt %t, seed %d", n, preempt, seed), func(t *testing.T) {
			const interval = 100 * time.Millisecond
			w := newWorld(t, seed, priorities(interval, preempt, []uint8{200, 150, 150, 20}[:n]...)...)
			for w.now.Before(epoch.Add(time.Hour)) {
				w.trouble()
				// Within an interval each owner has heard of the other; after it, never again two.
				w.run(interval + time.Millisecond)
				if w.leaving() { // after a planned hand-over two answer for a moment
					w.run(LeaveTime(interval) + lingerTime)
				}
				w.overlap, w.since = 0, 0
				w.run(time.Duration(w.random.IntN(3000))*time.Millisecond + DownInterval(1, interval)*2)
				if w.overlap > 2*time.Millisecond {
					t.Fatalf("%s: two owners for %s", w.now.Sub(epoch), w.overlap)
				}
				for island := range 2 {
					w.expectOneIfAny(island)
				}
			}
		})
	}
}

func (w *world) trouble() {
	n := w.nodes[w.random.IntN(len(w.nodes))]
	switch w.random.IntN(6) {
	case 0:
		n.island = w.random.IntN(2)
	case 1:
		if n.alive {
			w.kill(n)
		} else {
			w.start(n)
		}
	case 2:
		w.do(n, n.Step(w.now, SetPriority{uint8(1 + w.random.IntN(254))}))
	case 3:
		w.do(n, n.Step(w.now, Shutdown{}))
	case 4:
		w.do(n, n.Step(w.now, Release{}))
	case 5:
		if !n.alive {
			w.start(n)
		}
	}
}

func (w *world) leaving() bool {
	return slices.ContainsFunc(w.nodes, func(n *simNode) bool { return n.alive && n.Leaving() })
}

func (w *world) expectOneIfAny(island int) {
	w.t.Helper()
	alive := 0
	for _, n := range w.nodes {
		if n.alive && n.island == island {
			alive++
		}
	}
	if who := w.owners(island); len(who) != min(alive, 1) {
		w.t.Fatalf("%s: of %d routers on island %d the addresses are with %v", w.now.Sub(epoch), alive, island, who)
	}
}
