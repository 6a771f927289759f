package vip

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
)

// shared is what the routers of one socket have in common.
type shared struct {
	name string
	six  bool
}

// NewAll returns a Router for each configuration, as New does; those of one interface and family share a socket. It returns all
// or none.
func NewAll(configs []Config, log *slog.Logger) ([]*Router, error) {
	var routers []*Router
	hubs := map[shared]*hub{}
	fail := func(err error) ([]*Router, error) {
		for _, r := range routers {
			err = errors.Join(err, r.Close())
		}
		return nil, err
	}
	if err := CheckTogether(configs); err != nil {
		return nil, err
	}
	for _, cfg := range configs {
		cfg = cfg.withDefaults()
		if err := errors.Join(Check(cfg)...); err != nil {
			return fail(err)
		}
		key := shared{cfg.Interface, cfg.is6()}
		if len(configs) == 1 || len(cfg.Peers) > 0 {
			r, err := New(cfg, log)
			if err != nil {
				return fail(err)
			}
			routers = append(routers, r)
			continue
		}
		if hubs[key] == nil {
			link, err := net.InterfaceByName(cfg.Interface)
			if err != nil {
				return fail(fmt.Errorf("looking up interface %s: %w", cfg.Interface, err))
			}
			w, err := openWire(link, cfg, listening)
			if err != nil {
				return fail(err)
			}
			hubs[key] = newHub(w)
		}
		e, err := open(cfg, listening, hubs[key].port(uint8(cfg.VRID)))
		if err != nil {
			return fail(err)
		}
		routers = append(routers, newRouter(cfg, e, log))
	}
	return routers, nil
}

// CheckTogether returns what is wrong with virtual routers that are each good by themselves: two of one VRID on an interface, two
// with one address.
func CheckTogether(configs []Config) error {
	type group struct {
		shared
		vrid int
	}
	var errs []error
	groups, addresses := map[group]bool{}, map[string]int{}
	for _, c := range configs {
		g := group{shared{c.Interface, c.is6()}, c.VRID}
		if groups[g] {
			errs = append(errs, fmt.Errorf("vip: vrid %d stands twice on interface %s; give each virtual router its own", c.VRID, c.Interface))
		}
		groups[g] = true
		for _, a := range c.addrs() {
			other, taken := addresses[a.String()]
			if taken && other != c.VRID {
				errs = append(errs, fmt.Errorf("vip: address %s is that of vrid %d and of vrid %d; give it to one", a, other, c.VRID))
			}
			addresses[a.String()] = c.VRID
		}
	}
	return errors.Join(errs...)
}
