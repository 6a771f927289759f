package vip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"everboot/vip/vrrp"
)

// node is a router that runs at a port.
type node struct {
	*Router
	*port
	cancel context.CancelFunc
	err    chan error
}

func (n *node) stop(t *testing.T) {
	t.Helper()
	n.cancel()
	if err := <-n.err; err != nil {
		t.Errorf("Run returned %v", err)
	}
}

func (n *node) wantState(t *testing.T, want vrrp.State) {
	t.Helper()
	synctest.Wait()
	if got := n.Status().State; got != want {
		t.Fatalf("%s is %s, want %s", n.addr, got, want)
	}
	if n.holds() != (want == vrrp.Active) {
		t.Fatalf("%s is %s and holds the addresses: %t", n.addr, want, n.holds())
	}
}

func (c *cable) run(t *testing.T, addr string, change func(*Config)) *node {
	t.Helper()
	cfg := good()
	if change != nil {
		change(&cfg)
	}
	p := c.port(addr)
	n := &node{Router: newRouter(cfg.withDefaults(), p.edge(), slog.New(slog.DiscardHandler)), port: p, err: make(chan error, 1)}
	ctx, cancel := context.WithCancel(t.Context())
	n.cancel = cancel
	go func() { n.err <- n.Run(ctx) }()
	<-n.Ready()
	return n
}

func TestRoutersTakeOverFromEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cable{}
		a := c.run(t, "198.18.0.2", nil)
		b := c.run(t, "198.18.0.3", func(cfg *Config) { cfg.Priority = 90 })
		time.Sleep(time.Second)
		a.wantState(t, vrrp.Active)
		b.wantState(t, vrrp.Backup)
		if got := b.Status().Owner; got != a.addr {
			t.Errorf("b says that %s is the owner", got)
		}
		a.cancel()
		time.Sleep(vrrp.SkewTime(90, DefaultInterval))
		b.wantState(t, vrrp.Active)
		a.wantState(t, vrrp.Active) // it answers until nobody asks it any more
		a.stop(t)
		if s := b.Status(); s.Last.Cause != vrrp.Resigned || s.Owner != b.addr || s.Dropped[vrrp.FromSelf] != 0 {
			t.Errorf("b says %+v", s)
		}
		if s := a.Status(); s.State != vrrp.Initialize || s.Last.Cause != vrrp.Stopped {
			t.Errorf("a says %+v", s)
		}
		// The order is the contract: it resigns while it still answers.
		if did := a.done(); !slices.Equal(did[len(did)-2:], []string{"advertise 0", "drop"}) {
			t.Errorf("a stopped with %q", did)
		}
		b.stop(t)
	})
}

func TestAnActiveRouterRenewsAndAnnounces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cable{}
		a := c.run(t, "198.18.0.2", nil)
		began := time.Now().Add(vrrp.DownInterval(DefaultPriority, DefaultInterval))
		for range 130 {
			time.Sleep(time.Second)
			a.wantState(t, vrrp.Active)
		}
		var at []time.Duration
		for _, when := range a.announcements() {
			at = append(at, when.Sub(began))
		}
		if got, want := fmt.Sprint(at), "[0s 1.1s 2.2s 3.3s 4.4s 1m4.4s 2m4.4s]"; got != want {
			t.Errorf("announced at %s, want %s", got, want)
		}
		if did := a.done(); !slices.Equal(did[:4], []string{"drop", "add", "advertise 100", "announce"}) {
			t.Errorf("it began with %q", did[:4])
		}
		a.stop(t)
	})
}

// TestARouterThatLeavesDrawsNothing: a refresh that falls due between its resignation and its end must not follow the next owner's.
func TestARouterThatLeavesDrawsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cable{}
		a := c.run(t, "198.18.0.2", nil)
		time.Sleep(2 * time.Second)
		a.wantState(t, vrrp.Active)
		refresh := a.announcements()[0].Add(4*announceInterval + refreshInterval)
		time.Sleep(time.Until(refresh.Add(-10 * time.Millisecond)))
		before := len(a.announcements())
		if err := a.Release(t.Context()); !errors.Is(err, ErrNoHeir) {
			t.Errorf("Release with nobody there = %v", err)
		}
		if n := len(a.announcements()) - before; n != 0 {
			t.Errorf("it announced %d times after it had resigned", n)
		}
		time.Sleep(refreshInterval)
		if n := len(a.announcements()) - before; n != 1 {
			t.Errorf("it announced %d times in a minute after it stayed, want 1", n)
		}
		a.stop(t)
	})
}

