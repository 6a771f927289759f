package vip

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"everboot/vip/vrrp"
)

// Guard takes the addresses away from a Router whose process has died, and resigns for it. It belongs into the process that
// started the router's: that one hears of the death within a millisecond. It needs the same rights as the Router.
type Guard struct {
	cfg  Config
	log  *slog.Logger
	edge edge
}

// NewGuard opens all that a release needs, in the caller's network namespace, so that nothing can be missing later. It changes
// nothing on the host.
func NewGuard(cfg Config, log *slog.Logger) (*Guard, error) {
	cfg = cfg.withDefaults()
	if err := errors.Join(Check(cfg)...); err != nil {
		return nil, err
	}
	link, err := net.InterfaceByName(cfg.Interface)
	if err != nil {
		return nil, fmt.Errorf("looking up interface %s: %w", cfg.Interface, err)
	}
	w, err := openWire(link, cfg, deaf)
	if err != nil {
		return nil, err
	}
	e, err := open(cfg, w)
	if err != nil {
		return nil, err
	}
	return &Guard{cfg: cfg, log: log.With("vrid", cfg.VRID, "interface", cfg.Interface), edge: e}, nil
}

// Release removes the floating addresses and then, if there were any, sends the advertisement with priority 0, at which the
// next router takes over. The order is not that of a Router that stops: what served at the addresses is dead already.
// If there were none, another node may own them, and nothing is said. It may be called again.
func (g *Guard) Release() error {
	began := time.Now()
	removed, err := g.edge.Drop()
	if err != nil {
		err = fmt.Errorf("releasing the addresses %v of a dead worker (the kernel will within %s): %w", g.cfg.addrs(), addressLifetime, err)
	}
	if removed == 0 {
		return err
	}
	m := vrrp.New(g.cfg.machine(g.edge.primary))
	sendErr := send(g.edge, g.edge.wire, g.cfg, m.Advertisement(vrrp.Advertise{Priority: 0}))
	if sendErr != nil {
		sendErr = fmt.Errorf("resigning for a dead worker: %w", sendErr)
	}
	g.log.Warn("released the addresses of a dead worker", "addresses", g.cfg.addrs(), "removed", removed, "took", time.Since(began))
	return errors.Join(err, sendErr)
}

// Close closes the sockets. It releases nothing.
func (g *Guard) Close() error { return g.edge.close() }

// Guards are the guards of all routers of a process.
type Guards []*Guard

// NewGuards returns a Guard for each configuration, or none.
func NewGuards(configs []Config, log *slog.Logger) (Guards, error) {
	var all Guards
	for _, cfg := range configs {
		g, err := NewGuard(cfg, log)
		if err != nil {
			return nil, errors.Join(err, all.Close())
		}
		all = append(all, g)
	}
	return all, nil
}

// Release releases the addresses of all.
func (all Guards) Release() error {
	var errs []error
	for _, g := range all {
		errs = append(errs, g.Release())
	}
	return errors.Join(errs...)
}

// Close closes the sockets of all.
func (all Guards) Close() error {
	var errs []error
	for _, g := range all {
		errs = append(errs, g.Close())
	}
	return errors.Join(errs...)
}
