package vip

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"everboot/vip/vrrp"
)

// sender sends advertisements.
type sender interface {
	Send(message []byte, from, to netip.Addr) error
}

// wire carries advertisements.
type wire interface {
	sender
	// Receive waits for a packet. It returns net.ErrClosed after the edge was closed.
	Receive() (vrrp.Packet, vrrp.Reason, error)
	// Poll returns a packet that is there already; false: none is.
	Poll() (vrrp.Packet, vrrp.Reason, bool)
}

// table is the interface's table of addresses.
type table interface {
	// Hold puts the floating addresses on the interface for the lifetime, or renews it.
	Hold(lifetime time.Duration) error
	// Drop takes them off, whoever put them there, and returns how many there were.
	Drop() (int, error)
	// Held returns how many of them are on the interface.
	Held() (int, error)
}

// announcer sends one gratuitous ARP in each form, or neighbour advertisement, for each floating address.
type announcer interface{ Announce() error }

// edge is what a Router needs of the host. Everything in it is open, and belongs to the namespace that it was opened in.
type edge struct {
	wire
	table
	announcer
	tickler
	owners  sender // what the owner advertises goes out by it; nil: by the wire
	probes  prober // nil: nobody is asked before a claim
	primary netip.Addr
	auth    *vrrp.Auth // nil: none
	counter *Counter   // of auth
	close   func() error
}

// Router is a node's part in one virtual router. Its goroutine owns the machine and the addresses.
type Router struct {
	cfg   Config
	log   *slog.Logger
	edge  edge
	board board

	priority atomic.Int32
	poke     chan struct{} // says that priority has changed
	releases chan chan error
	touches  chan struct{} // says that somebody changed the interface's addresses
	active   atomic.Bool   // for touched, which other goroutines call
	changes  chan Transition
	ready    chan struct{}
	stopped  chan struct{}
	tickles  chan bool   // true: the same as last time
	holders  chan holder // who answers for the addresses

	// The rest belongs to the goroutine of Run.
	vrrp     vrrp.Config
	machine  *vrrp.Machine
	arrivals chan arrival
	renewAt  time.Time
	announce burst
	tickleAt time.Time       // for the second time
	probeAt  time.Time       // for the second time
	holder   holder          // who answered last
	told     map[Oddity]bool // oddities in the log since the last transition
	mute     bool            // the last advertisement could not be sent
	asked    []chan error    // who waits for a release
	// heardName is what it is called in Config.Heard.
	heardName string

	cameRound time.Time // when the loop last did
	beatAt    time.Time // of the last beat
}

// New checks the configuration and the host, and opens all sockets in the caller's network namespace. Nothing is changed on
// the host and nothing sent before Run. Run closes the sockets; a Router that is not run must be closed.
func New(cfg Config, log *slog.Logger) (*Router, error) {
	routers, err := NewAll([]Config{cfg}, log)
	if err != nil {
		return nil, err
	}
	return routers[0], nil
}

func newRouter(cfg Config, e edge, log *slog.Logger) *Router {
	r := &Router{
		cfg: cfg, log: log.With("vrid", cfg.VRID, "interface", cfg.Interface), edge: e,
		poke: make(chan struct{}, 1), releases: make(chan chan error), touches: make(chan struct{}, 1), changes: make(chan Transition, 16), ready: make(chan struct{}), stopped: make(chan struct{}), tickles: make(chan bool, 1), holders: make(chan holder, 1),
		arrivals: make(chan arrival, 64), told: map[Oddity]bool{},
	}
	r.resume()
	r.vrrp = cfg.machine(e.primary)
	r.machine = vrrp.New(r.vrrp)
	r.priority.Store(int32(cfg.Priority))
	r.board.status = Status{
		State: vrrp.Initialize, Priority: cfg.Priority, Dropped: map[vrrp.Reason]uint64{}, Odd: map[Oddity]uint64{},
		Transitions: map[vrrp.Cause]uint64{},
	}
	return r
}

// Ready is closed when leftovers of an earlier life are gone and the router takes part in the election.
func (r *Router) Ready() <-chan struct{} { return r.ready }

// SetPriority changes the priority: the configured one (or 10 to 254) for a node that is well, 1 to SickPriority for one
// that serves only while nobody else can, 0 for one that must not serve even alone. It never blocks; the last call counts.
func (r *Router) SetPriority(p int) {
	r.priority.Store(int32(min(max(p, 0), vrrp.Owner)))
	select {
	case r.poke <- struct{}{}:
	default: // one is waiting already
	}
}

// Status returns what is known now.
func (r *Router) Status() Status { return r.board.read() }

// Changes returns the transitions, for one reader. If the reader falls 16 behind, the oldest are lost; Status always has
// the last one. The channel is closed when Run ends.
func (r *Router) Changes() <-chan Transition { return r.changes }

// Close closes the sockets of a Router that is not run.
func (r *Router) Close() error { return r.edge.close() }

// Run takes part in the election until the context ends. Then it resigns: it goes on answering until another router has taken
// over, or for vrrp.LeaveTime, takes the addresses away and returns nil. An error means that the host took away what the router
// needs; the addresses are dropped then, too.
func (r *Router) Run(ctx context.Context) error {
	failed, done, tickled, heard := make(chan error, 1), make(chan struct{}), make(chan struct{}), make(chan struct{})
	go r.receive(failed, done)
	go r.tickleAll(tickled)
	go r.hearHolders(heard)
	defer func() {
		close(r.tickles)
		<-tickled
		if err := r.edge.close(); err != nil {
			r.log.Warn("closing the sockets", "error", err)
		}
		r.drain(done)
		<-heard
		r.answerReleases(ErrStopped)
		close(r.stopped)
		close(r.changes)
	}()
	r.cameRound = time.Now()
	r.step(vrrp.Startup{})
	close(r.ready)
	err := r.loop(ctx.Done(), failed)
	if err != nil {
		r.step(vrrp.Shutdown{})
		r.step(vrrp.Shutdown{}) // without a wait for the next owner, who could not be heard
		return fmt.Errorf("receiving advertisements on %s: %w", r.cfg.Interface, err)
	}
	return nil
}

// loop returns when the machine has come to Initialize, or with what failed.
func (r *Router) loop(stop <-chan struct{}, failed <-chan error) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		timer.Reset(time.Until(r.nextChore()))
		var event func()
		select {
		case <-stop:
			stop = nil
			event = func() { r.step(vrrp.Shutdown{}) }
		case err := <-failed:
			return err
		case a := <-r.arrivals:
			event = func() { r.arrived(a) }
		case <-r.poke:
			event = r.takePriority
		case h := <-r.holders:
			event = func() { r.heardHolder(h) }
		case <-r.touches:
			event = r.lookAround
		case answer := <-r.releases:
			event = func() { r.release(answer) }
		case <-timer.C:
			event = func() {}
		}
		r.noticeSleep()
		event()
		r.chores()
		r.settleReleases()
		r.beat()
		if r.machine.State() == vrrp.Initialize {
			return nil
		}
	}
}

func (r *Router) takePriority() {
	p := r.priority.Load()
	r.board.change(func(s *Status) { s.Priority = int(p) })
	r.step(vrrp.SetPriority{Priority: uint8(p)})
}
