package pair

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"everboot/dhcp/leases"
	"everboot/site"
)

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func nth(i int) netip.Addr { return netip.AddrFrom4([4]byte{198, 18, byte(1 + i>>8), byte(i)}) }

func lease(i, client int) leases.Lease {
	mac := site.MAC{0x52, 0x54, 0, 0, byte(client >> 8), byte(client)}
	return leases.Lease{Address: nth(i), Client: leases.ClientOf(nil, mac), MAC: mac, Name: "host"}
}

// node is a machine with its table. Its clock is off by skew.
type node struct {
	*Machine
	table *leases.Table
	skew  time.Duration
	seen  bool // the other node is seen by other means
	still bool // it does nothing
}

type flying struct {
	at   time.Time
	to   int
	data []byte
}

// couple is two nodes and a channel that loses, repeats, delays and reorders.
type couple struct {
	t      *testing.T
	rand   *rand.Rand
	now    time.Time
	nodes  [2]*node
	air    []flying
	loss   float64
	cut    bool
	maxLag time.Duration
	synced time.Time // what the disk of a node that starts says
}

var addrs = [2]netip.Addr{netip.MustParseAddr("198.18.0.2"), netip.MustParseAddr("198.18.0.3")}

func newCouple(t *testing.T, seed uint64) *couple {
	c := &couple{t: t, rand: rand.New(rand.NewPCG(seed, 1)), now: epoch, maxLag: time.Millisecond}
	c.start(0, nil)
	c.start(1, nil)
	c.nodes[1].skew = -time.Minute
	return c
}

// start starts a node anew with what is on its disk.
func (c *couple) start(i int, disk []leases.Lease) {
	n := &node{}
	if c.nodes[i] != nil {
		n.skew = c.nodes[i].skew
	}
	n.table = leases.NewTable([]leases.Pool{{First: nth(0), Last: nth(1023), Owns: func(a netip.Addr) bool { return n.Machine == nil || n.Owns(a) }}})
	n.table.Load(c.now.Add(n.skew), disk)
	n.Machine = New(c.now.Add(n.skew), Config{
		Self: addrs[i], Peers: []netip.Addr{addrs[1-i]}, Longest: time.Hour, Incarnation: c.rand.Uint64(), Synced: c.synced,
	}, n.table)
	n.table.Reown()
	c.nodes[i] = n
}

func (c *couple) send(from int, list [][]byte) {
	for _, data := range list {
		if len(data) > maxMessage {
			c.t.Fatalf("a message of %d bytes", len(data))
		}
		for range 1 + c.rand.IntN(10)/9 {
			if c.cut || c.rand.Float64() < c.loss {
				continue
			}
			lag := time.Duration(c.rand.Int64N(int64(c.maxLag)))
			c.air = append(c.air, flying{c.now.Add(lag), 1 - from, data})
		}
	}
}

// pass lets time pass.
func (c *couple) pass(d time.Duration) {
	for end := c.now.Add(d); c.now.Before(end); c.now = c.now.Add(20 * time.Millisecond) {
		air := c.air
		c.air = nil
		for _, f := range air {
			if f.at.After(c.now) {
				c.air = append(c.air, f)
				continue
			}
			if c.nodes[f.to].still {
				continue
			}
			r := c.nodes[f.to].Receive(c.now.Add(c.nodes[f.to].skew), f.data)
			if r.Drop == DropMalformed || r.Drop == DropFormat || r.Drop == DropStranger || len(r.Clashes) > 0 {
				c.t.Fatalf("%s %v", r.Drop, r.Clashes)
			}
			c.send(f.to, r.Tell)
		}
		for i, n := range c.nodes {
			if n.still {
				continue
			}
			c.send(i, n.Tick(c.now.Add(n.skew), func(netip.Addr) bool { return n.seen }))
		}
	}
}

func (c *couple) bind(i int, l leases.Lease, length time.Duration) {
	n := c.nodes[i]
	n.table.Bind(c.now.Add(n.skew), l, length)
	n.Changed(c.now.Add(n.skew), l.Address)
}

// differ returns what the two nodes do not agree on.
func (c *couple) differ() (list []string) {
	for i := range 1024 {
		a, _ := c.nodes[0].table.At(c.now.Add(c.nodes[0].skew), nth(i))
		b, _ := c.nodes[1].table.At(c.now.Add(c.nodes[1].skew), nth(i))
		d := a.Expires.Add(-c.nodes[0].skew).Sub(b.Expires.Add(-c.nodes[1].skew))
		if a.Live() != b.Live() || a.Live() && (a.Client != b.Client || a.State != b.State || d > lateAfter || d < -lateAfter) {
			list = append(list, fmt.Sprintf("%v and %v", a, b))
		}
	}
	return list
}

