package appliance

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"everboot/appliance/keep"
	"everboot/appliance/peers"
	"everboot/appliance/web"
	"everboot/dhcp"
	"everboot/dhcp/ra"
	"everboot/dhcp/v6"
	"everboot/health"
	"everboot/site"
	"everboot/site/consul"
	"everboot/site/embedded"
	"everboot/streamer"
	"everboot/tftp"
	"everboot/vip"
)

// WorkerOptions are what the program tells its worker.
type WorkerOptions struct {
	Version string
	Log     *slog.Logger
	Ready   func() // called once, when everything that is enabled serves
	Beat    func() // called several times in vip.Patience while the router of the floating address is at work
	// Keeper lets sockets outlive the worker. Nil: they end with it.
	Keeper *keep.Keeper
	// Counter is what numbers advertisements together with the guard (vip.Counter). Nil: the clock alone does.
	Counter *os.File
}

// registry is where the site is written down.
type registry interface {
	// Run blocks until ctx ends. It calls changed with the whole content whenever that changes, and with the last
	// content and Reachable false when the registry is lost.
	Run(ctx context.Context, changed func(site.Content, site.Registry)) error
	Put(ctx context.Context, kind site.Kind, key string, value []byte) error
	Add(ctx context.Context, kind site.Kind, key string, value []byte) error // Put, unless it is there
	Delete(ctx context.Context, kind site.Kind, key string) error
}

// task is a part of the worker that runs from its start to its end.
type task interface {
	Run(ctx context.Context) error
	Ready() <-chan struct{}
}

// worker is an appliance at work: the rooms, and what joins them. What is off is nil.
type worker struct {
	cfg     *Config
	opts    WorkerOptions
	log     *slog.Logger
	started time.Time
	own     netip.Addr
	boot6   netip.Addr // where targets boot from over IPv6; zero: they do not

	shares      map[peers.Topic]peers.Share // filled by the rooms as they open
	keeper      *keep.Keeper
	connections *connections
	builder     *builder
	registry    registry
	health      *health.Runner
	timeline    *timeline
	media       *mediaReports
	events      chan site.Event
	lost        atomic.Uint64 // events that found the channel full

	vip        *vip.Router   // of [vip]: its address is the one that targets boot from
	vips       []*vip.Router // all
	heard      *vip.Heard    // what the routers were told by others, on disk; nil: they do not authenticate
	dhcp       *dhcp.Server
	pages      pages      // nil: the registry is embedded
	book       *leasebook // nil: leases are written down nowhere else
	dhcp6      *v6.Server
	proxy      *dhcp.Proxy
	search     *dhcp.Search // who else answers DHCP
	advertiser *ra.Advertiser
	files      *tftp.Files
	tftp       *tftp.Server
	http       *tftp.HTTP
	director   *streamer.Director
	standIns   *standIns
	wishes     *wishes // nil: the registry is embedded
	kept       []*keptFile
	peers      *peers.Channel
	api        *web.Server
}

// eventQueue is how many events may wait: a room never waits for the timeline.
const eventQueue = 4096

// RunWorker runs an appliance until ctx ends.
func RunWorker(ctx context.Context, cfg *Config, opts WorkerOptions) error {
	w, err := newWorker(cfg, opts)
	if err != nil {
		return err
	}
	return w.run(ctx)
}

