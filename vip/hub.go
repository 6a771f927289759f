package vip

import (
	"net"
	"net/netip"
	"sync"

	"everboot/vip/vrrp"
)

// hub lets several routers of one interface share a socket. Each would otherwise be woken by the advertisements of all.
type hub struct {
	wire  sharedWire
	done  chan struct{} // closed when the receiver has ended
	err   error         // why it did; read it when done is closed
	mu    sync.Mutex
	ports map[uint8]*hubPort
	first *hubPort // takes what is nobody's, so that it is counted once
}

// sharedWire is the socket of a hub, which belongs to it.
type sharedWire interface {
	wire
	Close() error
}

// hubPort is a router's part of a hub.
type hubPort struct {
	hub    *hub
	vrid   uint8
	queue  chan arrival
	closed chan struct{}
}

// hubQueue is how many packets may wait for one router. It is never behind by more than a few: what finds the queue full is lost as
// it would be in a full socket.
const hubQueue = 64

func newHub(w sharedWire) *hub {
	h := &hub{wire: w, done: make(chan struct{}), ports: map[uint8]*hubPort{}}
	go h.receive()
	return h
}

func (h *hub) port(vrid uint8) *hubPort {
	p := &hubPort{hub: h, vrid: vrid, queue: make(chan arrival, hubQueue), closed: make(chan struct{})}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ports[vrid] = p
	if h.first == nil {
		h.first = p
	}
	return p
}

func (h *hub) receive() {
	defer close(h.done)
	for {
		p, reason, err := h.wire.Receive()
		if err != nil {
			h.err = err
			return
		}
		h.deliver(arrival{packet: p, reason: reason})
	}
}

// deliver gives a packet to the router that it is for.
func (h *hub) deliver(a arrival) {
	h.mu.Lock()
	defer h.mu.Unlock()
	to := h.first
	if len(a.packet.Payload) > 1 {
		if p, ok := h.ports[a.packet.Payload[1]]; ok {
			to = p
		}
	}
	if to == nil {
		return
	}
	select {
	case to.queue <- a:
	default:
	}
}

// leave takes a port out and closes the socket with the last one.
func (h *hub) leave(p *hubPort) error {
	h.mu.Lock()
	delete(h.ports, p.vrid)
	if h.first == p {
		h.first = nil
		for _, h.first = range h.ports {
			break
		}
	}
	last := len(h.ports) == 0
	h.mu.Unlock()
	close(p.closed)
	if !last {
		return nil
	}
	err := h.wire.Close()
	<-h.done
	return err
}

// over reports whether the last port was closed.
func (h *hub) over() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.ports) == 0
}

// Send implements wire.
func (p *hubPort) Send(message []byte, from, to netip.Addr) error {
	return p.hub.wire.Send(message, from, to)
}

// Receive implements wire.
func (p *hubPort) Receive() (vrrp.Packet, vrrp.Reason, error) {
	select {
	case a := <-p.queue:
		return a.packet, a.reason, nil
	case <-p.closed:
		return vrrp.Packet{}, vrrp.Accepted, net.ErrClosed
	case <-p.hub.done:
		return vrrp.Packet{}, vrrp.Accepted, p.hub.err
	}
}

// Poll implements wire. It empties the socket for all.
func (p *hubPort) Poll() (vrrp.Packet, vrrp.Reason, bool) {
	for {
		packet, reason, ok := p.hub.wire.Poll()
		if !ok {
			break
		}
		p.hub.deliver(arrival{packet: packet, reason: reason})
	}
	select {
	case a := <-p.queue:
		return a.packet, a.reason, true
	default:
		return vrrp.Packet{}, vrrp.Accepted, false
	}
}

// Close closes the router's part.
func (p *hubPort) Close() error { return p.hub.leave(p) }
