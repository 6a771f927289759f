package dhcp

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"everboot/dhcp/leases"
	"everboot/site"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// twins are two nodes of one service in simulated time, a channel between them that can be cut, and clients that hear both. One node's
// clock is a minute off.
type twins struct {
	t       *testing.T
	rand    *rand.Rand
	now     time.Time
	view    *site.View
	nodes   [2]*twin
	clients []*simClient
	cut     bool
	vip     int     // who has it, which the other sees; -1: both may, and neither sees the other
	loss    float64 // of the channel's datagrams
	air     []told
	acks    int
	naks    int
	worst   time.Duration // longest wait from DISCOVER to ACK with a node alive
	trace   []string
}

type twin struct {
	*State
	cfg  Config
	disk map[netip.Addr]leases.Lease
	skew time.Duration
	down bool
	held held

	synced time.Time // on the disk
	noted  time.Time // when
}

type told struct {
	to   int
	data []byte
}

var commonID = ip("198.18.0.10")

func newTwins(t *testing.T, seed uint64) *twins {
	w := &twins{t: t, rand: rand.New(rand.NewPCG(seed, 3)), now: epoch, view: testView(), vip: -1}
	for i := range w.nodes {
		c := testConfig()
		c.Subnets[0].Lease, c.ServerID = 10*time.Minute, commonID
		c.Subnets[0].Range = [2]netip.Addr{ip("198.18.0.100"), ip("198.18.0.179")}
		if i == 1 {
			c.ServerAddress, c.Peers = c.Peers[0], []netip.Addr{c.ServerAddress}
		}
		w.nodes[i] = &twin{cfg: c, disk: make(map[netip.Addr]leases.Lease), skew: time.Duration(-i) * time.Minute}
		w.start(i)
	}
	for i := range 50 {
		w.clients = append(w.clients, &simClient{mac: site.MAC{0x52, 0x54, 0, 0, 1, byte(i + 1)}})
	}
	return w
}

func (w *twins) start(i int) {
	n := w.nodes[i]
	n.State, n.down, n.held = NewState(n.cfg), false, held{}
	var list []leases.Lease
	for _, l := range n.disk {
		list = append(list, l)
	}
	n.Load(w.now.Add(n.skew), list)
	n.Join(w.now.Add(n.skew), w.rand.Uint64(), n.synced)
}

// pass lets time pass.
func (w *twins) pass(d time.Duration) {
	for end := w.now.Add(d); w.now.Before(end); w.now = w.now.Add(tickEvery) {
		air := w.air
		w.air = nil
		for _, m := range air {
			n := w.nodes[m.to]
			if w.cut || n.down || w.rand.Float64() < w.loss {
				continue
			}
			r := n.pair.Receive(w.now.Add(n.skew), m.data)
			if len(r.Clashes) > 0 {
				w.fatal("clash: %+v", r.Clashes)
			}
			n.save(r.Save)
			w.tell(1-m.to, r.Tell)
		}
		for i, n := range w.nodes {
			if n.down {
				continue
			}
			now := w.now.Add(n.skew)
			w.tell(1-i, n.pair.Tick(now, func(netip.Addr) bool { return w.vip == 1-i && !w.nodes[1-i].down }))
			if synced := n.pair.Synced(now); !synced.IsZero() && now.Sub(n.noted) >= syncedEvery {
				n.synced, n.noted = synced, now
			}
		}
	}
}

func (w *twins) tell(to int, list [][]byte) {
	for _, b := range list {
		w.air = append(w.air, told{to, b})
	}
}

func (n *twin) save(list []leases.Lease) {
	for _, l := range list {
		n.disk[l.Address] = l
	}
}

func (w *twins) fatal(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("%s\n%s", fmt.Sprintf(format, args...), strings.Join(w.trace[max(0, len(w.trace)-40):], "\n"))
}

func (w *twins) note(format string, args ...any) {
	w.trace = append(w.trace, w.now.Sub(epoch).String()+" "+fmt.Sprintf(format, args...))
}

// ask sends a message to the nodes that hear it, and returns their answers.
func (w *twins) ask(q *dhcpv4.DHCPv4, hear ...int) (answers []*dhcpv4.DHCPv4) {
	for _, i := range hear {
		n := w.nodes[i]
		if n.down {
			continue
		}
		a, e := Handle(w.now.Add(n.skew), w.view, q, n.State)
		n.save(e.Save)
		w.tell(1-i, n.pair.Flush(w.now.Add(n.skew)))
		w.note("%v to %d: %v", e.Decision.MAC, i, e.Decision)
		if a != nil {
			answers = append(answers, a)
		}
	}
	return answers
}

