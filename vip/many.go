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

// opener opens routers, which share what they can.
type opener struct {
	hubs     map[shared]*hub
	watches  map[string]*watch
	together bool // there are several
}

// Opener opens routers one by one, as they become known; those of one interface and family share a socket. It is for one goroutine.
type Opener struct {
	opener
	log *slog.Logger
}

// NewOpener returns an Opener that has opened none.
func NewOpener(log *slog.Logger) *Opener {
	return &Opener{opener{hubs: map[shared]*hub{}, watches: map[string]*watch{}, together: true}, log}
}

// Open does what New does. CheckTogether knows what must not be open at the same time.
func (o *Opener) Open(cfg Config) (*Router, error) { return o.open(cfg.withDefaults(), o.log) }

// NewAll returns a Router for each configuration, as New does; those of one interface and family share a socket. It returns all
// or none.
func NewAll(configs []Config, log *slog.Logger) ([]*Router, error) {
	if err := CheckTogether(configs); err != nil {
		return nil, err
	}
	o := opener{hubs: map[shared]*hub{}, watches: map[string]*watch{}, together: len(configs) > 1}
	var routers []*Router
	for _, cfg := range configs {
		r, err := o.open(cfg.withDefaults(), log)
		if err != nil {
			for _, r := range routers {
				err = errors.Join(err, r.Close())
			}
			return nil, err
		}
		routers = append(routers, r)
	}
	return routers, nil
}

func (o *opener) open(cfg Config, log *slog.Logger) (*Router, error) {
	if err := errors.Join(Check(cfg)...); err != nil {
		return nil, err
	}
	link, err := net.InterfaceByName(cfg.Interface)
	if err != nil {
		return nil, fmt.Errorf("looking up interface %s: %w", cfg.Interface, err)
	}
	w, err := o.wire(link, cfg)
	if err != nil {
		return nil, err
	}
	e, err := open(cfg, w)
	if err != nil {
		return nil, err
	}
	if v, ok := e.table.(*virtualTable); ok {
		v.router = true
	}
	probes, err := openProber(link, cfg.addrs())
	if err != nil {
		return nil, errors.Join(err, e.close())
	}
	closeRest := e.close
	e.probes, e.close = probes, func() error { return errors.Join(probes.Close(), closeRest()) }
	r := newRouter(cfg, e, log)
	if w := o.watches[cfg.Interface]; w == nil || w.over() {
		if o.watches[cfg.Interface], err = openWatch(link, log); err != nil {
			return nil, errors.Join(err, r.Close())
		}
	}
	o.watches[cfg.Interface].join(r)
	return r, nil
}

// wire returns a port of the hub that the routers of an interface and family share. One that is alone, or hears its peers only, has
// a socket of its own.
func (o *opener) wire(link *net.Interface, cfg Config) (sharedWire, error) {
	if !o.together || len(cfg.Peers) > 0 {
		return openWire(link, cfg, listening)
	}
	key := shared{cfg.Interface, cfg.is6()}
	if h := o.hubs[key]; h == nil || h.over() {
		w, err := openWire(link, cfg, listening)
		if err != nil {
			return nil, err
		}
		o.hubs[key] = newHub(w)
	}
	return o.hubs[key].port(uint8(cfg.VRID)), nil
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
			if a.IsLinkLocalUnicast() { // each link has its own
				a = a.WithZone(c.Interface)
			}
			other, taken := addresses[a.String()]
			if taken {
				errs = append(errs, fmt.Errorf("vip: address %s is that of vrid %d and of vrid %d; give it to one", a, other, c.VRID))
			}
			addresses[a.String()] = c.VRID
		}
	}
	return errors.Join(errs...)
}
