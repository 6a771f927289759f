package appliance

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"everboot/appliance/peers"
	"everboot/appliance/web"
	"everboot/site"
	"everboot/streamer"
)

// DirectorConfig is the part that takes iSCSI logins.
type DirectorConfig struct {
	Enabled bool   `toml:"enabled"`
	Listen  string `toml:"listen"`
	// Redirect sends open-iscsi to its streamer, so that its stream does not go through this appliance.
	Redirect bool `toml:"redirect"`
	// CHAP is the file with the secrets of devices; none: nobody need prove who it is.
	CHAP Secret `toml:"chap"`
	// RebalanceAbove is the imbalance in percent above which targets move by themselves; 0: never.
	RebalanceAbove float64 `toml:"rebalance_above"`
}

func (w *worker) openDirector() (err error) {
	if !w.cfg.Director.Enabled {
		return nil
	}
	log := w.log.With("room", "director")
	running := newKeptFile(w.cfg.State, "running.json", "what devices run", log) // one that was given another vDisk meanwhile must still be admitted
	w.kept = append(w.kept, running)
	tell := w.tell(peers.Running)
	var chap func(site.MAC) (streamer.CHAP, bool)
	if !w.cfg.Director.CHAP.IsZero() {
		file := &chapFile{path: w.cfg.Director.CHAP.path, log: log}
		if err := file.load(); err != nil {
			return err
		}
		chap = file.of
	}
	w.director, err = streamer.NewDirector(streamer.DirectorConfig{
		Listen: []string{w.cfg.Director.Listen}, Who: w.macAt, Opened: w.opened, Redirect: w.cfg.Director.Redirect, RebalanceAbove: w.cfg.Director.RebalanceAbove / 100, CHAP: chap,
		Tell: func(message []byte) { running.changed(); tell(message) },
	}, w.builder.View, w.event, log)
	if err != nil {
		return err
	}
	w.shares[peers.Running] = peers.Share{Changed: w.director.PeerChanged, Whole: w.director.PeerWhole, Merge: w.director.PeerMerge}
	running.whole = w.director.PeerWhole
	kept, err := running.load()
	if err != nil {
		log.Error("what devices ran cannot be read; one that was given another vDisk meanwhile is refused when it comes back", "error", err)
	}
	if kept != nil {
		w.director.PeerMerge("disk", kept)
	}
	w.builder.changed = append(w.builder.changed, w.director.Update)
	return nil
}

// rebalanceTime bounds one call, so that its answer comes before the client's patience ends; the client calls again for what is left.
const rebalanceTime = 5 * time.Second

// Rebalance implements web.Backend.
func (w *worker) Rebalance(ctx context.Context) (streamer.Rebalancing, error) {
	if w.director == nil {
		return streamer.Rebalancing{}, errors.New("this appliance has no director; ask another with --api")
	}
	ctx, cancel := context.WithTimeout(ctx, rebalanceTime)
	defer cancel()
	return w.director.Rebalance(ctx)
}

func (w *worker) sessions(v *site.View) []web.Session {
	if w.director == nil {
		return nil
	}
	var list []web.Session
	for _, s := range w.director.Sessions() {
		list = append(list, web.Session{
			MAC: s.Device, Device: v.Devices[s.Device].Name, VDisk: s.VDisk, Version: s.Version, Streamer: s.Streamer,
			Remote: s.Remote, Since: s.Since, ToTarget: s.BytesOut, ToStreamer: s.BytesIn, Failovers: s.Failovers,
			FirstBlock: s.FirstBlock, Stall: web.Seconds(s.Stall.Seconds()), StallAt: s.StallAt,
		})
	}
	return list
}

// The names of the metrics of the director.
const (
	metricSessions  = "everboot_director_sessions"
	metricHolding   = "everboot_director_held_logins"
	metricLogins    = "everboot_director_logins_total"  // label reason
	metricDrops     = "everboot_director_dropped_total" // label reason
	metricFailovers = "everboot_director_failovers_total"
	metricRedirects = "everboot_director_redirects_total"
	metricFailures  = "everboot_director_streamer_failures_total" // label streamer
	metricForwarded = "everboot_director_forwarded_bytes_total"   // label direction
)

func (c collector) director(send emit) {
	s := c.w.director.Stats()
	send(metricSessions, "Streams through this appliance.", prometheus.GaugeValue, float64(s.Sessions))
	send(metricHolding, "Logins that wait for a streamer.", prometheus.GaugeValue, float64(s.Holding))
	send(metricFailovers, "Logins of targets that had another streamer before.", prometheus.CounterValue, float64(s.Failovers))
	send(metricRedirects, "Logins that were sent to their streamer.", prometheus.CounterValue, float64(s.Redirects))
	for reason, n := range s.Logins {
		send(metricLogins, "How logins ended.", prometheus.CounterValue, float64(n), "reason", string(reason))
	}
	for drop, n := range s.Drops {
		send(metricDrops, "Connections that ended before they were a login.", prometheus.CounterValue, float64(n), "reason", string(drop))
	}
	for name, n := range s.Failures {
		send(metricFailures, "Connections and logins that a streamer did not take.", prometheus.CounterValue, float64(n), "streamer", name)
	}
	send(metricForwarded, "Bytes forwarded.", prometheus.CounterValue, float64(s.BytesIn), "direction", "to_streamer")
	send(metricForwarded, "Bytes forwarded.", prometheus.CounterValue, float64(s.BytesOut), "direction", "to_target")
}
