package streamer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"everboot/site"
)

// Registrar is where an agent announces its streamer.
type Registrar interface {
	// Announce tells what the streamer is and holds, and returns the state that the operator wants of it. The registry forgets
	// a streamer that stops to announce.
	Announce(ctx context.Context, s site.Streamer) (wanted site.StreamerState, err error)
	// Withdraw takes the streamer out.
	Withdraw(ctx context.Context, name string) error
}

// AgentConfig is the settings of an Agent.
type AgentConfig struct {
	Node      string // the streamer's name
	Site      string
	Addresses []netip.AddrPort // iSCSI portals, one a NIC
	VRIDs     []int            // of the addresses, if they float
	Power     float64          // relative; 1.0 if zero
	StorePath string
	// StoreShared says that other streamers have the same folder.
	StoreShared bool

	// Every is the time between announcements and looks at the store: 1 s.
	Every time.Duration
	// Grace is how long a stop waits for the sessions to move to other streamers: 10 s.
	Grace time.Duration
	// Settle is how long a replica must have been left alone before it is read: 2 s.
	Settle time.Duration
	// DrainPace is the time between two sessions that are cut when the grace is over: 10 ms.
	DrainPace time.Duration
}

// Validate returns an error that says which setting is wrong.
func (c AgentConfig) Validate() error {
	if err := site.CheckName("node", c.Node); err != nil {
		return err
	}
	if err := site.CheckName("site", c.Site); err != nil {
		return err
	}
	switch {
	case len(c.Addresses) == 0:
		return errors.New("iscsi: no addresses; name one a NIC, such as 198.18.0.21:3260")
	case c.Power < 0:
		return fmt.Errorf("iscsi power %g: use a number above 0; 1.0 is usual", c.Power)
	case c.StorePath == "":
		return errors.New("store: no path")
	case strings.ContainsAny(c.StorePath, ",\n"):
		return fmt.Errorf("store path %q: use one without a comma; iSCSI targets cannot name such a file", c.StorePath)
	case c.Every < 0 || c.Grace < 0 || c.Settle < 0 || c.DrainPace < 0:
		return errors.New("streamer: a time is negative; leave it out for the default")
	}
	return nil
}

func (c AgentConfig) withDefaults() AgentConfig {
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&c.Every, time.Second}, {&c.Grace, 10 * time.Second}, {&c.Settle, 2 * time.Second}, {&c.DrainPace, 10 * time.Millisecond},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	if c.Power == 0 {
		c.Power = 1
	}
	return c
}

// Agent makes one node a streamer. One goroutine, Run, owns everything but the announcements and the reading of new replicas.
type Agent struct {
	cfg    AgentConfig
	engine Engine
	log    *slog.Logger
	store  *Store
	ready  chan struct{}
	herald *herald
	reader *reader

	digests map[Disk]site.Digest
	exports []Export       // what the engine serves
	served  []site.Replica // the same, for the announcement
	ended   <-chan error   // the engine's end; nil while it does not run
	started time.Time
	retry   time.Time // when the engine may be started again
	backoff time.Duration
	failure string // the last error of the engine that was logged
}

// NewAgent returns an agent that has done nothing yet.
func NewAgent(cfg AgentConfig, engine Engine, registrar Registrar, log *slog.Logger) (*Agent, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	store := NewStore(cfg.StorePath, log)
	store.Shared = cfg.StoreShared
	return &Agent{
		cfg: cfg, engine: engine, log: log, store: store, ready: make(chan struct{}), digests: make(map[Disk]site.Digest),
		herald: newHerald(registrar, cfg.Every, log), reader: newReader(store, log),
	}, nil
}

// Ready closes when the engine serves what was found in the store with a known digest.
func (a *Agent) Ready() <-chan struct{} { return a.ready }

// Run serves until ctx ends, and then says goodbye: it announces that it drains, waits until the sessions have moved, cuts those that
// have not, withdraws, and stops the engine. If the engine cannot be started at all, Run returns that error.
func (a *Agent) Run(ctx context.Context) error {
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	var all sync.WaitGroup
	defer all.Wait()
	defer a.awaitEngine()
	defer stop()
	if err := a.scan(life); err != nil {
		return err
	}
	if err := a.start(life); err != nil {
		return fmt.Errorf("starting the iSCSI target: %w", err)
	}
	reading, cancelReading := context.WithCancel(ctx)
	defer cancelReading()
	all.Go(func() { a.reader.run(reading) })
	all.Go(func() { a.herald.run(life) })
	a.announce(life, site.Active)
	close(a.ready)
	tick := time.NewTicker(a.cfg.Every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			a.goodbye(life)
			return nil
		case err := <-a.ended:
			a.engineEnded(err)
			a.announce(life, site.Active) // without replicas, at once
			continue
		case r := <-a.reader.results:
			a.digests[r.disk] = r.digest
		case <-tick.C:
		case <-a.retryTimer():
		}
		a.step(life)
	}
}

// retryTimer is nil while the engine runs.
func (a *Agent) retryTimer() <-chan time.Time {
	if a.ended != nil {
		return nil
	}
	return time.After(max(0, time.Until(a.retry)))
}

func (a *Agent) awaitEngine() {
	if a.ended != nil {
		<-a.ended
	}
}

// step brings the engine in line with the store, and tells the site.
func (a *Agent) step(ctx context.Context) {
	if err := a.scan(ctx); err != nil {
		a.complain(err)
		a.retry = time.Now().Add(a.cfg.Every)
		return
	}
	if a.ended == nil {
		if time.Now().Before(a.retry) {
			return
		}
		if err := a.start(ctx); err != nil {
			a.engineEnded(err)
			return
		}
	}
	a.announce(ctx, site.Active)
}

