package appliance

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"everboot/appliance/web"
	"everboot/site"
	"everboot/vip"
	"everboot/vip/vrrp"
)

// standIns take the floating addresses of streamers that fall silent. Nothing is served there: what a redirected target sends is answered with a reset, and it
// comes back to the director at once rather than after its own time-out. One goroutine owns them.
type standIns struct {
	link     string
	own      func() ([]netip.Prefix, error) // addresses of the interface
	routers  []vip.Config                   // the node's other virtual routers there
	priority int
	open     func(cfg vip.Config, others []vip.Config) (standInRouter, error)
	log      *slog.Logger

	news chan *site.View // holds the latest
	done sync.WaitGroup
	mu   sync.Mutex // by is read by others, too
	by   map[standInKey]*standIn
}

// standInRouter is a virtual router for one address.
type standInRouter interface {
	Run(ctx context.Context) error
	Status() vip.Status
}

type standInKey struct {
	address netip.Addr
	vrid    int
}

type standIn struct {
	streamer string
	cfg      vip.Config
	router   standInRouter // nil: it could not be opened
	wanted   time.Time     // when a streamer last had it
	end      context.CancelFunc
	failed   atomic.Bool // it ended; it is begun again when it has been forgotten
}

const (
	// standInMemory is how long an address is stood in for whose streamer has left the registry: a dead one does so after some seconds, and
	// targets that slept meanwhile must still hear that it is gone.
	standInMemory = time.Minute
	standInLook   = 10 * time.Second
	// maxStandIns is how many virtual routers a segment can have.
	maxStandIns = 255
)

func (w *worker) openStandIns() error {
	log := w.log.With("room", "standin")
	opener := vip.NewOpener(log)
	w.standIns = &standIns{
		link: w.cfg.Interface, own: func() ([]netip.Prefix, error) { return interfaceAddrs(w.cfg.Interface) }, routers: w.cfg.vipConfigs(),
		priority: min(w.cfg.VIP.Priority, 254), log: log, news: make(chan *site.View, 1), by: make(map[standInKey]*standIn),
		open: func(cfg vip.Config, others []vip.Config) (standInRouter, error) {
			return openStandIn(opener, cfg, others)
		},
	}
	w.builder.changed = append(w.builder.changed, w.standIns.changed)
	return nil
}

// changed is called by the builder's goroutine, the only one that sends.
func (s *standIns) changed(v *site.View) {
	select {
	case <-s.news:
	default:
	}
	s.news <- v
}

// Run stands in until ctx ends.
func (s *standIns) Run(ctx context.Context) error {
	defer s.done.Wait()
	look := time.NewTicker(standInLook)
	defer look.Stop()
	var v *site.View
	for {
		select {
		case <-ctx.Done():
			for _, x := range s.by {
				x.end()
			}
			return nil
		case v = <-s.news:
		case <-look.C:
		}
		if v != nil {
			s.follow(ctx, v, time.Now())
		}
	}
}

// follow makes the routers those of the view's streamers.
func (s *standIns) follow(ctx context.Context, v *site.View, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, st := range v.SortedStreamers() {
		for i, vrid := range st.VRIDs {
			key := standInKey{st.Addresses[i].Addr(), vrid}
			if x := s.by[key]; x != nil {
				if !x.failed.Load() {
					x.wanted = now
				}
			} else if st.Site == v.Site && len(s.by) < maxStandIns {
				s.begin(ctx, st.Name, key, now)
			}
		}
	}
	for key, x := range s.by {
		if now.Sub(x.wanted) > standInMemory {
			x.end()
			delete(s.by, key)
		}
	}
}

// begin stands in for one address, if it is in a net of ours.
func (s *standIns) begin(ctx context.Context, streamer string, key standInKey, now time.Time) {
	own, err := s.own()
	if err != nil {
		return // the next look
	}
	at := slices.IndexFunc(own, func(p netip.Prefix) bool {
		return p.Contains(key.address) && p.Addr() != key.address && !p.IsSingleIP()
	})
	if at < 0 {
		return
	}
	life, end := context.WithCancel(ctx)
	x := &standIn{streamer: streamer, wanted: now, end: end, cfg: vip.Config{
		Interface: s.link, Addresses: []netip.Prefix{netip.PrefixFrom(key.address, own[at].Bits())}, VRID: key.vrid, Priority: s.priority,
	}}
	others := s.routers
	for _, y := range s.by {
		others = append(slices.Clip(others), y.cfg)
	}
	s.by[key] = x
	if x.router, err = s.open(x.cfg, others); err != nil {
		x.router = nil
		x.failed.Store(true)
		s.log.Error("nobody here stands in for a streamer's address", "streamer", streamer, "address", key.address, "vrid", key.vrid, "error", err)
		return
	}
	s.done.Go(func() {
		if err := x.router.Run(life); err != nil {
			x.failed.Store(true)
			s.log.Warn("standing in for a streamer's address", "streamer", streamer, "address", key.address, "vrid", key.vrid, "error", err)
		}
	})
}

// openStandIn opens one beside other virtual routers.
func openStandIn(o *vip.Opener, cfg vip.Config, others []vip.Config) (*vip.Router, error) {
	if err := vip.CheckTogether(append(slices.Clip(others), cfg)); err != nil {
		return nil, err
	}
	return o.Open(cfg)
}

// status returns what the routers say, sorted by streamer and address. It may be called by anybody.
func (s *standIns) status() []web.StandIn {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []web.StandIn
	for key, x := range s.by {
		e := web.StandIn{Streamer: x.streamer, Address: key.address, VRID: key.vrid}
		if x.router != nil && !x.failed.Load() {
			r := x.router.Status()
			e.State, e.Since, e.TakeOvers = string(r.State), r.Since, r.Transitions[vrrp.Silence]+r.Transitions[vrrp.Resigned]
		}
		list = append(list, e)
	}
	slices.SortFunc(list, func(a, b web.StandIn) int {
		return cmp.Or(cmp.Compare(a.Streamer, b.Streamer), a.Address.Compare(b.Address), cmp.Compare(a.VRID, b.VRID))
	})
	return list
}

// standInStatus returns what the worker's stand-ins say.
func (w *worker) standInStatus() []web.StandIn {
	if w.standIns == nil {
		return nil
	}
	return w.standIns.status()
}

// standInWarnings names the streamers whose addresses this node has.
func standInWarnings(list []web.StandIn) (warnings []string) {
	for _, e := range list {
		switch e.State {
		case string(vrrp.Active):
			warnings = append(warnings, fmt.Sprintf("streamer %s is not heard at its floating address %s: this appliance stands in, and tells its targets to come back", e.Streamer, e.Address))
		case "":
			warnings = append(warnings, fmt.Sprintf("nobody here stands in for streamer %s at %s (vrid %d): the log says why", e.Streamer, e.Address, e.VRID))
		}
	}
	return warnings
}

// The names of the metrics of stand-ins. Each has the labels streamer, address and vrid.
const (
	metricStandIn          = "everboot_standin_active"
	metricStandInTakeOvers = "everboot_standin_takeovers_total"
)

func (c collector) standIns(send emit) {
	for _, e := range c.w.standInStatus() {
		labels := []string{"streamer", e.Streamer, "address", e.Address.String(), "vrid", strconv.Itoa(int(e.VRID))}
		send(metricStandIn, "Whether this node has the floating address of a streamer that is not heard.", prometheus.GaugeValue, truth(e.State == string(vrrp.Active)), labels...)
		send(metricStandInTakeOvers, "How often this node took the floating address of a streamer.", prometheus.CounterValue, float64(e.TakeOvers), labels...)
	}
}
