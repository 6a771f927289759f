package vip

import (
	"fmt"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"everboot/vip/vrrp"
)

func TestARouterShowsThatItIsAtWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cable{}
		var last time.Time
		longest, n := time.Duration(0), 0
		a := c.run(t, "198.18.0.2", func(cfg *Config) {
			cfg.Beat = func() {
				if n++; n > 1 {
					longest = max(longest, time.Since(last))
				}
				last = time.Now()
			}
		})
		time.Sleep(time.Minute)
		a.stop(t)
		patience := Patience(a.cfg)
		if longest > patience/4 || n > 8*int(time.Minute/patience) {
			t.Errorf("%d beats, up to %s apart; the guard's patience is %s", n, longest, patience)
		}
	})
}

// TestARouterThatWasFrozenLetsGo: its guard has taken the addresses away although the others, who wait longer, have not yet taken over.
func TestARouterThatWasFrozenLetsGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cable{}
		hang := make(chan struct{})
		var frozen atomic.Bool
		a := c.run(t, "198.18.0.2", func(cfg *Config) {
			cfg.AdvertInterval = 2 * time.Second
			cfg.Beat = func() {
				if frozen.Load() {
					<-hang
				}
			}
		})
		time.Sleep(20 * time.Second)
		a.wantState(t, vrrp.Active)
		frozen.Store(true)
		time.Sleep(patienceMax)
		a.set(func() { a.did = nil })
		frozen.Store(false)
		close(hang)
		a.wantState(t, vrrp.Backup)
		if did := a.done(); fmt.Sprint(did) != "[drop advertise 0]" || a.Status().Last.Cause != vrrp.Overslept {
			t.Errorf("on waking it did %q", did)
		}
		a.stop(t)
	})
}

func TestPatience(t *testing.T) {
	cfg := func(interval time.Duration) Config {
		c := good()
		c.AdvertInterval = interval
		return c
	}
	for _, c := range []struct {
		configs []Config
		want    time.Duration
	}{
		{[]Config{cfg(10 * time.Millisecond)}, patienceMin},
		{[]Config{cfg(0)}, vrrp.DownInterval(DefaultPriority, DefaultInterval) + 2*DefaultInterval},
		{[]Config{cfg(time.Minute / 2)}, patienceMax},
		{[]Config{cfg(time.Minute / 2), cfg(10 * time.Millisecond)}, patienceMin},
	} {
		if got := Patience(c.configs...); got != c.want {
			t.Errorf("got %s, want %s", got, c.want)
		}
	}
}

// TestAnotherRoutersCounterDoesNotCount: routers of one host have counters of their own, and without a hub each hears all of them.
func TestAnotherRoutersCounterDoesNotCount(t *testing.T) {
	c := &cable{}
	e := c.port("198.18.0.3").edge()
	e.auth = vrrp.NewAuth([]byte("key"))
	r := newRouter(good().withDefaults(), e, slog.New(slog.DiscardHandler))
	peer := netip.MustParseAddr("198.18.0.2")
	for _, sent := range []struct {
		vrid    uint8
		counter uint64
	}{{52, 2}, {51, 1}} {
		message, err := vrrp.Advertisement{VRID: sent.vrid, Priority: 100, Interval: time.Second, Addresses: good().addrs()}.Marshal(peer, vrrp.Group4())
		if err != nil {
			t.Fatal(err)
		}
		message = vrrp.NewAuth([]byte("key")).Seal(sent.counter, peer, vrrp.Group4(), message)
		r.arrived(arrival{packet: vrrp.Packet{Source: peer, Destination: vrrp.Group4(), TTL: vrrp.TTL, Payload: message}})
	}
	if s := r.Status(); s.Accepted != 1 || s.Dropped[vrrp.OtherVRID] != 1 {
		t.Errorf("accepted %d, dropped %v", s.Accepted, s.Dropped)
	}
}
