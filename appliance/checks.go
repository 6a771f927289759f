package appliance

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"everboot/health"
	"everboot/site"
	"everboot/vip"
)

// The names of our checks. The boot checks ask at the address that targets are told of, whoever owns it; the own ones
// ask at this node's address and decide how much it wants the floating one.
const (
	checkBootTFTP    = "boot/tftp"
	checkBootHTTP    = "boot/http"
	checkBootTFTP6   = "boot/tftp6"
	checkBootHTTP6   = "boot/http6"
	checkOwnTFTP     = "own/tftp"
	checkOwnHTTP     = "own/http"
	checkOwnDirector = "own/director"
)

const (
	probeInterval = time.Second
	// ownRise is how many answers in a row make a node well again that was not: one that comes and goes must not have the floating
	// address come and go with it. It becomes sick after health.DefaultFall failures.
	ownRise = 5
)

// openHealth makes the runner. Its set of checks follows the view's streamers.
func (w *worker) openHealth() error {
	ctx := context.Background()         // the builder lets nobody wait that it has left behind
	own := make(map[string]site.Health) // Report's, which one goroutine calls
	weights := w.cfg.VIP.Weights.byCheck()
	w.health = health.New(health.Config{Report: func(name string, c site.Check) {
		w.event(site.Event{What: "health", Detail: strings.TrimSpace(fmt.Sprintf("%s %s %s", name, c.Health, c.Reason))})
		w.builder.probed(ctx, name, c)
		if _, counts := weights[name]; counts && w.vip != nil {
			own[name] = c.Health
			for i, cfg := range w.cfg.vipConfigs() {
				w.vips[i].SetPriority(priority(cfg.Priority, weights, own))
			}
		}
	}}, w.log.With("room", "health"))
	w.builder.changed = append(w.builder.changed, w.setChecks)
	w.setChecks(w.builder.View())
	return nil
}

// setChecks tells the runner what to probe. The runner leaves checks that it finds again undisturbed.
func (w *worker) setChecks(v *site.View) {
	checks := w.bootChecks()
	for _, s := range v.SortedStreamers() {
		if s.Site != v.Site || len(s.Addresses) == 0 {
			continue
		}
		checks = append(checks, health.OfStreamer(w.cfg.Node, v, s))
	}
	if err := w.health.Set(checks); err != nil {
		w.log.Error("setting the probes", "error", err)
	}
}

func (w *worker) bootChecks() []health.Check {
	boot := site.BootAddress(w.cfg.VIP.Addresses, w.own)
	tftpPort, httpPort := port(w.cfg.TFTP.Listen), port(w.cfg.HTTP.Listen)
	checks := []health.Check{health.BootTFTP(checkBootTFTP, boot, tftpPort), health.BootHTTP(checkBootHTTP, boot, httpPort)}
	if w.boot6.IsValid() {
		checks = append(checks, health.BootTFTP(checkBootTFTP6, w.boot6, tftpPort), health.BootHTTP(checkBootHTTP6, w.boot6, httpPort))
	}
	var own []health.Check
	if at, ok := w.ownHost(w.cfg.TFTP.Listen); ok && w.cfg.TFTP.Enabled {
		own = append(own, health.BootTFTP(checkOwnTFTP, at, tftpPort))
	}
	if at, ok := w.ownHost(w.cfg.HTTP.Listen); ok && w.cfg.HTTP.Enabled {
		own = append(own, health.BootHTTP(checkOwnHTTP, at, httpPort))
	}
	if at, ok := w.ownHost(w.cfg.Director.Listen); ok && w.cfg.Director.Enabled {
		own = append(own, directorCheck(w.cfg.Node, netip.AddrPortFrom(at, port(w.cfg.Director.Listen))))
	}
	for i := range own {
		own[i].Rise = ownRise
	}
	return append(checks, own...)
}

// ownHost returns where this node itself can be asked for what listens there. At a floating address alone it cannot: its owner would answer.
func (w *worker) ownHost(listen string) (netip.Addr, bool) {
	host, _, _ := net.SplitHostPort(listen)
	if host == "" {
		return w.own, true
	}
	at, err := netip.ParseAddr(host)
	switch {
	case err != nil: // a name, which may be anybody's
		return netip.Addr{}, false
	case at.IsUnspecified():
		return w.own, true
	}
	return at, !slices.Contains(w.cfg.VIP.floating(), at)
}

// directorCheck asks a director for targets, as a discovery does. It keeps no session: the director holds a place for each.
func directorCheck(node string, at netip.AddrPort) health.Check {
	return health.Check{Name: checkOwnDirector, Interval: probeInterval, Probe: func(ctx context.Context) error {
		probe := health.NewISCSI(health.ISCSIConfig{Node: node, Addresses: []netip.AddrPort{at}})
		defer probe.Close()
		return probe.Probe(ctx)
	}}
}

// byCheck returns the weights of the own checks by their names.
func (v VIPWeights) byCheck() map[string]int {
	return map[string]int{checkOwnTFTP: v.TFTP, checkOwnHTTP: v.HTTP, checkOwnDirector: v.Director}
}

// priority makes a node's VRRP priority follow its own health: each check that is down takes its weight away. A node with nothing left
// is sick: it gives the floating address to any that is not, and keeps it only if nobody else is there. Among the sick the one
// with fewer failures is the better one.
func priority(configured int, weights map[string]int, own map[string]site.Health) int {
	left, failures := configured, 0
	for name, h := range own {
		if h == site.Down && weights[name] > 0 {
			left -= weights[name]
			failures++
		}
	}
	if left > vip.SickPriority {
		return left
	}
	return vip.SickPriority + 1 - failures
}
