package appliance

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"everboot/appliance/web"
	"everboot/vip"
	"everboot/vip/vrrp"
)

// VIPConfig is the floating address. No addresses: no VIP.
type VIPConfig struct {
	Addresses      []netip.Prefix `toml:"addresses"`
	VRID           int            `toml:"vrid"`
	Priority       int            `toml:"priority"`
	AdvertInterval Duration       `toml:"advert_interval"`
	Preempt        bool           `toml:"preempt"`
}

func (c *Config) checkVIP() error {
	v := c.VIP
	if len(v.Addresses) == 0 {
		return nil
	}
	if v.VRID < 1 || v.VRID > 255 {
		return fmt.Errorf("vip.vrid %d: use 1 to 255", v.VRID)
	}
	if v.Priority < 10 || v.Priority > 254 {
		return fmt.Errorf("vip.priority %d: use 10 to 254", v.Priority)
	}
	for i, p := range v.Addresses {
		if !p.Addr().Is4() {
			return fmt.Errorf("vip.addresses: %s: use an IPv4 address with its prefix length", p)
		}
		if slices.ContainsFunc(v.Addresses[:i], func(o netip.Prefix) bool { return o.Addr() == p.Addr() }) {
			return fmt.Errorf("vip.addresses: %s stands there twice", p.Addr())
		}
	}
	return nil
}

func (c *Config) vipConfig() vip.Config {
	return vip.Config{
		Interface: c.Interface, Addresses: c.VIP.Addresses, VRID: c.VIP.VRID, Priority: c.VIP.Priority,
		AdvertInterval: time.Duration(c.VIP.AdvertInterval), Preempt: c.VIP.Preempt,
	}
}

func (w *worker) openVIP() (err error) {
	if len(w.cfg.VIP.Addresses) == 0 {
		return nil
	}
	cfg := w.cfg.vipConfig()
	cfg.Beat, cfg.Connections = w.opts.Beat, w.connections.Lost
	w.vip, err = vip.New(cfg, w.log.With("room", "vip"))
	return err
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
		for t := range w.vip.Changes() {
			w.ownsVIP(t.To == vrrp.Active)
		}
	}()
	err := w.vip.Run(ctx)
	<-followed
	return err
}

func (w *worker) closeVIP() error {
	if w.vip == nil {
		return nil
	}
	return w.vip.Close()
}

func (w *worker) vipStatus() *web.VIP {
	if w.vip == nil {
		return nil
	}
	s := w.vip.Status()
	v := &web.VIP{State: string(s.State), Since: s.Since, Priority: s.Priority, Reason: string(s.Last.Cause)}
	for _, p := range w.cfg.VIP.Addresses {
		v.Addresses = append(v.Addresses, p.Addr().String())
	}
	if s.Owner.IsValid() {
		v.Owner = s.Owner.String()
	}
	return v
}

// The names of the metrics of the floating address.
const (
	metricVIPActive  = "everboot_vip_active"
	metricVIPSent    = "everboot_vip_advertisements_sent_total"
	metricVIPDropped = "everboot_vip_advertisements_dropped_total" // label reason
	metricVIPOdd     = "everboot_vip_oddities_total"               // label kind
)

func (c collector) vip(send emit) {
	s := c.w.vip.Status()
	send(metricVIPActive, "Whether this node owns the floating addresses.", prometheus.GaugeValue, truth(s.State == vrrp.Active))
	send(metricVIPSent, "VRRP advertisements sent.", prometheus.CounterValue, float64(s.Sent))
	for reason, n := range s.Dropped {
		send(metricVIPDropped, "VRRP advertisements dropped.", prometheus.CounterValue, float64(n), "reason", string(reason))
	}
	for kind, n := range s.Odd {
		send(metricVIPOdd, "VRRP advertisements that nobody meant so.", prometheus.CounterValue, float64(n), "kind", string(kind))
	}
}