func newWorker(cfg *Config, opts WorkerOptions) (*worker, error) {
	w := &worker{
		cfg: cfg, opts: opts, log: opts.Log, started: time.Now(),
		shares: make(map[peers.Topic]peers.Share), timeline: newTimeline(), events: make(chan site.Event, eventQueue),
	}
	if err := os.MkdirAll(cfg.State, 0o700); err != nil {
		return nil, fmt.Errorf("making the state folder: %w", err)
	}
	var err error
	if w.own, err = cfg.OwnAddress(); err != nil {
		return nil, err
	}
	w.boot6 = cfg.bootAddress6()
	if w.builder, err = newBuilder(cfg, w.observed(), w.log.With("room", "site"), time.Now); err != nil {
		return nil, err
	}
	w.openConnections()
	for _, open := range []func() error{w.openRegistry, w.openHealth, w.openMedia, w.openBoot, w.openDHCP, w.openDirector, w.openVIP, w.openStandIns, w.openEvents, w.openPeers, w.openAPI} {
		if err := open(); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// observed is what the node knows of itself before any probe.
func (w *worker) observed() site.Observed {
	seen := site.Observed{
		Boot: site.BootService{
			Address: site.BootAddress(w.cfg.VIP.Addresses, w.own), HTTPPort: port(w.cfg.HTTP.Listen), Names: w.cfg.HTTP.Names, Lacks: w.lacks(),
			Address6: w.boot6,
		},
		Appliances: []site.Appliance{{Name: w.cfg.Node, Address: w.own}},
	}
	for _, peer := range w.cfg.Peers.Addresses {
		seen.Appliances = append(seen.Appliances, site.Appliance{Address: peer})
	}
	return seen
}

func (w *worker) openRegistry() (err error) {
	log := w.log.With("room", "registry")
	if w.cfg.Registry.Kind == "consul" {
		token, err := w.cfg.Registry.Token.Read()
		if err != nil {
			return err
		}
		r, err := consul.New(consul.Config{Address: w.cfg.Registry.Address, Token: token, Site: w.cfg.Site, Log: log})
		if err != nil {
			return err
		}
		w.openWishes(r)
		w.pages = r
		return nil
	}
	r, err := embedded.New(embedded.Config{
		Dir: w.cfg.State, Static: w.cfg.Content(), StaticFile: w.cfg.path, Site: w.cfg.Site, Log: log, Tell: w.tell(peers.Objects),
	})
	if err != nil {
		return err
	}
	w.registry = r
	w.shares[peers.Objects] = peers.Share{Changed: r.PeerChanged, Whole: r.PeerWhole, Merge: r.PeerChanged}
	return nil
}

func (w *worker) openAPI() error {
	token, err := w.cfg.API.Token.Read()
	if err != nil {
		return err
	}
	c := web.Config{Listen: w.cfg.API.Listen, Token: token, Metrics: w.metrics()}
	if w.vip != nil {
		c.ReleaseVIP = w.releaseVIP
	}
	if r, ok := w.registry.(*embedded.Registry); ok {
		c.Announce = r.Handler()
	}
	w.api, err = web.NewServer(c, w, w.log.With("room", "api"))
	return err
}

// run starts everything, and the floating address last: it must not come before what answers at it. It stops in the
// opposite order, so that another appliance answers at the address before we fall silent.
func (w *worker) run(ctx context.Context) error {
	all, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	w.dropRefusals()
	defer restoreRefusals(w.cfg.VIP.floating())
	group, all := errgroup.WithContext(all)
	if w.wishes != nil {
		w.wishes.count = func(held map[string]site.StreamerState) { w.builder.wished(all, held) }
	}
	group.Go(func() error { return w.builder.Run(all, w.observed()) })
	group.Go(func() error { return w.builder.Save(all) })
	group.Go(func() error {
		return w.registry.Run(all, func(c site.Content, r site.Registry) { w.builder.registryChanged(all, c, r) })
	})
	group.Go(func() error { return w.standIns.Run(all) })
	welcome := w.newWelcome()
	group.Go(func() error { return welcome.Run(all) })
	group.Go(func() error { return w.keepEvents(all, welcome.see) })
	for _, file := range w.kept {
		group.Go(func() error { return file.Run(all) })
	}
	for _, t := range w.tasks() {
		group.Go(func() error { return t.Run(all) })
	}
	group.Go(func() error {
		defer stop()
		return w.runVIP(ctx, all)
	})
	return group.Wait()
}

// tasks returns everything but the floating address.
func (w *worker) tasks() []task {
	list := []task{w.api}
	if w.tftp != nil {
		list = append(list, w.tftp)
	}
	if w.http != nil {
		list = append(list, w.http)
	}
	if w.dhcp != nil {
		list = append(list, w.dhcp)
		if w.book != nil {
			list = append(list, w.book)
		}
	}
	if w.dhcp6 != nil {
		list = append(list, w.dhcp6)
	}
	if w.proxy != nil {
		list = append(list, w.proxy)
	}
	if w.search != nil {
		list = append(list, w.search)
	}
	if w.advertiser != nil {
		list = append(list, w.advertiser)
	}
	if w.director != nil {
		list = append(list, w.director)
	}
	if w.peers != nil {
		list = append(list, w.peers)
	}
	return append(list, late{task: w.health, after: list})
}

// late is a task that starts when others serve. The first result of a probe counts at once: a probe that came before what it asks would
// call a node sick that only starts.
type late struct {
	task
	after []task
}

// Run implements task.
func (l late) Run(ctx context.Context) error {
	for _, t := range l.after {
		select {
		case <-t.Ready():
		case <-ctx.Done():
			return nil
		}
	}
	return l.task.Run(ctx)
}

// event is what the rooms call with what happened. It never blocks.
func (w *worker) event(e site.Event) {
	if e.At.IsZero() {
		e.At = time.Now()
	}
	select {
	case w.events <- e:
	default:
		w.lost.Add(1)
	}
}

// port returns the port of a listen address that Validate has seen, or 0.
func port(listen string) uint16 {
	_, text, _ := net.SplitHostPort(listen)
	n, _ := strconv.ParseUint(text, 10, 16)
	return uint16(n)
}
