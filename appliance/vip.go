package appliance

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"everboot/appliance/web"
	"everboot/vip"
	"everboot/vip/vrrp"
)

// VIPConfig is the floating address that targets boot from. No addresses: no VIP.
type VIPConfig struct {
	VIPGroup
	// Groups are more virtual routers beside it.
	Groups []VIPGroup `toml:"group"`
	// Weights say how much health takes from the priority of all of them.
	Weights VIPWeights `toml:"weights"`
	// Key is the one of all that authenticate, in hexadecimal digits; none: one that is derived from peers.key.
	Key Secret `toml:"key"`
}

// VIPWeights are what is taken from the priority while a service of this node does not answer at its own address: 0 to maxWeight.
type VIPWeights struct {
	TFTP     int `toml:"tftp"`
	HTTP     int `toml:"http"`
	Director int `toml:"director"`
}

// maxWeight leaves nothing of any priority.
const maxWeight = vrrp.Owner

// VIPGroup is a virtual router: addresses of one family that one node has at a time.
type VIPGroup struct {
	Addresses      []netip.Prefix `toml:"addresses"`
	VRID           int            `toml:"vrid"`
	Priority       int            `toml:"priority"`
	AdvertInterval Duration       `toml:"advert_interval"`
	Preempt        bool           `toml:"preempt"`
	PreemptDelay   Duration       `toml:"preempt_delay"`
	Unicast        []netip.Addr   `toml:"unicast"` // the other nodes' own addresses; none: multicast
	Authenticate   bool           `toml:"authenticate"`
	VirtualMAC     bool           `toml:"virtual_mac"`
	Interface      string         `toml:"interface"` // of a [[vip.group]]; the node's if it is left out
}

func (c *Config) checkVIP() error {
	v := c.VIP
	for name, weight := range map[string]int{"tftp": v.Weights.TFTP, "http": v.Weights.HTTP, "director": v.Weights.Director} {
		if weight < 0 || weight > maxWeight {
			return fmt.Errorf("vip.weights.%s: %d: use 0 (its health does not matter) to %d (without it the node is sick)", name, weight, maxWeight)
		}
	}
	if len(v.Addresses) == 0 {
		if len(v.Groups) > 0 {
			return fmt.Errorf("vip.group: vip.addresses are missing; give the address that targets boot from")
		}
		return nil
	}
	if v.Interface != "" {
		return fmt.Errorf("vip.interface: leave it out, it is the node's interface; only [[vip.group]] has one")
	}
	for _, p := range v.Addresses {
		if !p.Addr().Is4() {
			return fmt.Errorf("vip.addresses: %s: targets boot over IPv4; put IPv6 addresses into a [[vip.group]]", p)
		}
	}
	if c.Peers.Key.IsZero() && v.Key.IsZero() && v.authenticates() {
		return fmt.Errorf("vip.authenticate needs peers.key, such as key = \"file:/etc/everboot/peer.key\", the same on all appliances; or vip.key")
	}
	if !v.Key.IsZero() && !v.authenticates() {
		return fmt.Errorf("vip.key without vip.authenticate: set authenticate = true, or leave the key out")
	}
	configs := c.vipConfigs()
	for _, g := range configs {
		if err := g.Validate(); err != nil {
			return err
		}
	}
	return vip.CheckTogether(configs)
}

// all returns the virtual router of [vip] and the further ones.
func (v VIPConfig) all() []VIPGroup { return append([]VIPGroup{v.VIPGroup}, v.Groups...) }

// floating returns the addresses of all virtual routers.
func (v VIPConfig) floating() []netip.Addr {
	var list []netip.Addr
	for _, g := range v.all() {
		for _, p := range g.Addresses {
			list = append(list, p.Addr())
		}
	}
	return list
}

// openCounter opens what numbers the advertisements of this node. Only those that are authenticated have a number, and need a file.
func (c *Config) openCounter(log *slog.Logger) (*vip.Counter, error) {
	if !c.VIP.authenticates() {
		return vip.OpenCounter("", log)
	}
	if err := os.MkdirAll(c.State, 0o700); err != nil {
		return nil, fmt.Errorf("making the state folder: %w", err)
	}
	return vip.OpenCounter(filepath.Join(c.State, "vrrp.counter"), log)
}

// authenticates reports whether any virtual router does.
func (v VIPConfig) authenticates() bool {
	return slices.ContainsFunc(v.all(), func(g VIPGroup) bool { return g.Authenticate })
}

// keyedVIPs returns all virtual routers with the keys of those that authenticate, and what numbers their advertisements.
func (c *Config) keyedVIPs(counter *vip.Counter) ([]vip.Config, error) {
	configs := c.vipConfigs()
	for i, g := range c.VIP.all()[:len(configs)] {
		if !g.Authenticate {
			continue
		}
		key, err := c.vrrpKey()
		if err != nil {
			return nil, err
		}
		configs[i].Key, configs[i].Counter = key, counter
	}
	return configs, nil
}

