package everboot

import (
	"context"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"everboot/health"
	"everboot/site"
	"everboot/site/consul"
)

// The names of the probes of the boot address; those of streamers are health.StreamerPrefix and the name.
const (
	checkTFTP  = "boot/tftp"
	checkHTTP  = "boot/http"
	filePrefix = "file/" // and the name of one that firmware loads
)

// follower makes views of what Consul says of a site and of what it probes itself.
type follower struct {
	cfg  settings
	log  *slog.Logger
	view atomic.Pointer[site.View]

	health *health.Runner

	mu       sync.Mutex // guards what follows
	content  *site.Content
	registry site.Registry
	seen     site.Observed
}

// follow starts to read the site from Consul, until ctx ends.
func follow(ctx context.Context, cfg settings) (decider, error) {
	f := &follower{cfg: cfg, log: slog.Default()}
	f.seen = site.Observed{Boot: site.BootService{Address: cfg.boot}, Streamers: make(map[string]site.Check)}
	f.view.Store(site.Empty(cfg.site, "consul"))
	f.health = health.New(health.Config{Report: f.probed}, f.log)
	registry, err := consul.New(consul.Config{Address: cfg.consul, Token: cfg.token, Site: cfg.site, Log: f.log})
	if err != nil {
		return nil, err
	}
	f.probe()
	go f.keep("health", func() error { return f.health.Run(ctx) })
	go f.keep("consul", func() error { return registry.Run(ctx, f.told) })
	return f.decide, nil
}

// keep logs why something ended: without it nothing is offered any more.
func (f *follower) keep(what string, run func() error) {
	if err := run(); err != nil {
		f.log.Error("everboot: no boot options from here on", "what", what, "error", err)
		f.view.Store(site.Empty(f.cfg.site, "consul"))
	}
}

func (f *follower) decide(_ context.Context, q site.BootRequest) (site.Offer, site.Reason, error) {
	offer, reason := site.Boot(f.view.Load(), q)
	return offer, reason, nil
}

// told takes what Consul says.
func (f *follower) told(c site.Content, r site.Registry) {
	f.mu.Lock()
	if r.Reachable {
		f.content = &c
	}
	f.registry = r
	f.rebuild()
	f.mu.Unlock()
	f.probe()
}

// probed takes the result of a probe.
func (f *follower) probed(name string, c site.Check) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch streamer, ok := health.StreamerOf(name); {
	case ok:
		f.seen.Streamers[streamer] = c
	case name == checkTFTP:
		f.seen.Boot.TFTP = c
	case name == checkHTTP:
		f.seen.Boot.HTTP = c
	default:
		f.has(strings.TrimPrefix(name, filePrefix), c.Health != site.Down)
	}
	f.rebuild()
}

// has notes whether the boot address has a file that firmware loads.
func (f *follower) has(file string, there bool) {
	lacks := slices.DeleteFunc(slices.Clone(f.seen.Boot.Lacks), func(s string) bool { return s == file })
	if !there {
		lacks = append(lacks, file)
	}
	f.seen.Boot.Lacks = lacks
}

func (f *follower) rebuild() {
	f.view.Store(site.Merge(f.view.Load(), f.content, f.registry, f.seen, time.Now()))
}

// probe tells the runner whom to probe now.
func (f *follower) probe() {
	checks := []health.Check{health.BootTFTP(checkTFTP, f.cfg.boot, 69), health.BootHTTP(checkHTTP, f.cfg.boot, 80)}
	for _, file := range site.FirmwareFiles() {
		checks = append(checks, health.BootFile(filePrefix+file, f.cfg.boot, 80, file))
	}
	node, _ := os.Hostname() // it stands in the probe's initiator name alone
	v := f.view.Load()
	for _, s := range v.SortedStreamers() {
		if s.Site == v.Site && len(s.Addresses) > 0 {
			checks = append(checks, health.OfStreamer("coredhcp-"+node, v, s))
		}
	}
	if err := f.health.Set(checks); err != nil {
		f.log.Error("everboot: setting the probes", "error", err)
	}
}
