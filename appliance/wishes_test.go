package appliance

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"everboot/site"
)

// flaky is a registry that can be away, and what was written to it.
type flaky struct {
	mu      sync.Mutex
	away    bool
	states  map[string]string
	changed func(site.Content, site.Registry)
}

func (f *flaky) Run(ctx context.Context, changed func(site.Content, site.Registry)) error {
	f.mu.Lock()
	f.changed = changed
	f.mu.Unlock()
	f.set(f.away)
	<-ctx.Done()
	return nil
}

func (f *flaky) set(away bool) {
	f.mu.Lock()
	f.away = away
	changed := f.changed
	f.mu.Unlock()
	changed(site.Content{}, site.Registry{Reachable: !away})
}

func (f *flaky) Put(_ context.Context, _ site.Kind, key string, value []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.away {
		return &net.OpError{Op: "dial", Err: errors.New("refused")}
	}
	f.states[key] = string(value)
	return nil
}

func (f *flaky) Add(context.Context, site.Kind, string, []byte) error { return nil }
func (f *flaky) Delete(context.Context, site.Kind, string) error      { return nil }
func (f *flaky) written() map[string]string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.states)
}

// wisher is an appliance as far as its wishes go.
type wisher struct {
	*wishes
	registry *flaky
	counts   map[string]site.StreamerState
}

func newWisher(away bool) *wisher {
	n := &wisher{registry: &flaky{away: away, states: make(map[string]string)}}
	view := site.Empty("berlin", "consul")
	view.Streamers = map[string]site.Streamer{"s1": {Name: "s1"}, "s2": {Name: "s2"}}
	n.wishes = newWishes(n.registry, func() *site.View { return view }, func([]byte) {}, time.Now, slog.New(slog.DiscardHandler))
	n.count = func(held map[string]site.StreamerState) { n.counts = held }
	return n
}

// TestDrainWithoutConsul: what the operator says of a streamer while Consul is away counts here and at the peer, outlives a restart, and is in
// Consul when that is back; the last word wins.
func TestDrainWithoutConsul(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		a, b := newWisher(true), newWisher(true)
		a.tell = func(m []byte) { b.merge("a", m) }
		b.tell = func(m []byte) { a.merge("b", m) }
		var all sync.WaitGroup
		for _, n := range []*wisher{a, b} {
			all.Go(func() { n.Run(ctx, func(site.Content, site.Registry) {}) })
		}
		synctest.Wait()
		if err := a.Put(ctx, site.KindStreamerState, "s9", []byte(`"draining"`)); err == nil {
			t.Error("a streamer that nobody knows is drained")
		}
		if err := a.Put(ctx, site.KindDevice, "52:54:00:00:00:01", []byte(`{}`)); err == nil {
			t.Error("a device is kept that Consul did not take")
		}
		for _, said := range []struct{ name, state string }{{"s1", `"draining"`}, {"s2", `"draining"`}, {"s2", `"active"`}} {
			if err := a.Put(ctx, site.KindStreamerState, said.name, []byte(said.state)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		want := map[string]site.StreamerState{"s1": site.Draining, "s2": site.Active}
		for name, n := range map[string]*wisher{"a": a, "b": b} {
			if !maps.Equal(n.counts, want) {
				t.Errorf("at %s these count: %v", name, n.counts)
			}
		}
		again := newWisher(true)
		again.load(a.whole())
		again.apply()
		if !maps.Equal(again.counts, want) {
			t.Errorf("after a restart these count: %v", again.counts)
		}
		if err := b.Put(ctx, site.KindStreamerState, "s1", []byte(`"active"`)); err != nil { // somebody else's last word
			t.Fatal(err)
		}
		b.registry.set(false)
		synctest.Wait()
		if got := b.registry.written(); got["s1"] != `"active"` || got["s2"] != `"active"` {
			t.Errorf("Consul has %v", got)
		}
		b.registry.set(false) // it speaks again, and knows
		a.merge("b", encodeWishes([]wish{{Streamer: "s1", State: site.Draining, At: time.Now().Add(-time.Minute)}}))
		synctest.Wait()
		if len(b.counts) != 0 || a.counts["s1"] != site.Active {
			t.Errorf("what Consul knows still counts as said here: %v; an old word beats a newer one: %v", b.counts, a.counts)
		}
		cancel()
		all.Wait()
	})
}

// TestWishesFromTheWire: a peer's message is taken as far as it can be.
func TestWishesFromTheWire(t *testing.T) {
	n := newWisher(true)
	future := encodeWishes([]wish{{Streamer: "s1", State: site.Draining, At: time.Now().Add(24 * time.Hour)}})
	for _, m := range [][]byte{nil, {9}, {wishesFormat}, []byte("\x01[{"), []byte("\x01" + `[{"streamer":"s1","state":"burnt"}]`), future} {
		n.merge("a", m)
	}
	if len(n.counts) != 0 {
		t.Errorf("these count: %v", n.counts)
	}
}

// TestAnOldWishIsNotWrittenLate: what an appliance has kept while it was off gives way to what its peer was told since, and is forgotten in the end.
func TestAnOldWishIsNotWrittenLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := func(n *wisher) (stop func()) {
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() { n.Run(ctx, func(site.Content, site.Registry) {}); close(done) }()
			synctest.Wait()
			return func() { cancel(); <-done }
		}
		put := func(n *wisher, state string) {
			if err := n.Put(t.Context(), site.KindStreamerState, "s1", []byte(state)); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		a, b := newWisher(true), newWisher(true)
		a.tell = func(m []byte) { b.merge("a", m) }
		stopA, stopB := start(a), start(b)
		put(a, `"draining"`)
		disk := b.whole()
		stopB() // b is switched off
		a.tell = func([]byte) {}
		a.registry.set(false)
		time.Sleep(time.Minute)
		put(a, `"active"`)

		b = newWisher(false)
		b.load(disk)
		stopB = start(b)
		time.Sleep(wishSettle / 2)
		if got := b.registry.written(); len(got) != 0 {
			t.Errorf("written before a peer could say what it knows: %v", got)
		}
		b.merge("a", a.whole())
		time.Sleep(2 * wishSettle)
		if got := b.registry.written(); len(got) != 0 || b.counts["s1"] == site.Draining {
			t.Errorf("an old wish is written: %v, or counts: %v", got, b.counts)
		}
		stopB()

		b = newWisher(false) // its peer is gone
		b.load(disk)
		stopB = start(b)
		time.Sleep(2 * wishSettle)
		if got := b.registry.written(); got["s1"] != `"draining"` {
			t.Errorf("nobody says otherwise, and it is not written: %v", got)
		}
		a.merge("b", b.whole()) // it was written after a's, which is newer
		synctest.Wait()
		a.registry.mu.Lock()
		delete(a.registry.states, "s1")
		a.registry.mu.Unlock()
		a.merge("b", b.whole())
		time.Sleep(2 * wishRetry)
		if got := a.registry.written(); got["s1"] != `"active"` {
			t.Errorf("the newest is not written again: %v", got)
		}
		stopB()
		time.Sleep(2 * wishStale)
		late := newWisher(false)
		late.load(disk)
		late.apply()
		if len(late.counts) != 0 {
			t.Errorf("after days this counts: %v", late.counts)
		}
		stopA()
	})
}
