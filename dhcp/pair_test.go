package dhcp

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"everboot/dhcp/leases"
	"everboot/site"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// TestTwoServersNeverGiveOneAddressTwice lets clients with a will of their own talk to two servers that cannot talk to each other:
// broadcasts reach both or, at times, one; servers restart from their disks; clients vanish without a word.
func TestTwoServersNeverGiveOneAddressTwice(t *testing.T) {
	for seed := range uint64(20) {
		p := newRivals(t, seed)
		for range 3000 {
			p.step()
		}
		if p.acks < 500 {
			t.Fatalf("seed %d: only %d ACKs: the test tests nothing", seed, p.acks)
		}
	}
}

type rivals struct {
	t       *testing.T
	rand    *rand.Rand
	now     time.Time
	view    *site.View
	cfgs    [2]Config
	servers [2]*State
	disks   [2]map[netip.Addr]leases.Lease
	clients []*simClient
	acks    int
}

type simClient struct {
	mac    site.MAC
	addr   netip.Addr // zero: none
	server netip.Addr
	until  time.Time
}

func newRivals(t *testing.T, seed uint64) *rivals {
	p := &rivals{t: t, rand: rand.New(rand.NewPCG(seed, 7)), now: epoch, view: testView()}
	a := testConfig()
	a.Subnets[0].Lease = 10 * time.Minute
	a.Subnets[0].Range = [2]netip.Addr{ip("198.18.0.100"), ip("198.18.0.139")}
	b := a
	b.ServerAddress, b.Peers = a.Peers[0], []netip.Addr{a.ServerAddress}
	p.cfgs = [2]Config{a, b}
	for i := range p.servers {
		p.servers[i], p.disks[i] = NewState(p.cfgs[i]), make(map[netip.Addr]leases.Lease)
	}
	for i := range 60 {
		p.clients = append(p.clients, &simClient{mac: site.MAC{0x52, 0x54, 0, 0, 0, byte(i + 1)}})
	}
	return p
}

// tell sends a message to the servers that hear it and returns the answers.
func (p *rivals) tell(q *dhcpv4.DHCPv4, hear ...int) (answers []*dhcpv4.DHCPv4) {
	for _, i := range hear {
		answer, e := Handle(p.now, p.view, q, p.servers[i])
		for _, l := range e.Save {
			p.disks[i][l.Address] = l
		}
		if answer != nil {
			answers = append(answers, answer)
		}
	}
	return answers
}

func (p *rivals) ears() []int { return [][]int{{0, 1}, {0, 1}, {0, 1}, {0}, {1}}[p.rand.IntN(5)] }

func (p *rivals) step() {
	p.now = p.now.Add(time.Duration(p.rand.IntN(5000)) * time.Millisecond)
	c := p.clients[p.rand.IntN(len(p.clients))]
	if !p.now.Before(c.until) {
		c.addr = netip.Addr{}
	}
	switch n := p.rand.IntN(20); {
	case n == 0:
		i := p.rand.IntN(2)
		p.servers[i] = NewState(p.cfgs[i])
		var list []leases.Lease
		for _, l := range p.disks[i] {
			list = append(list, l)
		}
		p.servers[i].Load(p.now, list)
	case n < 8:
		p.boot(c)
	case n < 12 && c.addr.IsValid():
		p.take(c, p.tell(message(c.mac, ask, ciaddr(c.addr.String())), p.ears()...))
	case n < 14 && c.addr.IsValid():
		// It starts again and remembers its address; while it asks it has none.
		addr := c.addr
		c.addr = netip.Addr{}
		p.take(c, p.tell(message(c.mac, ask, requested(addr.String())), p.ears()...))
	case n < 16 && c.addr.IsValid():
		i := 0
		if c.server == p.cfgs[1].ServerAddress {
			i = 1
		}
		p.tell(message(c.mac, release, ciaddr(c.addr.String()), serverID(c.server.String())), i)
		c.addr = netip.Addr{}
	}
}

// boot is DISCOVER, the choice between offers, REQUEST.
func (p *rivals) boot(c *simClient) {
	c.addr = netip.Addr{}
	offers := p.tell(message(c.mac, discover), p.ears()...)
	if len(offers) == 0 {
		return
	}
	o := offers[p.rand.IntN(len(offers))]
	q := message(c.mac, ask, requested(o.YourIPAddr.String()), serverID(o.ServerIdentifier().String()))
	p.take(c, p.tell(q, p.ears()...))
}

// take is what a client does with the answers to a REQUEST, and the check of this test.
func (p *rivals) take(c *simClient, answers []*dhcpv4.DHCPv4) {
	for _, a := range answers {
		switch a.MessageType() {
		case dhcpv4.MessageTypeNak:
			c.addr = netip.Addr{}
			return
		case dhcpv4.MessageTypeAck:
			p.acks++
			c.addr, _ = netip.AddrFromSlice(a.YourIPAddr.To4())
			c.server, _ = netip.AddrFromSlice(a.ServerIdentifier().To4())
			c.until = p.now.Add(a.IPAddressLeaseTime(0))
		}
	}
	for _, other := range p.clients {
		if other != c && c.addr.IsValid() && other.addr == c.addr && p.now.Before(other.until) {
			p.t.Fatalf("%v was given to %v while %v has it", c.addr, c.mac, other.mac)
		}
	}
}