// vrrpKey returns the key of advertisements that are authenticated.
func (c *Config) vrrpKey() ([]byte, error) {
	if c.VIP.Key.IsZero() {
		secret, err := c.Peers.Key.Read()
		return vrrp.DeriveKey([]byte(secret)), err
	}
	text, err := c.VIP.Key.Read()
	if err != nil {
		return nil, err
	}
	key, err := hex.DecodeString(text)
	if err != nil || len(key) < vrrp.MinKey || len(key) > vrrp.MaxKey {
		return nil, fmt.Errorf("the key in %s is not %d to %d hexadecimal digits; make it with: openssl rand -hex %d > %s",
			c.VIP.Key.path, 2*vrrp.MinKey, 2*vrrp.MaxKey, vrrp.MinKey, c.VIP.Key.path)
	}
	return key, nil
}

// vipConfigs returns all virtual routers, that of [vip] first.
func (c *Config) vipConfigs() []vip.Config {
	if len(c.VIP.Addresses) == 0 {
		return nil
	}
	var configs []vip.Config
	for _, g := range c.VIP.all() {
		configs = append(configs, vip.Config{
			Interface: cmp.Or(g.Interface, c.Interface), Addresses: g.Addresses, VRID: g.VRID,
			Priority:       cmp.Or(g.Priority, c.VIP.Priority),
			AdvertInterval: cmp.Or(time.Duration(g.AdvertInterval), time.Duration(c.VIP.AdvertInterval)),
			Preempt:        g.Preempt, PreemptDelay: time.Duration(g.PreemptDelay), Peers: g.Unicast, VirtualMAC: g.VirtualMAC,
		})
	}
	patience := vip.Patience(configs...)
	for i := range configs {
		configs[i].Patience = patience
	}
	return configs
}

func (w *worker) openVIP() error {
	var counter *vip.Counter
	if w.opts.Counter != nil {
		var err error
		if counter, err = vip.InheritCounter(w.opts.Counter); err != nil {
			return err
		}
	}
	configs, err := w.cfg.keyedVIPs(counter)
	if err != nil || len(configs) == 0 {
		return err
	}
	if w.cfg.VIP.authenticates() {
		w.heard = vip.OpenHeard(filepath.Join(w.cfg.State, "vrrp.heard"), w.log.With("room", "vip"))
	}
	pulse := vip.NewPulse(len(configs), w.opts.Beat)
	for i := range configs {
		configs[i].Beat = pulse.Of(i)
		configs[i].Connections = w.connections.Lost
		configs[i].Heard = w.heard
	}
	routers, err := vip.NewAll(configs, w.log.With("room", "vip"))
	if err != nil {
		return err
	}
	w.vip, w.vips = routers[0], routers
	return nil
}

// releaseVIP hands over every address that this node owns.
func (w *worker) releaseVIP(ctx context.Context) error {
	var wait sync.WaitGroup
	errs := make([]error, len(w.vips))
	for i, r := range w.vips {
		wait.Go(func() { errs[i] = r.Release(ctx) })
	}
	wait.Wait()
	if slices.Contains(errs, nil) { // what it does not own it cannot hand over
		errs = slices.DeleteFunc(errs, func(err error) bool { return errors.Is(err, vip.ErrNotOwner) })
	}
	return errors.Join(slices.CompactFunc(errs, func(a, b error) bool { return errors.Is(a, b) })...)
}

// runVIP waits until everything else serves, says that the worker is ready, and then takes part in the election until ctx ends or
// something else fails.
func (w *worker) runVIP(ctx, all context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(all, cancel)()
	for _, t := range w.tasks() {
		select {
		case <-t.Ready():
		case <-ctx.Done():
			return w.closeVIP()
		}
	}
	w.opts.Ready()
	w.log.Info("serving", "site", w.cfg.Site, "address", w.own, "api", w.api.Addr())
	if w.vip == nil {
		<-ctx.Done()
		return nil
	}
	followed := make(chan struct{})
	go func() {
		defer close(followed)
		w.followVIPs()
	}()
	stopSaving := w.saveHeard()
	group, ctx := errgroup.WithContext(ctx)
	for _, r := range w.vips {
		group.Go(func() error { return r.Run(ctx) })
	}
	err := group.Wait()
	stopSaving()
	<-followed
	return err
}

