package vip

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"everboot/vip/vrrp"
)

// cable is an Ethernet in memory. It belongs to the bubble of one test.
type cable struct {
	mu    sync.Mutex
	ports []*port
}

// port is a host at the cable: the edge of one router. Its table forgets addresses as the kernel does.
type port struct {
	cable     *cable
	addr      netip.Addr
	queue     chan vrrp.Packet
	closed    chan struct{}
	silent    bool
	until     time.Time // of the addresses' lifetime
	announced []time.Time
	did       []string // what was done, in its order
	tickled   []string // to whom, and when
	holdError error
	asked     []time.Time // probes
	answers   chan holder
	hushed    chan struct{} // closed when no answer is wanted any more
	silence   func()        // closes it
}

func (c *cable) port(addr string) *port {
	p := &port{cable: c, addr: netip.MustParseAddr(addr), queue: make(chan vrrp.Packet, 1000), closed: make(chan struct{}), answers: make(chan holder), hushed: make(chan struct{})}
	p.silence = sync.OnceFunc(func() { close(p.hushed) })
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ports = append(c.ports, p)
	return p
}

func (p *port) edge() edge {
	return edge{wire: p, table: p, announcer: p, tickler: p, probes: portProber{p}, primary: p.addr, close: func() error { close(p.closed); p.silence(); return nil }}
}

// portProber is how a port asks for the addresses. Who answers the test says.
type portProber struct{ *port }

func (p portProber) Probe() error {
	p.set(func() { p.asked = append(p.asked, time.Now()) })
	return nil
}

func (p portProber) Answer() (holder, bool) {
	select {
	case h := <-p.answers:
		return h, true
	case <-p.hushed:
		return holder{}, false
	}
}

func (p portProber) Close() error { p.silence(); return nil }

func (p *port) Send(message []byte, from, to netip.Addr) error {
	p.cable.mu.Lock()
	defer p.cable.mu.Unlock()
	p.did = append(p.did, fmt.Sprintf("advertise %d", message[2]))
	for _, other := range p.cable.ports {
		if other != p && !p.silent && !other.silent {
			other.queue <- vrrp.Packet{Source: from, Destination: to, TTL: 255, Payload: message}
		}
	}
	return nil
}

func (p *port) Receive() (vrrp.Packet, vrrp.Reason, error) {
	select {
	case packet := <-p.queue:
		return packet, vrrp.Accepted, nil
	case <-p.closed:
		return vrrp.Packet{}, vrrp.Accepted, net.ErrClosed
	}
}

func (p *port) Poll() (vrrp.Packet, vrrp.Reason, bool) {
	select {
	case packet := <-p.queue:
		return packet, vrrp.Accepted, true
	default:
		return vrrp.Packet{}, vrrp.Accepted, false
	}
}

func (p *port) Hold(lifetime time.Duration) error {
	p.cable.mu.Lock()
	defer p.cable.mu.Unlock()
	if p.holdError != nil {
		return p.holdError
	}
	if !p.until.After(time.Now()) {
		p.did = append(p.did, "add")
	}
	p.until = time.Now().Add(lifetime)
	return nil
}

func (p *port) Drop() (int, error) {
	p.cable.mu.Lock()
	defer p.cable.mu.Unlock()
	p.did = append(p.did, "drop")
	had := p.until.After(time.Now())
	p.until = time.Time{}
	if had {
		return 1, nil
	}
	return 0, nil
}

func (p *port) Held() (int, error) {
	if p.holds() {
		return 1, nil
	}
	return 0, nil
}

func (p *port) Announce() error {
	p.cable.mu.Lock()
	defer p.cable.mu.Unlock()
	p.announced = append(p.announced, time.Now())
	p.did = append(p.did, "announce")
	return nil
}

func (p *port) Tickle(packet []byte, to netip.Addr) error {
	p.cable.mu.Lock()
	defer p.cable.mu.Unlock()
	p.tickled = append(p.tickled, fmt.Sprintf("%s %x", to, packet[20:24]))
	return nil
}

func (p *port) set(f func()) {
	p.cable.mu.Lock()
	defer p.cable.mu.Unlock()
	f()
}

// done returns what was done so far.
func (p *port) done() []string {
	p.cable.mu.Lock()
	defer p.cable.mu.Unlock()
	return slices.Clone(p.did)
}

// announcements returns when it announced.
func (p *port) announcements() []time.Time {
	p.cable.mu.Lock()
	defer p.cable.mu.Unlock()
	return slices.Clone(p.announced)
}

func (p *port) holds() bool {
	p.cable.mu.Lock()
	defer p.cable.mu.Unlock()
	return p.until.After(time.Now())
}
