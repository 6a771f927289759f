package appliance

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"everboot/health"
	"everboot/site"
	"everboot/vip"
)

// The names of our checks. The boot checks ask at the address that targets are told of, whoever owns it; the own ones
// ask at this node's address and decide how much it wants the floating one.
const (
	checkBootTFTP  = "boot/tftp"
	checkBootHTTP  = "boot/http"
	checkOwnTFTP   = "own/tftp"
	checkOwnHTTP   = "own/http"
	prefixStreamer = "streamer/"
)

const (
	probeInterval = time.Second
	// streamerInterval bounds how old our word on a streamer can be; a process that dies is noticed at once, by Watch.
	streamerInterval = 500 * time.Millisecond
	streamerTimeout  = time.Second
)

func streamerOfCheck(name string) (string, bool) { return strings.CutPrefix(name, prefixStreamer) }

// openHealth makes the runner. Its set of checks follows the view's streamers.
func (w *worker) openHealth() error {
	ctx := context.Background()         // the builder lets nobody wait that it has left behind
	own := make(map[string]site.Health) // Report's, which one goroutine calls
	w.health = health.New(health.Config{Report: func(name string, c site.Check) {
		w.event(site.Event{What: "health", Detail: strings.TrimSpace(fmt.Sprintf("%s %s %s", name, c.Health, c.Reason))})
		w.builder.probed(ctx, name, c)
		if w.vip != nil && (name == checkOwnTFTP || name == checkOwnHTTP) {
			own[name] = c.Health
			for i, cfg := range w.cfg.vipConfigs() {
				w.vips[i].SetPriority(priority(cfg.Priority, own))
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
		var targets []string
		for _, r := range s.Replicas {
			targets = append(targets, site.NameTarget(v.Site, r.VDisk, r.Version, r.Digest).IQN())
		}
		slices.Sort(targets)
		probe := health.NewISCSI(health.ISCSIConfig{Node: w.cfg.Node, Addresses: s.Addresses, Targets: targets})
		checks = append(checks, health.Check{
			Name: prefixStreamer + s.Name, Revision: fmt.Sprint(s.Addresses, targets),
			Interval: streamerInterval, Timeout: streamerTimeout,
			Probe: probe.Probe, Watch: probe.Watch, Close: probe.Close,
		})
	}
	if err := w.health.Set(checks); err != nil {
		w.log.Error("setting the probes", "error", err)
	}
}

func (w *worker) bootChecks() []health.Check {
	boot := site.BootAddress(w.cfg.VIP.Addresses, w.own)
	tftpPort, httpPort := port(w.cfg.TFTP.Listen), port(w.cfg.HTTP.Listen)
	checks := []health.Check{tftpCheck(checkBootTFTP, boot, tftpPort), httpCheck(checkBootHTTP, boot, httpPort)}
	if w.cfg.TFTP.Enabled {
		checks = append(checks, tftpCheck(checkOwnTFTP, w.own, tftpPort))
	}
	if w.cfg.HTTP.Enabled {
		checks = append(checks, httpCheck(checkOwnHTTP, w.own, httpPort))
	}
	return checks
}

// isBootstrap is what a probe wants to find in the bootstrap.
var isBootstrap = health.Contains("#!ipxe")

func tftpCheck(name string, at netip.Addr, port uint16) health.Check {
	return health.Check{Name: name, Interval: probeInterval, Probe: health.TFTP(netip.AddrPortFrom(at, port), site.FileBootstrap, isBootstrap)}
}

func httpCheck(name string, at netip.Addr, port uint16) health.Check {
	url := "http://" + net.JoinHostPort(at.String(), strconv.Itoa(int(port))) + "/" + site.FileBootstrap
	return health.Check{Name: name, Interval: probeInterval, Probe: health.HTTP(url, isBootstrap, nil)}
}

// priority makes a node's VRRP priority follow its own health: a node that cannot serve boot files gives the floating
// address to one that can, and keeps it only if nobody else is there.
func priority(configured int, own map[string]site.Health) int {
	for _, health := range own {
		if health == site.Down {
			return vip.SickPriority
		}
	}
	return configured
}