// followVIPs tells TFTP which floating addresses are this node's, of all groups, until all routers have ended: it leads their transfers, or lets go of them.
func (w *worker) followVIPs() {
	var mu sync.Mutex
	var group sync.WaitGroup
	active := make([]bool, len(w.vips))
	for i, r := range w.vips {
		group.Go(func() {
			for t := range r.Changes() {
				mu.Lock()
				active[i] = t.To == vrrp.Active
				if w.tftp != nil {
					w.tftp.Own(owned(w.cfg.vipConfigs(), active))
				}
				mu.Unlock()
			}
		})
	}
	group.Wait()
}

// owned returns the addresses of the groups that are active here.
func owned(groups []vip.Config, active []bool) (addresses []netip.Addr) {
	for i, g := range groups {
		if i >= len(active) || !active[i] {
			continue
		}
		for _, p := range g.Addresses {
			addresses = append(addresses, p.Addr())
		}
	}
	return addresses
}

// saveHeard saves what the routers hear until it is told to stop, which it does when they have.
func (w *worker) saveHeard() (stop func()) {
	if w.heard == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	saved := make(chan struct{})
	go func() {
		defer close(saved)
		w.heard.Run(ctx)
	}()
	return func() { cancel(); <-saved }
}

func (w *worker) closeVIP() error {
	var errs []error
	for _, r := range w.vips {
		errs = append(errs, r.Close())
	}
	return errors.Join(errs...)
}

func (w *worker) vipStatus() []web.VIP {
	var list []web.VIP
	for i, cfg := range w.cfg.vipConfigs()[:len(w.vips)] {
		s := w.vips[i].Status()
		v := web.VIP{
			VRID: cfg.VRID, State: string(s.State), Since: s.Since, Priority: s.Priority,
			Reason: s.Last.Cause.Text(), Odd: map[string]uint64{},
		}
		for _, p := range cfg.Addresses {
			v.Addresses = append(v.Addresses, p.Addr().String())
		}
		if s.Owner.IsValid() {
			v.Owner = s.Owner.String()
		}
		for odd, n := range s.Odd {
			v.Odd[string(odd)] = n
		}
		for reason, n := range s.Dropped {
			v.Odd["dropped: "+string(reason)] = n
		}
		list = append(list, v)
	}
	return list
}

// mainVIP returns what the router of [vip] says.
func (w *worker) mainVIP() *web.VIP {
	if list := w.vipStatus(); len(list) > 0 {
		return &list[0]
	}
	return nil
}

// The names of the metrics of the floating addresses. Each has the label vrid.
const (
	metricVIPActive      = "everboot_vip_active"
	metricVIPSince       = "everboot_vip_state_since_seconds"
	metricVIPTransitions = "everboot_vip_transitions_total" // label cause
	metricVIPPriority    = "everboot_vip_priority"
	metricVIPSent        = "everboot_vip_advertisements_sent_total"
	metricVIPDropped     = "everboot_vip_advertisements_dropped_total" // label reason
	metricVIPOdd         = "everboot_vip_oddities_total"               // label kind
	metricVIPTickled     = "everboot_vip_tickled_connections_total"
)

func (c collector) vip(send emit) {
	for i, cfg := range c.w.cfg.vipConfigs()[:len(c.w.vips)] {
		s := c.w.vips[i].Status()
		id := []string{"vrid", vridLabel(cfg)}
		with := func(name, value string) []string { return append(slices.Clone(id), name, value) }
		send(metricVIPActive, "Whether this node owns the floating addresses.", prometheus.GaugeValue, truth(s.State == vrrp.Active), id...)
		send(metricVIPSince, "When the router came into its state, in seconds since 1970.", prometheus.GaugeValue, float64(s.Since.Unix()), id...)
		send(metricVIPPriority, "The priority that health has left; below 10 the node is sick.", prometheus.GaugeValue, float64(s.Priority), id...)
		send(metricVIPSent, "VRRP advertisements sent.", prometheus.CounterValue, float64(s.Sent), id...)
		send(metricVIPTickled, "Connections whose clients were told that they are gone.", prometheus.CounterValue, float64(s.Tickled), id...)
		for cause, n := range s.Transitions {
			send(metricVIPTransitions, "Changes of the router's state.", prometheus.CounterValue, float64(n), with("cause", string(cause))...)
		}
		for reason, n := range s.Dropped {
			send(metricVIPDropped, "VRRP advertisements dropped.", prometheus.CounterValue, float64(n), with("reason", string(reason))...)
		}
		for kind, n := range s.Odd {
			send(metricVIPOdd, "VRRP advertisements that nobody meant so.", prometheus.CounterValue, float64(n), with("kind", string(kind))...)
		}
	}
}

// vridLabel tells an IPv6 router from an IPv4 one, which may have the same VRID.
func vridLabel(cfg vip.Config) string {
	if cfg.Addresses[0].Addr().Is6() {
		return strconv.Itoa(cfg.VRID) + "/6"
	}
	return strconv.Itoa(cfg.VRID)
}