// boot is what a client does until it has an address, or has tried for long enough.
func (w *twins) boot(c *simClient) bool {
	c.addr = netip.Addr{}
	began, tries := w.now, 0
	for wait := time.Second; tries < 5; tries++ {
		offers := w.ask(message(c.mac, discover), 0, 1)
		if len(offers) == 0 {
			w.pass(wait)
			wait *= 2
			continue
		}
		o := offers[w.rand.IntN(len(offers))]
		for range 2 {
			w.take(c, w.ask(message(c.mac, ask, requested(o.YourIPAddr.String()), serverID(o.ServerIdentifier().String())), 0, 1))
			if c.addr.IsValid() {
				w.worst = max(w.worst, w.now.Sub(began))
				return true
			}
			w.pass(neglectedAfter)
		}
	}
	return false
}

// take is what a client does with the answers to a REQUEST, and the check.
func (w *twins) take(c *simClient, answers []*dhcpv4.DHCPv4) {
	if len(answers) == 0 {
		return
	}
	a := answers[w.rand.IntN(len(answers))]
	if a.MessageType() == dhcpv4.MessageTypeNak {
		w.naks++
		c.addr = netip.Addr{}
		return
	}
	w.acks++
	c.addr, _ = netip.AddrFromSlice(a.YourIPAddr.To4())
	c.until = w.now.Add(a.IPAddressLeaseTime(0))
	for _, other := range w.clients {
		if other != c && other.addr == c.addr && w.now.Before(other.until) {
			w.fatal("%v was given to %v while %v has it", c.addr, c.mac, other.mac)
		}
	}
}

func (w *twins) step() {
	w.pass(time.Duration(w.rand.IntN(4000)) * time.Millisecond)
	c := w.clients[w.rand.IntN(len(w.clients))]
	if !w.now.Before(c.until) {
		c.addr = netip.Addr{}
	}
	either := w.rand.IntN(2) // who has the VIP; while they do not see each other, both do
	if w.vip >= 0 {
		either = w.vip
	}
	if w.nodes[either].down {
		either = 1 - either
	}
	switch n := w.rand.IntN(20); {
	case n < 7:
		w.boot(c)
	case n < 13 && c.addr.IsValid():
		had := c.addr
		if w.take(c, w.ask(message(c.mac, ask, ciaddr(had.String())), either)); c.addr != had {
			w.fatal("%v, which renewed %v, has %v", c.mac, had, c.addr)
		}
	case n < 15 && c.addr.IsValid():
		addr := c.addr
		c.addr = netip.Addr{} // it starts again and remembers its address; while it asks it has none
		w.take(c, w.ask(message(c.mac, ask, requested(addr.String())), 0, 1))
	case n < 17 && c.addr.IsValid():
		w.ask(message(c.mac, release, ciaddr(c.addr.String()), serverID(commonID.String())), either)
		c.addr = netip.Addr{}
	}
}

// TestTwoNodesNeverGiveOneAddressTwice: nodes die, for a second or for hours, and come back with what is on their disks; they lose sight of
// each other while clients hear both; the channel loses a fifth of everything.
func TestTwoNodesNeverGiveOneAddressTwice(t *testing.T) {
	seeds := uint64(12)
	if testing.Short() {
		seeds = 3
	}
	for seed := range seeds {
		w := newTwins(t, seed)
		w.loss = 0.2
		w.pass(4 * time.Second)
		for range 700 {
			w.step()
			switch i := w.rand.IntN(2); w.rand.IntN(50) {
			case 0:
				w.cut = true
				w.note("cut")
			case 1, 2:
				if w.cut {
					w.note("mended")
				}
				w.cut = false
			case 3:
				if !w.nodes[1-i].down && !w.cut {
					w.nodes[i].down = true
					w.note("%d dies", i)
				}
			case 4, 5:
				if w.nodes[i].down {
					w.note("%d starts", i)
					w.start(i)
				}
			case 6:
				w.note("%d restarts", i)
				w.start(i)
			}
		}
		if w.acks < 250 {
			t.Fatalf("seed %d: only %d ACKs: the test tests nothing", seed, w.acks)
		}
	}
}

