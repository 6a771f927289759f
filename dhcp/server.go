package dhcp

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"everboot/dhcp/leases"
	"everboot/dhcp/pair"
	"everboot/site"
)

const (
	// reopenAfter is the pause before the sockets are opened again when one of them failed, such as when the interface went away.
	reopenAfter = time.Second
)

// Server is the DHCP service of one interface.
type Server struct {
	cfg     Config
	view    func() *site.View
	events  func(site.Event)
	log     *slog.Logger
	local   netip.Prefix
	ready   chan struct{}
	queue   chan question
	peers   chan []byte // what peers tell
	free    chan freeing
	recalls chan recalled
	listen  func(Config, inbox) (transport, error)
	arp     func(link string, seen func(netip.Addr, site.MAC)) (prober, error) // nil: offers are not probed

	sightings chan sighting
	probes    atomic.Int32 // len(probing)

	opened bool

	turn    sync.Mutex // guards what follows: who has it answers. It is taken before disk's, and before mu
	answers bool       // false: nobody answers yet, or any more
	now     struct {   // what was answered at once lately
		since time.Time
		count int
	}
	syncedAt  time.Time
	prober    prober // nil: there is none
	probing   map[netip.Addr]probe
	peersWere []pair.Peer

	due       atomic.Bool // tellTimer runs
	tellTimer *time.Timer // when peers are told what changed
	disk      disk
	direct    atomic.Bool               // who reads messages writes, too
	failing   atomic.Bool               // the last write failed, and is tried again
	writing   atomic.Pointer[time.Time] // since when a write is under way; nil: none is

	store     store                       // who has the turn at the disk writes to it. So it is with what follows
	unwritten map[netip.Addr]leases.Lease // what nobody asks for again if it was not written
	pace      pace
	written   time.Time // when the last write began

	net transport

	mu      sync.Mutex // guards what follows
	state   *State
	held    held
	limiter limiter
	stats   Stats
	clashed clashes // in pages
}

// New returns a server. Nothing is opened before Open or Run. view may return nil; events must not block, and may be nil.
func New(cfg Config, view func() *site.View, events func(site.Event), log *slog.Logger) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.QueueLength == 0 {
		cfg.QueueLength = DefaultQueueLength
	}
	if events == nil {
		events = func(site.Event) {}
	}
	s := &Server{
		cfg: cfg, view: view, events: events, log: log, listen: listen, arp: listenARP,
		sightings: make(chan sighting, 64), probing: make(map[netip.Addr]probe),
		ready: make(chan struct{}), queue: make(chan question, cfg.QueueLength), peers: make(chan []byte, peerQueue), free: make(chan freeing), recalls: make(chan recalled),
		disk: newDisk(), tellTimer: time.NewTimer(peerPace), unwritten: make(map[netip.Addr]leases.Lease),
		state: NewState(cfg), stats: newStats(),
	}
	i := slices.IndexFunc(cfg.Subnets, func(sub Subnet) bool { return sub.Network.Contains(cfg.ServerAddress) })
	s.local = cfg.Subnets[i].Network
	return s, nil
}

// Open opens the lease file and the sockets, in the network namespace of the calling thread. Run does it if nobody did. After
// Open, Run must be called: it closes them.
func (s *Server) Open() error {
	st, list, err := leases.Open(s.cfg.LeaseFile)
	if err != nil {
		return err
	}
	now := time.Now()
	s.mu.Lock()
	stale := s.state.Load(now, list)
	if s.cfg.Tell != nil {
		s.state.Join(now, rand.Uint64(), st.Synced())
	}
	s.mu.Unlock()
	err = st.Delete(stale)
	if err == nil && len(list) == 0 && st.Synced().IsZero() {
		err = s.recallAll(st)
	}
	if err != nil {
		st.Close()
		return err
	}
	if s.net, err = s.listen(s.cfg, inbox{s.receive, s.drained}); err != nil {
		st.Close()
		return err
	}
	s.store, s.opened = st, true
	s.log.Info("DHCP serves", "interface", s.cfg.Interface, "server", s.cfg.ServerAddress, "leases", len(list)-len(stale))
	return nil
}

