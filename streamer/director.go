package streamer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"everboot/site"
)

// Director takes iSCSI logins and sends each to a streamer.
type Director struct {
	cfg    DirectorConfig
	view   func() *site.View
	events func(site.Event)
	log    *slog.Logger

	ready   chan struct{}
	changed chan struct{} // a new view: look for sessions that must move
	lobby   *lobby
	gate    gate
	waiting sleepers
	pool    pool
	table   *table
	counts  counts

	rebalancing sync.Mutex
}

// NewDirector returns a director that asks view for the site as it is now, never nil, and tells events what happened. Both are
// called by many goroutines and must not block.
func NewDirector(cfg DirectorConfig, view func() *site.View, events func(site.Event), log *slog.Logger) (*Director, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	d := &Director{
		cfg: cfg, view: view, events: events, log: log,
		ready: make(chan struct{}), changed: make(chan struct{}, 1),
		lobby: newLobby(cfg.MaxLogins), table: newTable(),
	}
	d.gate.resize(0)
	return d, nil
}

// Ready closes when all addresses listen.
func (d *Director) Ready() <-chan struct{} { return d.ready }

// Run takes logins until ctx ends. Then it goes in an order that costs initiators least: the listeners fall silent (a lost SYN
// costs open-iscsi 1 s, a refused one 3 s, and a connection that is reset before its first PDU can hang it), logins under way
// are told to come back, and every session is closed, so that initiators go elsewhere at once.
func (d *Director) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	life, end := context.WithCancel(context.WithoutCancel(ctx)) // of sessions
	defer end()
	listeners, err := d.listen()
	defer func() {
		for _, l := range listeners {
			l.Close()
		}
	}()
	if err != nil {
		return err
	}
	var all, logins sync.WaitGroup
	failed := make(chan error, len(listeners))
	for _, l := range listeners {
		logins.Go(func() { failed <- d.accept(ctx, l, func(conn net.Conn) { d.start(ctx, life, conn, &all, &logins) }) })
	}
	all.Go(func() { d.move(ctx) })
	all.Go(func() { d.watch(ctx) })
	if d.cfg.RebalanceAbove > 0 {
		all.Go(func() { d.balance(ctx) })
	}
	close(d.ready)
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	cancel()
	for _, l := range listeners {
		fallSilent(l)
	}
	logins.Wait()
	end()
	all.Wait()
	return err
}

// listen opens the listeners. After an error it returns those that are open.
func (d *Director) listen() ([]net.Listener, error) {
	var listeners []net.Listener
	for _, address := range d.cfg.Listen {
		l, err := d.cfg.ListenFunc("tcp", address)
		if errors.Is(err, syscall.EADDRINUSE) {
			return listeners, fmt.Errorf("listening for iSCSI logins on %s: %w; stop the other iSCSI target of this host, or set another address", address, err)
		}
		if err != nil {
			return listeners, fmt.Errorf("listening for iSCSI logins on %s: %w", address, err)
		}
		listeners = append(listeners, l)
	}
	return listeners, nil
}

// accept takes connections until the listener's deadline, which fallSilent sets. It returns nil when ctx has ended.
func (d *Director) accept(ctx context.Context, l net.Listener, start func(net.Conn)) error {
	for {
		conn, err := l.Accept()
		switch {
		case err == nil:
			start(conn)
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("taking iSCSI logins on %s: %w", l.Addr(), err)
		default: // out of file descriptors, or a connection that was reset before we took it
			d.log.Warn("taking an iSCSI login", "error", err)
			pause(ctx, retryPause)
		}
	}
}

// start leads a connection in a goroutine of its own. It counts as a login until it is a session or has been answered.
func (d *Director) start(ctx, life context.Context, conn net.Conn, all, logins *sync.WaitGroup) {
	if loops(d.view(), conn) {
		d.counts.drop(DropLoop)
		reset(conn)
		return
	}
	g := d.lobby.enter(conn)
	logins.Add(1)
	all.Go(func() { d.serve(ctx, life, g, sync.OnceFunc(logins.Done)) })
}

func pause(ctx context.Context, t time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(t):
	}
}

// Update is called with each new view. It closes the sessions of streamers that are down or gone, or whose replica is another
// now, at once, and wakes held logins. A session that no other streamer could take is left alone: closing it would help nobody, and if the
// probe erred the target goes on.
func (d *Director) Update(v *site.View) {
	d.pool.forget(v)
	d.gate.resize(takers(v))
	elsewhere := d.elsewhere(v, time.Now())
	for _, s := range d.table.all() {
		st, ok := v.Streamers[s.Streamer]
		switch {
		case !ok || st.Check.Health == site.Down:
			if elsewhere(s) {
				s.end(endDown, true)
			}
		case !st.Has(s.login):
			if elsewhere(s) {
				s.end(endDiffers, true)
			}
		}
	}
	d.waiting.wake()
	select {
	case d.changed <- struct{}{}:
	default:
	}
}

// takers returns how many streamers of a view take logins.
func takers(v *site.View) int {
	n := 0
	for _, s := range v.Streamers {
		if s.Check.Health == site.Up && s.State != site.Draining {
			n++
		}
	}
	return n
}

// elsewhere returns a function that says whether another streamer than its own could serve a session. It asks once for each vDisk
// version and streamer.
func (d *Director) elsewhere(v *site.View, now time.Time) func(*session) bool {
	type key struct {
		vdisk    string
		version  int
		digest   site.Digest
		streamer string
		from     netip.Addr // only where it matters
	}
	known := make(map[key]bool)
	return func(s *session) bool {
		k := key{s.login.VDisk, s.login.Version, s.login.Digest, s.Streamer, netip.Addr{}}
		if v.VDisks[k.vdisk].Affinity == site.FixedAffinity {
			k.from = s.login.From
		}
		can, ok := known[k]
		if !ok {
			l := s.login
			l.Tried = append(d.pool.silent(now, v), s.Streamer)
			_, reason := site.Pick(v, l)
			can = reason == site.Picked
			known[k] = can
		}
		return can
	}
}

// move ends the sessions of draining streamers, paced, as far as another streamer can take them: those that go through here, and then the redirected ones.
func (d *Director) move(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.changed:
		}
		for _, s := range append(d.table.all(), d.table.away()...) {
			v := d.view()
			if v.Streamers[s.Streamer].State != site.Draining || !d.elsewhere(v, time.Now())(s) {
				continue
			}
			d.leave(ctx, s, endDrain)
			pause(ctx, d.cfg.DrainPace)
			if ctx.Err() != nil {
				return
			}
		}
	}
}

// Sessions returns the sessions of now, the oldest first.
func (d *Director) Sessions() []Session {
	var list []Session
	for _, s := range d.table.all() {
		c := s.Session
		c.BytesIn, c.BytesOut = tcpBytes(s.initiator)
		if at := s.blockAt.Load(); at != 0 {
			c.FirstBlock = time.Unix(0, at)
		}
		if r, ok := d.table.last(s.Device); ok {
			c.Stall, c.StallAt = r.stall, r.stallAt
		}
		list = append(list, c)
	}
	slices.SortFunc(list, func(a, b Session) int { return a.Since.Compare(b.Since) })
	return list
}

func (d *Director) event(mac site.MAC, what, detail string) {
	d.events(site.Event{At: time.Now(), MAC: mac, What: what, Detail: detail})
}
