package vip

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
)

// watch tells the routers of an interface when somebody puts one of their addresses on it or takes one away.
type watch struct {
	link      *net.Interface
	log       *slog.Logger
	subscribe subscribe
	quit      chan struct{}
	done      chan struct{}

	mu      sync.Mutex
	routers map[netip.Addr]*Router
	members int
}

// subscribe begins to send changes of addresses. It closes updates after done is closed, or when it fails.
type subscribe func(updates chan<- netlink.AddrUpdate, done <-chan struct{}, failed func(error)) error

func subscribeAddresses(updates chan<- netlink.AddrUpdate, done <-chan struct{}, failed func(error)) error {
	return netlink.AddrSubscribeWithOptions(updates, done, netlink.AddrSubscribeOptions{ErrorCallback: failed})
}

// watchAgain paces subscriptions that fail.
const watchAgain = time.Second

// openWatch begins to watch in the namespace of the calling thread.
func openWatch(link *net.Interface, log *slog.Logger) (*watch, error) {
	return startWatch(link, subscribeAddresses, log)
}

func startWatch(link *net.Interface, s subscribe, log *slog.Logger) (*watch, error) {
	w := &watch{
		link: link, log: log.With("interface", link.Name), subscribe: s,
		quit: make(chan struct{}), done: make(chan struct{}), routers: map[netip.Addr]*Router{},
	}
	updates, stop, err := w.begin()
	if err != nil {
		return nil, fmt.Errorf("watching the addresses of %s: %w", link.Name, err)
	}
	go func() {
		defer close(w.done)
		for w.follow(updates, stop) {
			updates, stop = w.again()
		}
	}()
	return w, nil
}

func (w *watch) begin() (<-chan netlink.AddrUpdate, chan struct{}, error) {
	updates, stop := make(chan netlink.AddrUpdate, 64), make(chan struct{})
	err := w.subscribe(updates, stop, func(err error) {
		select {
		case <-stop: // the error is that it was told to
		default:
			w.log.Warn("watching the addresses", "error", err)
		}
	})
	return updates, stop, err
}

// follow tells what a subscription says, until it fails (true) or the watch ends.
func (w *watch) follow(updates <-chan netlink.AddrUpdate, stop chan struct{}) (failed bool) {
	for {
		select {
		case <-w.quit:
			close(stop)
			for range updates { // it may be about to send
			}
			return false
		case u, open := <-updates:
			if !open {
				close(stop)
				return true
			}
			if addr, ok := netip.AddrFromSlice(u.LinkAddress.IP); ok {
				w.tell(addr.Unmap(), u.LinkIndex, u.NewAddr)
			}
		}
	}
}

// again subscribes anew after a failure: netlink ends a subscription at any error, such as a queue that was full for a moment. What happened
// meanwhile nobody said, so every router looks. When the watch ends it returns a subscription that ends, too.
func (w *watch) again() (<-chan netlink.AddrUpdate, chan struct{}) {
	for {
		select {
		case <-w.quit:
			none := make(chan netlink.AddrUpdate)
			close(none)
			return none, make(chan struct{})
		case <-time.After(watchAgain):
		}
		updates, stop, err := w.begin()
		if err != nil {
			w.log.Warn("watching the addresses again", "error", err)
			continue
		}
		w.tellAll()
		return updates, stop
	}
}

func (w *watch) tellAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.routers {
		r.touched(true)
		r.touched(false)
	}
}

// tell tells the router of an address. One with a virtual MAC address has it on another interface, which may be made anew.
func (w *watch) tell(addr netip.Addr, link int, added bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if r, ok := w.routers[addr]; ok && (link == w.link.Index || r.cfg.VirtualMAC) {
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

// over reports whether the last router has left.
func (w *watch) over() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.members == 0
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