func TestAPartitionHealsAndTheWinnerAnnouncesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cable{}
		a, b := c.run(t, "198.18.0.2", nil), c.run(t, "198.18.0.3", nil)
		time.Sleep(10 * time.Second)
		b.set(func() { b.silent = true })
		time.Sleep(10 * time.Second)
		a.wantState(t, vrrp.Active)
		b.wantState(t, vrrp.Active)
		before := len(b.announcements())
		b.set(func() { b.silent = false })
		time.Sleep(DefaultInterval)
		a.wantState(t, vrrp.Backup)
		b.wantState(t, vrrp.Active) // the higher address
		if len(b.announcements()) == before {
			t.Error("b did not announce again")
		}
		if b.Status().Odd[SecondActive] == 0 {
			t.Error("b did not notice the second active router")
		}
		a.stop(t)
		b.stop(t)
	})
}

func TestPriorityFollowsHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cable{}
		a, b := c.run(t, "198.18.0.2", nil), c.run(t, "198.18.0.3", func(cfg *Config) { cfg.Priority = 90 })
		time.Sleep(time.Second)
		a.SetPriority(SickPriority)
		for range 100 {
			time.Sleep(10 * time.Millisecond)
			synctest.Wait()
			if !a.holds() && !b.holds() {
				t.Fatal("nobody holds the addresses")
			}
		}
		a.wantState(t, vrrp.Backup)
		b.wantState(t, vrrp.Active)
		if got := a.Status().Priority; got != SickPriority {
			t.Errorf("a says that its priority is %d", got)
		}
		b.SetPriority(0)
		time.Sleep(time.Second)
		a.wantState(t, vrrp.Active) // sick, but better than nobody
		b.wantState(t, vrrp.Backup)
		a.SetPriority(0)
		time.Sleep(time.Minute)
		a.wantState(t, vrrp.Backup)
		b.wantState(t, vrrp.Backup)
		b.SetPriority(90)
		time.Sleep(time.Second)
		b.wantState(t, vrrp.Active)
		a.stop(t)
		b.stop(t)
	})
}

func TestAddressesThatCannotBeAddedAreNotAdvertised(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cable{}
		a := c.run(t, "198.18.0.2", nil)
		time.Sleep(time.Second)
		a.set(func() { a.holdError = errors.New("no such device") })
		time.Sleep(2 * time.Second) // the renewal fails
		a.wantState(t, vrrp.Backup)
		if got := a.Status().Last.Cause; got != vrrp.HoldFailed {
			t.Errorf("the cause is %q", got)
		}
		a.set(func() { a.did = nil })
		time.Sleep(vrrp.DownInterval(DefaultPriority, DefaultInterval))
		for _, did := range a.done() {
			if did == "announce" || did == "advertise 100" {
				t.Errorf("without its addresses it did %q", a.done())
			}
		}
		a.set(func() { a.holdError = nil })
		time.Sleep(time.Second)
		a.wantState(t, vrrp.Active)
		a.stop(t)
	})
}

func TestWhatIsDroppedAndWhatIsOddIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cable{}
		a := c.run(t, "198.18.0.2", nil)
		other := c.port("198.18.0.3")
		send := func(from netip.Addr, ttl uint8, adv vrrp.Advertisement) {
			message, err := adv.Marshal(from, vrrp.Group4())
			if err != nil {
				t.Fatal(err)
			}
			a.queue <- vrrp.Packet{Source: from, Destination: vrrp.Group4(), TTL: ttl, Payload: message}
		}
		adv := vrrp.Advertisement{VRID: 51, Priority: 200, Interval: time.Second, Addresses: []netip.Addr{other.addr}}
		send(other.addr, 255, adv)
		send(other.addr, 254, adv)
		send(a.addr, 255, adv)
		adv.VRID = 52
		send(other.addr, 255, adv)
		synctest.Wait()
		s := a.Status()
		if s.Accepted != 1 || s.Odd[OtherAddresses] != 1 || s.Odd[OtherInterval] != 1 || s.Owner != other.addr {
			t.Errorf("got %+v", s)
		}
		for _, reason := range []vrrp.Reason{vrrp.BadTTL, vrrp.FromSelf, vrrp.OtherVRID} {
			if s.Dropped[reason] != 1 {
				t.Errorf("dropped for %q: %d, want 1", reason, s.Dropped[reason])
			}
		}
		a.stop(t)
	})
}