func (c *couple) states() string {
	return fmt.Sprintf("%s, %s", c.nodes[0].Peers()[0].State, c.nodes[1].Peers()[0].State)
}

// TestEveryLeaseArrives on a channel that loses a third of all messages, repeats and reorders them.
func TestEveryLeaseArrives(t *testing.T) {
	for seed := range uint64(10) {
		c := newCouple(t, seed)
		c.loss, c.maxLag = 0.3, 100*time.Millisecond
		c.pass(time.Second)
		for range 600 {
			i, n := c.rand.IntN(1024), c.rand.IntN(2)
			if !c.nodes[n].Owns(nth(i)) {
				n = 1 - n
			}
			l := lease(i, i)
			if c.rand.IntN(4) == 0 {
				now := c.now.Add(c.nodes[n].skew)
				if _, ok := c.nodes[n].table.Release(now, l.Address, l.Client); ok {
					c.nodes[n].Changed(now, l.Address)
				}
			} else {
				c.bind(n, l, time.Hour)
			}
			c.pass(20 * time.Millisecond)
		}
		c.loss = 0
		c.pass(3 * time.Second)
		if d := c.differ(); len(d) > 0 || c.states() != "in touch, in touch" {
			t.Fatalf("seed %d: %s: %d differ: %s", seed, c.states(), len(d), d[0])
		}
	}
}

// TestSilenceIsNoticed: the whole life of a contact, with its times.
func TestSilenceIsNoticed(t *testing.T) {
	c := newCouple(t, 1)
	c.pass(time.Second)
	if c.states() != "in touch, in touch" || !c.nodes[0].Settled() || !c.nodes[1].Settled() {
		t.Fatalf("after a second: %s", c.states())
	}
	ours := 0
	for i := range 1024 {
		client := lease(i, i).Client
		if c.nodes[0].First(client) == c.nodes[1].First(client) || c.nodes[0].Owns(nth(i)) == c.nodes[1].Owns(nth(i)) {
			t.Fatal("a client or an address is of both, or of none")
		}
		if c.nodes[0].First(client) {
			ours++
		}
	}
	if ours < 400 || ours > 624 {
		t.Errorf("%d of 1024 clients are first a's", ours)
	}
	c.cut = true
	c.pass(Silence + 2*beatEvery)
	if c.states() != "away, away" || !c.nodes[0].First(lease(1, 1).Client) || !c.nodes[1].First(lease(1, 1).Client) {
		t.Fatalf("after the silence: %s", c.states())
	}
	c.nodes[0].seen = true
	c.pass(time.Hour + margin)
	if c.states() != "away, gone" {
		t.Fatalf("b has heard nothing for an hour, a sees b by other means: %s", c.states())
	}
	kept := 0
	for i := range 1024 {
		if c.nodes[0].First(lease(i, i).Client) {
			kept++
		}
	}
	if kept != ours {
		t.Errorf("%d of 1024 clients are first a's, who sees b; they were %d", kept, ours)
	}
	for i := range 1024 {
		if !c.nodes[1].Owns(nth(i)) {
			t.Fatal("b thinks that a is gone, and does not own its addresses")
		}
	}
	if !c.nodes[1].Until().IsZero() {
		t.Error("nobody is left who could have done something")
	}
	c.cut = false
	for c.nodes[1].Peers()[0].State != InTouch {
		c.pass(20 * time.Millisecond)
	}
	if c.nodes[1].Settled() {
		t.Error("b answers before the leases are compared")
	}
	c.pass(2 * time.Second)
	if c.states() != "in touch, in touch" || !c.nodes[1].Settled() {
		t.Errorf("together again: %s", c.states())
	}
}

// TestThousandLeasesAreComparedAfterARestart: a node that lost its disk has them back, and answers nobody before.
func TestThousandLeasesAreComparedAfterARestart(t *testing.T) {
	c := newCouple(t, 1)
	c.loss = 0.2
	c.pass(time.Second)
	for i := range 1000 {
		c.bind(i%2, lease(i, i), time.Hour)
	}
	c.pass(2 * time.Second)
	c.start(1, nil)
	for range 50 {
		c.pass(100 * time.Millisecond)
		if c.nodes[1].Settled() {
			break
		}
		if c.nodes[0].First(lease(1, 1).Client) == false || c.nodes[0].First(lease(4, 4).Client) == false {
			t.Fatal("a leaves clients to b, which does not answer yet")
		}
	}
	if d := c.differ(); len(d) > 0 || !c.nodes[1].Settled() {
		t.Fatalf("settled %v, %d differ", c.nodes[1].Settled(), len(d))
	}
}

