package appliance

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"everboot/site"
	"everboot/vip"
	"everboot/vip/vrrp"
)

// fakeRouter has its address from the start.
type fakeRouter struct{ run func(context.Context) error }

func (f fakeRouter) Run(ctx context.Context) error { return f.run(ctx) }

func (fakeRouter) Status() vip.Status {
	return vip.Status{State: vrrp.Active, Transitions: map[vrrp.Cause]uint64{vrrp.Silence: 2, vrrp.Resigned: 1, vrrp.Outranked: 4}}
}

// TestStandInsFollowTheView: one for each floating address in our net, until a while after the streamer has left; one that cannot be is not tried each second.
func TestStandInsFollowTheView(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opened, running := 0, map[netip.Addr]bool{}
		s := &standIns{
			link: "eth0", own: func() ([]netip.Prefix, error) { return []netip.Prefix{netip.MustParsePrefix("198.18.0.2/24")}, nil },
			priority: 100, log: slog.New(slog.DiscardHandler), news: make(chan *site.View, 1), by: make(map[standInKey]*standIn),
			open: func(cfg vip.Config, others []vip.Config) (standInRouter, error) {
				opened++
				if vip.CheckTogether(append(others, cfg)) != nil {
					return nil, errors.New("taken")
				}
				at := cfg.Addresses[0].Addr()
				running[at] = true
				return fakeRouter{func(ctx context.Context) error { <-ctx.Done(); delete(running, at); return nil }}, nil
			},
		}
		at := func(a string, vrid int) site.Streamer {
			return site.Streamer{Name: a, Site: "berlin", Addresses: []netip.AddrPort{netip.MustParseAddrPort(a)}, VRIDs: []int{vrid}}
		}
		full := site.Empty("berlin", "embedded")
		full.Streamers = map[string]site.Streamer{
			"s1": at("198.18.0.121:3260", 61), "s2": at("198.18.0.122:3260", 61), "far": at("198.19.0.121:3260", 63), "fixed": {Site: "berlin", Addresses: full.Streamers["s1"].Addresses},
		}
		ctx, cancel := context.WithCancel(t.Context())
		for range 30 {
			s.follow(ctx, full, time.Now())
			time.Sleep(time.Second)
		}
		synctest.Wait()
		if opened != 2 || len(running) != 1 {
			t.Errorf("%d were opened, %v run: want s1's alone, and one try for s2, whose id is taken", opened, running)
		}
		list := s.status()
		if len(list) != 2 || list[0].State != "active" || list[0].TakeOvers != 3 || list[1].State != "" {
			t.Errorf("they say %+v", list)
		}
		if warnings := standInWarnings(list); len(warnings) != 2 || !strings.Contains(warnings[0], "not heard at its floating address 198.18.0.121") || !strings.Contains(warnings[1], "nobody here stands in") {
			t.Errorf("warnings %q", warnings)
		}
		empty := site.Empty("berlin", "embedded")
		s.follow(ctx, empty, time.Now())
		synctest.Wait()
		if len(running) != 1 {
			t.Error("nobody stands in for a streamer that has just left")
		}
		time.Sleep(2 * standInMemory)
		s.follow(ctx, empty, time.Now())
		synctest.Wait()
		if len(running) != 0 || len(s.by) != 0 {
			t.Errorf("%v still run", running)
		}
		cancel()
		s.done.Wait()
	})
}