// complain logs what is new.
func (a *Agent) complain(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != a.failure && err != nil {
		a.log.Error("streaming", "error", err)
	}
	a.failure = text
}

const (
	minBackoff = 100 * time.Millisecond
	maxBackoff = 5 * time.Second
	// stable is how long an engine must have run for its next death to be an accident, not a habit.
	stable = 10 * time.Second
)

func (a *Agent) engineEnded(err error) {
	if a.ended != nil && time.Since(a.started) > stable {
		a.backoff = 0
	}
	a.backoff = min(max(2*a.backoff, minBackoff), maxBackoff)
	a.retry = time.Now().Add(a.backoff)
	a.ended, a.exports, a.served = nil, nil, nil
	a.log.Error("the iSCSI target ended; starting it again", "error", err, "in", a.backoff)
}

func (a *Agent) start(ctx context.Context) error {
	exports, replicas := a.wanted()
	ended, err := a.engine.Start(ctx, exports)
	if err != nil {
		return err
	}
	a.ended, a.exports, a.served, a.started = ended, exports, replicas, time.Now()
	a.log.Info("serving", "replicas", len(exports))
	return nil
}

// scan looks at the store. It asks for the digests that are missing, and exports what is there.
func (a *Agent) scan(ctx context.Context) error {
	disks, err := a.store.Scan()
	if err != nil {
		return err
	}
	digests := make(map[Disk]site.Digest, len(disks))
	for _, d := range disks {
		digest, known := a.digests[d], true
		if digest == "" {
			digest, known = a.store.Known(d)
		}
		if !known && time.Since(time.Unix(0, d.MTime)) >= a.cfg.Settle {
			a.reader.want(d)
		}
		digests[d] = digest // empty: not yet
	}
	a.digests = digests
	exports, replicas := a.wanted()
	if a.ended == nil || slices.Equal(exports, a.exports) {
		return nil
	}
	gone := slices.DeleteFunc(slices.Clone(a.served), func(r site.Replica) bool { return slices.Contains(replicas, r) })
	if len(gone) > 0 {
		a.log.Warn("replicas are withdrawn: their files changed or are gone", "replicas", gone)
	}
	err = a.engine.Export(ctx, exports)
	a.complain(err)
	if err == nil {
		a.exports, a.served = exports, replicas
		return nil
	}
	// Some of it may not be served: announce only what was there before and still is. The next look tries again.
	a.served = slices.DeleteFunc(a.served, func(r site.Replica) bool { return !slices.Contains(replicas, r) })
	return nil
}

// wanted returns what shall be served: the disks whose digest is known.
func (a *Agent) wanted() ([]Export, []site.Replica) {
	var exports []Export
	var replicas []site.Replica
	for d, digest := range a.digests {
		if digest == "" {
			continue
		}
		exports = append(exports, Export{Target: site.NameTarget(a.cfg.Site, d.VDisk, d.Version, digest), Path: d.Path})
		replicas = append(replicas, site.Replica{VDisk: d.VDisk, Version: d.Version, Digest: digest, Size: d.Size})
	}
	slices.SortFunc(exports, func(x, y Export) int {
		return cmpDisk(Disk{VDisk: x.Target.VDisk, Version: x.Target.Version}, Disk{VDisk: y.Target.VDisk, Version: y.Target.Version})
	})
	slices.SortFunc(replicas, func(x, y site.Replica) int {
		return cmpDisk(Disk{VDisk: x.VDisk, Version: x.Version}, Disk{VDisk: y.VDisk, Version: y.Version})
	})
	return exports, replicas
}

// announce hands the state of now to the herald.
func (a *Agent) announce(ctx context.Context, state site.StreamerState) <-chan struct{} {
	s := site.Streamer{
		Name: a.cfg.Node, Site: a.cfg.Site, Addresses: a.cfg.Addresses, Networks: networks(a.cfg.Addresses), VRIDs: a.cfg.VRIDs, Power: a.cfg.Power, State: state, Replicas: a.served,
	}
	if a.ended != nil {
		sessions, err := a.sessions(ctx)
		if err != nil {
			a.complain(err)
		}
		s.Sessions = devices(sessions)
	}
	return a.herald.tell(s)
}

// devices returns how many devices have sessions: firmware leaves a second one behind, and one whose initiator is gone may stay for an hour.
func devices(sessions []EngineSession) int {
	seen := make(map[string]bool)
	for _, s := range sessions {
		seen[s.Initiator] = true
	}
	return len(seen)
}

// networks returns the subnets of this host's addresses, so that those that choose can tell its NICs apart. A floating address is in that of another one.
func networks(addresses []netip.AddrPort) []netip.Prefix {
	have, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	list := make([]netip.Prefix, len(addresses))
	for _, h := range have {
		prefix, err := netip.ParsePrefix(h.String())
		if err != nil || prefix.IsSingleIP() {
			continue
		}
		for i, a := range addresses {
			if prefix.Contains(a.Addr()) && prefix.Bits() > list[i].Bits() {
				list[i] = prefix.Masked()
			}
		}
	}
	return list
}

// sessions lists the devices that are logged in. Others, such as probes, are nobody's load and need not be moved.
func (a *Agent) sessions(ctx context.Context) ([]EngineSession, error) {
	list, err := a.engine.Sessions(ctx)
	return slices.DeleteFunc(list, func(s EngineSession) bool {
		_, err := site.ParseInitiatorName(s.Initiator)
		return err != nil
	}), err
}