// TestARecordedBeatSaysNothing: beats of an earlier run, of this run, or of a run before ours, sent again by somebody who heard them, neither
// part two nodes nor keep one that is gone alive.
func TestARecordedBeatSaysNothing(t *testing.T) {
	c := newCouple(t, 1)
	c.pass(time.Second)
	var tape [][]byte // what b said in three runs
	for range 3 {
		c.pass(2 * time.Second)
		tape = append(tape, c.nodes[1].beat(c.now))
		c.start(1, nil)
	}
	c.pass(5 * time.Second)
	tape = append(tape, c.nodes[1].beat(c.now))
	c.nodes[0].Receive(c.now, tape[len(tape)-1])
	replay := func() {
		for _, b := range tape {
			if r := c.nodes[0].Receive(c.now, b); r.Drop != DropStale {
				t.Errorf("a beat of the past: dropped as %q", r.Drop)
			}
		}
	}
	for range 100 {
		replay()
		c.pass(20 * time.Millisecond)
		if c.states() != "in touch, in touch" {
			t.Fatalf("with beats of the past: %s", c.states())
		}
	}
	c.cut = true
	for range 70 {
		replay()
		c.pass(time.Minute)
	}
	if state := c.nodes[0].Peers()[0].State; state != Gone {
		t.Errorf("70 minutes after its last word the peer is %s", state)
	}
	// A node that has just started cannot know what is old, but goes by nothing that does not name a late beat of its own.
	c.start(0, nil)
	for range 10 {
		for _, b := range tape {
			c.nodes[0].Receive(c.now, b)
		}
	}
	if state := c.nodes[0].Peers()[0].State; state == InTouch {
		t.Error("a recorded beat made contact")
	}
}

// TestNoLeaseIsForgottenInTheGap: what a peer prolonged just before contact was lost is not given away by the owner, who does not know it.
func TestNoLeaseIsForgottenInTheGap(t *testing.T) {
	c := newCouple(t, 1)
	c.pass(time.Second)
	i := 0
	for !c.nodes[0].Owns(nth(i)) {
		i++
	}
	c.bind(0, lease(i, 1), time.Minute)
	c.pass(50 * time.Second)
	c.cut = true
	c.bind(1, lease(i, 1), time.Hour) // b renews it, and nobody hears
	c.pass(30 * time.Second)
	if c.nodes[0].table.Available(c.now, nth(i), lease(0, 2).Client) {
		t.Error("a gives away what b has prolonged")
	}
	if !c.nodes[0].table.Available(c.now, nth(i), lease(0, 1).Client) {
		t.Error("a refuses the client's own address")
	}
	c.cut = false
	c.pass(2 * time.Second)
	if l, _ := c.nodes[0].table.At(c.now, nth(i)); !l.Live() || l.Expires.Sub(c.now) < 50*time.Minute {
		t.Errorf("after: %+v", l)
	}
}

func TestBucketIsRFC3074(t *testing.T) {
	// Computed by hand from the table: of one byte k the hash is T[1 ^ k].
	for key, want := range map[string]int{"\x00": 175, "\x01": 251, "\x03": 119} {
		if got := bucket(leases.Client(key)); got != want {
			t.Errorf("bucket of %x: %d, want %d", key, got, want)
		}
	}
	seen := map[byte]bool{}
	for _, b := range mixing {
		seen[b] = true
	}
	if len(seen) != 256 {
		t.Error("the table is no permutation")
	}
}

func FuzzReceive(f *testing.F) {
	c := newCouple(nil, 1)
	h := head{addrs[1], 7}
	f.Add(beat{head: h, number: 1, echoes: []echo{{to: addrs[0], incarnation: 1, beat: 1}}}.marshal())
	f.Add(ack{head: h, to: echo{to: addrs[0], incarnation: 1}, seqs: []uint32{1, 2}}.marshal())
	l := lease(1, 1)
	l.State, l.Start, l.Expires = leases.Bound, epoch, epoch.Add(time.Hour)
	f.Add(appendLease(update{head: h, seq: 1}.begin(), epoch, l))
	now := epoch
	f.Fuzz(func(t *testing.T, b []byte) {
		now = now.Add(time.Millisecond)
		c.nodes[0].Receive(now, b)
		if m, err := parse(now, b); err == nil {
			if u, ok := m.(update); ok {
				again := u.begin()
				for _, l := range u.leases {
					again = appendLease(again, now, l)
				}
				if m2, err := parse(now, again); err != nil || len(m2.(update).leases) != len(u.leases) {
					t.Errorf("%v is not read back: %v", u, err)
				}
			}
		}
		c.nodes[0].Tick(now, nil)
	})
}