func TestChangesNeverBlockTheRouter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cable{}
		a := c.run(t, "198.18.0.2", nil)
		for range 20 { // nobody reads
			a.SetPriority(0)
			time.Sleep(time.Second)
			a.SetPriority(100)
			time.Sleep(time.Second)
		}
		a.stop(t)
		var last Transition
		n := 0
		for last = range a.Changes() {
			n++
		}
		if n != cap(a.changes) || last.Cause != vrrp.Stopped {
			t.Errorf("got %d changes, the last is %q", n, last.Cause)
		}
	})
}

func TestGuardReleasesOnlyWhatIsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cable{}
		b := c.run(t, "198.18.0.3", nil)
		dead := c.port("198.18.0.2")
		g := &Guard{cfg: good().withDefaults(), log: slog.New(slog.DiscardHandler), edge: dead.edge()}
		if err := g.Release(); err != nil || fmt.Sprint(dead.done()) != "[drop]" {
			t.Errorf("without an address: %v, %q", err, dead.done())
		}
		if err := dead.Hold(addressLifetime); err != nil {
			t.Fatal(err)
		}
		dead.set(func() { dead.did = nil })
		if err := g.Release(); err != nil || fmt.Sprint(dead.done()) != "[drop advertise 0]" {
			t.Errorf("with an address: %v, %q", err, dead.done())
		}
		time.Sleep(vrrp.SkewTime(DefaultPriority, DefaultInterval))
		b.wantState(t, vrrp.Active)
		b.stop(t)
	})
}

func TestRunEndsWhenNothingCanBeReceived(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cable{}
		p := c.port("198.18.0.2")
		boom := errors.New("the interface is gone")
		e := p.edge()
		e.wire = brokenWire{p, boom}
		r := newRouter(good().withDefaults(), e, slog.New(slog.DiscardHandler))
		if err := r.Run(t.Context()); !errors.Is(err, boom) {
			t.Errorf("Run returned %v", err)
		}
	})
}

type brokenWire struct {
	*port
	err error
}

func (w brokenWire) Receive() (vrrp.Packet, vrrp.Reason, error) {
	return vrrp.Packet{}, vrrp.Accepted, w.err
}

func TestAHandOverLeavesNoGapAndNoTwoOwners(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cable{}
		a := c.run(t, "198.18.0.2", nil)
		b := c.run(t, "198.18.0.3", func(cfg *Config) { cfg.Priority = 90 })
		time.Sleep(10 * time.Second)
		if err := b.Release(t.Context()); !errors.Is(err, ErrNotOwner) {
			t.Errorf("Release of a backup = %v", err)
		}
		before := len(b.announcements())
		released := make(chan error, 1)
		go func() { released <- a.Release(t.Context()) }()
		var both time.Duration
		for range 1000 {
			time.Sleep(time.Millisecond)
			synctest.Wait()
			switch {
			case !a.holds() && !b.holds():
				t.Fatal("nobody holds the addresses")
			case a.holds() && b.holds():
				both += time.Millisecond
			}
		}
		if err := <-released; err != nil || both == 0 || both > 25*time.Millisecond {
			t.Errorf("Release = %v; both held the addresses for %s", err, both)
		}
		a.wantState(t, vrrp.Backup)
		b.wantState(t, vrrp.Active)
		if got := a.Status().Last.Cause; got != vrrp.HandedOver {
			t.Errorf("a is a backup because %s", got)
		}
		// Once more soon after, when a has let go for certain.
		if at := b.announcements()[before:]; len(at) != 2 || at[1].Sub(at[0]) != handOverGap {
			t.Errorf("b announced at %v", at)
		}
		b.stop(t)
		time.Sleep(time.Second)
		if err := a.Release(t.Context()); !errors.Is(err, ErrNoHeir) {
			t.Errorf("Release with nobody there = %v", err)
		}
		a.wantState(t, vrrp.Active)
		a.stop(t)
		if err := a.Release(t.Context()); !errors.Is(err, ErrStopped) {
			t.Errorf("Release of a router that has stopped = %v", err)
		}
	})
}