// TestADeathIsOverInFourSeconds: whenever a node dies, each client has an address within 4 s of its first DISCOVER, whoever its node was, if
// it asks again after 1 and 2 s.
func TestADeathIsOverInFourSeconds(t *testing.T) {
	for dead := range 2 {
		w := newTwins(t, uint64(dead))
		w.pass(4 * time.Second)
		for i, c := range w.clients[:20] {
			if i == 5 {
				w.nodes[dead].down = true
			}
			if !w.boot(c) || w.worst > 4*time.Second {
				w.fatal("client %d: %v after %s", i, c.addr, w.worst)
			}
		}
		// The dead node's leases live on.
		for i, c := range w.clients[:20] {
			was := c.addr
			w.take(c, w.ask(message(c.mac, ask, ciaddr(was.String())), 1-dead))
			if c.addr != was {
				w.fatal("client %d had %v, has %v", i, was, c.addr)
			}
		}
		// After the longest lease the survivor has the whole pool.
		w.pass(10*time.Minute + 15*time.Second)
		for i, c := range append(w.clients, &simClient{mac: stranger}) {
			if !w.boot(c) {
				w.fatal("client %d of %d gets no address of a pool of 79", i, len(w.clients))
			}
		}
		// And each its half, when the other is back.
		w.start(dead)
		w.pass(5 * time.Second)
		for _, c := range w.clients {
			was := c.addr
			if w.boot(c); c.addr != was {
				w.fatal("%v had %v", c.mac, was)
			}
		}
	}
}

// TestOneAnswers: of two nodes that are in touch exactly one answers each broadcast.
func TestOneAnswers(t *testing.T) {
	w := newTwins(t, 1)
	w.pass(4 * time.Second)
	for _, c := range append(w.clients, &simClient{mac: known}, &simClient{mac: diskless}) {
		offers := w.ask(message(c.mac, discover), 0, 1)
		if len(offers) != 1 || offers[0].ServerIdentifier().String() != commonID.String() {
			w.fatal("%d offers for %v", len(offers), c.mac)
		}
		a := offers[0].YourIPAddr.String()
		for _, q := range []*dhcpv4.DHCPv4{
			message(c.mac, ask, requested(a), serverID(commonID.String())),
			message(c.mac, ask, requested(a)),
			message(c.mac, ask, requested("203.0.113.9")),
		} {
			if answers := w.ask(q, 0, 1); len(answers) != 1 {
				w.fatal("%d answers to %v", len(answers), q)
			}
			w.pass(300 * time.Millisecond)
		}
	}
}

// TestARenewalThatNamesTheServerIsARenewal: some clients renew with option 54, and without option 50. Whoever has the VIP hears that, and nobody else.
func TestARenewalThatNamesTheServerIsARenewal(t *testing.T) {
	w := newTwins(t, 1)
	w.pass(4 * time.Second)
	for _, c := range w.clients[:10] {
		if !w.boot(c) {
			w.fatal("%v has no address", c.mac)
		}
		w.pass(time.Minute) // the offer is forgotten
		for owner := range w.nodes {
			q := message(c.mac, ask, ciaddr(c.addr.String()), serverID(commonID.String()))
			if answers := w.ask(q, owner); len(answers) != 1 || answers[0].MessageType() != dhcpv4.MessageTypeAck {
				w.fatal("%v renews at %d: %v", c.mac, owner, answers)
			}
		}
	}
}

// TestAMovedMachineIsToldSoByTheSurvivor: with a node dead, the other refuses addresses of foreign networks for both.
func TestAMovedMachineIsToldSoByTheSurvivor(t *testing.T) {
	for dead := range 2 {
		w := newTwins(t, 1)
		w.pass(4 * time.Second)
		w.nodes[dead].down = true
		w.pass(4 * time.Second)
		for _, c := range w.clients {
			for _, a := range []string{"203.0.113.9", "203.0.113.10"} {
				if answers := w.ask(message(c.mac, ask, requested(a)), 0, 1); len(answers) != 1 || answers[0].MessageType() != dhcpv4.MessageTypeNak {
					w.fatal("%v asks for %s: %v", c.mac, a, answers)
				}
			}
		}
	}
}
