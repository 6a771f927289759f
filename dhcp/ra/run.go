package ra

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/mdlayher/ndp"
	"golang.org/x/net/ipv6"
)

// conn is a socket for neighbour discovery.
type conn interface {
	ReadFrom() (ndp.Message, *ipv6.ControlMessage, netip.Addr, error)
	WriteTo(m ndp.Message, cm *ipv6.ControlMessage, dst netip.Addr) error
	Close() error
}

const (
	tickEach = 500 * time.Millisecond
	// reopenAfter is the pause before the socket is opened again, when it failed or the interface has no link-local address yet.
	reopenAfter = 2 * time.Second
)

// Advertiser answers solicitations on one interface.
type Advertiser struct {
	link  string
	net   netip.Prefix
	log   *slog.Logger
	ready chan struct{}
	open  func(link string) (conn, error)

	mu      sync.Mutex
	machine *Machine
}

// NewAdvertiser returns an advertiser for an interface, on which DHCPv6 serves a network, or none if that is zero. Nothing is opened before Run.
func NewAdvertiser(link string, network netip.Prefix, log *slog.Logger) *Advertiser {
	return &Advertiser{link: link, net: network, log: log, ready: make(chan struct{}), open: listen, machine: New(time.Now(), network)}
}

// Ready is closed when Run has begun. It waits for no address: IPv6 may be off, and that is no reason to hold up anything.
func (a *Advertiser) Ready() <-chan struct{} { return a.ready }

// Router returns the other router that advertises here, which is why this node does not.
func (a *Advertiser) Router() (netip.Addr, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.machine.Router(time.Now())
}

// Run advertises until ctx ends.
func (a *Advertiser) Run(ctx context.Context) error {
	close(a.ready)
	for said := ""; ; {
		err := a.serve(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil && said != err.Error() {
			said = err.Error()
			a.log.Warn("no router advertisements yet", "interface", a.link, "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(reopenAfter):
		}
	}
}

func (a *Advertiser) serve(ctx context.Context) error {
	c, err := a.open(a.link)
	if err != nil {
		return err
	}
	a.mu.Lock()
	a.machine = New(time.Now(), a.net)
	a.mu.Unlock()
	failed := make(chan error, 1)
	go func() { failed <- a.read(c) }()
	tick := time.NewTicker(tickEach)
	defer tick.Stop()
	for {
		a.send(c, func(m *Machine, now time.Time) []Send { return m.Tick(now) })
		select {
		case <-ctx.Done():
			c.Close()
			<-failed
			return nil
		case err := <-failed:
			c.Close()
			return err
		case <-tick.C:
		}
	}
}

func (a *Advertiser) read(c conn) error {
	for {
		msg, cm, from, err := c.ReadFrom()
		if err != nil {
			return fmt.Errorf("receiving: %w", err)
		}
		if cm == nil || cm.HopLimit != ndp.HopLimit {
			continue // from beyond a router (RFC 4861 §6.1)
		}
		a.send(c, func(m *Machine, now time.Time) []Send {
			_, before := m.Router(now)
			list := m.Heard(now, from.WithZone(""), msg)
			if router, after := m.Router(now); after && !before {
				a.log.Info("another router advertises here; we do not", "interface", a.link, "router", router)
			}
			return list
		})
	}
}

func (a *Advertiser) send(c conn, decide func(*Machine, time.Time) []Send) {
	a.mu.Lock()
	list := decide(a.machine, time.Now())
	a.mu.Unlock()
	for _, s := range list {
		if err := c.WriteTo(s.Message, nil, s.To); err != nil && !errors.Is(err, net.ErrClosed) {
			a.log.Debug("sending to a neighbour", "to", s.To, "error", err)
		}
	}
}

// listen opens the socket, in the network namespace of the calling thread.
func listen(link string) (conn, error) {
	iface, err := net.InterfaceByName(link)
	if err != nil {
		return nil, fmt.Errorf("finding interface %s: %w", link, err)
	}
	c, _, err := ndp.Listen(iface, ndp.LinkLocal)
	if err != nil {
		return nil, fmt.Errorf("opening an ICMPv6 socket on %s: %w; it needs an IPv6 link-local address", link, err)
	}
	var filter ipv6.ICMPFilter
	filter.SetAll(true)
	filter.Accept(ipv6.ICMPTypeRouterSolicitation)
	filter.Accept(ipv6.ICMPTypeRouterAdvertisement)
	err = errors.Join(c.SetICMPFilter(&filter), c.SetControlMessage(ipv6.FlagHopLimit, true), c.JoinGroup(allRouters), c.JoinGroup(allNodes))
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("preparing an ICMPv6 socket on %s: %w", link, err)
	}
	return c, nil
}
