package appliance

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"

	"everboot/vip"
	"everboot/vip/vrrp"
)

// Targets that are redirected talk to their streamer's own address. If that floats (iscsi.vrids), its streamer owns it for as long as it is there, and waits
// for nobody; the appliances take it when it falls silent. They serve nothing there: the targets' packets are answered with a reset, and they come
// back to the floating address of the appliances at once.

// homeTime is how long a streamer that starts waits for its own addresses: somebody else may have to let go first.
const homeTime = 10 * time.Second

// vipConfigs returns a virtual router for each of the addresses; none if they do not float.
func (c *StreamerConfig) vipConfigs() ([]vip.Config, error) {
	var configs []vip.Config
	for i, vrid := range c.ISCSI.VRIDs {
		link, home, err := homeOf(c.ISCSI.Addresses[i].Addr())
		if err != nil {
			return nil, fmt.Errorf("iscsi.vrids: %w", err)
		}
		configs = append(configs, vip.Config{Interface: link, Addresses: []netip.Prefix{home}, VRID: vrid, Priority: vrrp.Owner})
	}
	return configs, nil
}

// homeOf returns the interface in whose net a floating address is, and the address with the bits of that net.
func homeOf(floating netip.Addr) (link string, home netip.Prefix, err error) {
	links, err := net.Interfaces()
	if err != nil {
		return "", home, err
	}
	for _, l := range links {
		own, err := interfaceAddrs(l.Name)
		if err != nil {
			continue // it went away meanwhile
		}
		for _, p := range own {
			if p.Contains(floating) && p.Addr() != floating {
				return l.Name, netip.PrefixFrom(floating, p.Bits()), nil
			}
		}
	}
	return "", home, fmt.Errorf("%s is in no net of this host; give an interface an address of its own in that net, beside the one that floats", floating)
}

// withAddresses runs serve while this host has its floating addresses, if it has any.
func (c *StreamerConfig) withAddresses(ctx context.Context, log *slog.Logger, serve func(context.Context) error) error {
	configs, err := c.vipConfigs()
	if err != nil {
		return err
	}
	if len(configs) == 0 {
		return serve(ctx)
	}
	routers, err := vip.NewAll(configs, log)
	if err != nil {
		return err
	}
	return serveAt(ctx, routers, serve)
}

// homeRouter is what serving at floating addresses needs of a *vip.Router.
type homeRouter interface {
	Run(ctx context.Context) error
	Changes() <-chan vip.Transition
}

// serveAt runs serve while the routers have their addresses. A router that fails ends all of it: what would serve on announces an address that is not here.
func serveAt[R homeRouter](ctx context.Context, routers []R, serve func(context.Context) error) error {
	life, end := context.WithCancel(context.WithoutCancel(ctx)) // the addresses go when nothing serves there any more
	defer end()
	group, life := errgroup.WithContext(life)
	for _, r := range routers {
		group.Go(func() error { return r.Run(life) })
	}
	group.Go(func() error {
		defer end()
		ctx, stop := context.WithCancel(ctx)
		defer stop()
		defer context.AfterFunc(life, stop)()
		for _, r := range routers {
			if err := comeHome(ctx, r); err != nil {
				return err
			}
		}
		return serve(ctx)
	})
	return group.Wait()
}

// comeHome waits until a router has its address. It returns nil also when ctx ends.
func comeHome(ctx context.Context, r homeRouter) error {
	late := time.After(homeTime)
	for {
		select {
		case t, running := <-r.Changes():
			if !running {
				return errors.New("the router of a floating address of iscsi.addresses ended")
			}
			if t.To == vrrp.Active {
				return nil
			}
		case <-ctx.Done():
			return nil
		case <-late:
			return fmt.Errorf("a floating address of iscsi.addresses did not come here within %v; is its vrid another router's?", homeTime)
		}
	}
}
