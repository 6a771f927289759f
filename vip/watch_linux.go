package vip

import (
	"fmt"
	"net"
	"net/netip"
	"sync"

	"github.com/vishvananda/netlink"
)

// watch tells the routers of an interface when somebody puts one of their addresses on it or takes one away.
type watch struct {
	quit chan struct{}
	done chan struct{}

	mu      sync.Mutex
	routers map[netip.Addr]*Router
	members int
}

// openWatch begins to watch in the namespace of the calling thread.
func openWatch(link *net.Interface) (*watch, error) {
	w := &watch{quit: make(chan struct{}), done: make(chan struct{}), routers: map[netip.Addr]*Router{}}
	updates := make(chan netlink.AddrUpdate, 64)
	if err := netlink.AddrSubscribeWithOptions(updates, w.quit, netlink.AddrSubscribeOptions{ErrorCallback: func(error) {}}); err != nil {
		return nil, fmt.Errorf("watching the addresses of %s: %w", link.Name, err)
	}
	go func() {
		defer close(w.done)
		for u := range updates { // closed after quit is
			if addr, ok := netip.AddrFromSlice(u.LinkAddress.IP); ok && u.LinkIndex == link.Index {
				w.tell(addr.Unmap(), u.NewAddr)
			}
		}
	}()
	return w, nil
}

func (w *watch) tell(addr netip.Addr, added bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if r, ok := w.routers[addr]; ok {
		r.touched(added)
	}
}

// join adds a router. The watch ends when the last one has been closed.
func (w *watch) join(r *Router) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.members++
	for _, a := range r.cfg.addrs() {
		w.routers[a] = r
	}
	closeEdge := r.edge.close
	r.edge.close = func() error {
		err := closeEdge()
		w.leave(r)
		return err
	}
}

func (w *watch) leave(r *Router) {
	w.mu.Lock()
	for _, a := range r.cfg.addrs() {
		delete(w.routers, a)
	}
	w.members--
	last := w.members == 0
	w.mu.Unlock()
	if last {
		close(w.quit)
		<-w.done
	}
}
