package streamer_test

import (
	"context"
	"testing"
	"time"

	"everboot/internal/lab/crowd"
	"everboot/site"
	"everboot/streamer"
)

func TestRebalance(t *testing.T) {
	const targets = 20
	f := newFleet(t, streamer.DirectorConfig{DialTimeout: 10 * time.Second, DrainPace: time.Millisecond})
	first, _ := f.add("s1")
	c := crowd.Start(t.Context(), crowd.Config{
		Targets: targets, Portal: f.address, IQN: target, Content: first.Content, Pause: time.Millisecond,
		MAC: func(i int) site.MAC { mac := t1; mac[5] = byte(i + 1); return mac },
	})
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	eventually(t, "all read", func() bool { return c.Since(make([]int64, targets)) == targets })
	f.add("s2")
	r, err := f.director.Rebalance(t.Context())
	if err != nil || r.Moved != targets/2 || r.Left != 0 {
		t.Errorf("%+v, %v", r, err)
	}
	at := make(map[string]int)
	for _, s := range f.director.Sessions() {
		at[s.Streamer]++
	}
	if at["s1"] != targets/2 || at["s2"] != targets/2 {
		t.Errorf("spread %v", at)
	}
	if r, err := f.director.Rebalance(t.Context()); err != nil || r.Moved != 0 {
		t.Errorf("once more: %+v, %v", r, err)
	}
	if !f.saw("failover", "moves to a streamer that has less to do") {
		t.Error("no event says why")
	}
}

// TestRebalanceStopsWhenATargetDoesNotComeBack: it takes one target away, not all.
func TestRebalanceStopsWhenATargetDoesNotComeBack(t *testing.T) {
	f := newFleet(t, streamer.DirectorConfig{DialTimeout: 10 * time.Second})
	f.add("s1")
	for i := range 6 {
		mac := t1
		mac[5] = byte(i + 1)
		f.mustLogin(mac)
	}
	f.add("s2")
	r, err := f.director.Rebalance(context.Background())
	if err == nil || r.Moved != 0 || len(f.director.Sessions()) != 5 {
		t.Errorf("%+v, %v, %d sessions stay", r, err, len(f.director.Sessions()))
	}
}