// Ready is closed when messages are answered.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// Run serves until ctx ends, and closes what Open opened. When a socket fails, it is opened again until it works.
func (s *Server) Run(ctx context.Context) error {
	if !s.opened {
		if err := s.Open(); err != nil {
			return err
		}
	}
	defer s.store.Close()
	close(s.ready)
	for {
		err := s.serve(ctx)
		if ctx.Err() != nil {
			return nil
		}
		s.log.Error("DHCP lost its sockets; opening them again", "interface", s.cfg.Interface, "error", err)
		if !s.reopen(ctx) {
			return nil
		}
		s.log.Info("DHCP serves again", "interface", s.cfg.Interface)
	}
}

// reopen opens the sockets, as often as it takes, and reports whether it did before ctx ended.
func (s *Server) reopen(ctx context.Context) bool {
	for said := ""; ; {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(reopenAfter):
		}
		var err error
		if s.net, err = s.listen(s.cfg, inbox{s.receive, s.drained}); err == nil {
			return true
		}
		if said != err.Error() {
			said = err.Error()
			s.log.Warn("DHCP cannot open its sockets yet", "interface", s.cfg.Interface, "error", err)
		}
	}
}

// serve answers messages until ctx ends or the transport fails. Who has the turn owns the state, and who has the turn at the disk that: the next answers are
// made while it is busy, and all that were made meanwhile go to it in one write.
func (s *Server) serve(ctx context.Context) error {
	s.openProber()
	failed := make(chan error, 1)
	go func() {
		failed <- s.net.Wait()
		close(failed)
	}()
	ended := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() { s.writeRest(ended) })
	s.answerTurns(true)
	err := s.answer(ctx, failed)
	s.answerTurns(false)
	close(ended)
	writer.Wait()
	s.disk.turn <- struct{}{} // nobody writes and sends from here on
	defer func() { <-s.disk.turn }()
	s.net.Close()
	if s.prober != nil {
		s.prober.Close()
	}
	clear(s.probing)
	for range failed {
	}
	s.net = nil
	return err
}

func (s *Server) handle(now time.Time, q question) (outgoing, bool) {
	s.mu.Lock()
	if len(q.ClientHWAddr) == len(site.MAC{}) && !s.limiter.allows(now, site.MAC(q.ClientHWAddr)) {
		s.stats.Reasons[TooMany]++
		s.mu.Unlock()
		return outgoing{}, false
	}
	reply, effects := decide(now, s.view(), q, s.state)
	s.stats.count(effects.Decision)
	s.held.keep(now, effects.Decision.Reason, q)
	s.mu.Unlock()
	for _, e := range effects.Events {
		s.events(e)
	}
	if s.log.Enabled(context.Background(), slog.LevelDebug) {
		s.log.Debug("DHCP", "mac", effects.Decision.MAC, "decision", effects.Decision)
	}
	o := outgoing{save: effects.Save, probe: effects.Probe}
	if reply != nil {
		o.payload, o.to = reply.ToBytes(), destinationOf(q.DHCPv4, reply, s.local)
		if ciaddr, _ := headerAddr(q.ClientIPAddr); ciaddr.IsValid() || q.to == s.cfg.serverID() {
			o.to.from = s.cfg.serverID() // it asked there, and its firewall lets in nothing else
		}
	}
	return o, reply != nil || len(o.save) > 0
}

// Leases returns every lease by address: bound ones, offers, and those that are free again.
func (s *Server) Leases() []leases.Lease {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state.Leases(time.Now())
}

// LeaseAt returns what is known of an address. It costs little however many leases there are: TFTP and HTTP ask for each request.
func (s *Server) LeaseAt(a netip.Addr) (leases.Lease, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state.table.At(time.Now(), a)
}

// Live returns how many addresses are given to nobody else.
func (s *Server) Live() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state.table.Live(time.Now())
}

// LiveOf returns the lowest address that a machine has, whatever it calls itself.
func (s *Server) LiveOf(mac site.MAC) (leases.Lease, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state.table.LiveOf(time.Now(), mac)
}

// Note takes a decision of the DHCPv6 service, so that what became of a machine's messages is in one place. It never blocks.
func (s *Server) Note(d Decision) {
	view := s.view()
	if view == nil {
		view = &site.View{}
	}
	s.mu.Lock()
	s.stats.count(d)
	s.mu.Unlock()
	for _, e := range events(view, d) {
		s.events(e)
	}
}

// First reports whether this node is first to answer a client, by whatever name the client has.
func (s *Server) First(client string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state.pair == nil || s.state.pair.First(leases.Client(client))
}

// Stats returns the counters since New.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats.clone()
}
