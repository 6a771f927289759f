package streamer

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"everboot/site"
)

// TestGateLetsInByArrival: whoever waits longest is next, whenever it came back to the queue.
func TestGateLetsInByArrival(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g gate
		g.resize(1)
		start := time.Now()
		for range loginsPerStreamer {
			if !g.enter(t.Context(), start, start.Add(time.Minute)) {
				t.Fatal("no room in an empty gate")
			}
		}
		var mu sync.Mutex
		var order []int
		var all sync.WaitGroup
		for _, n := range []int{3, 1, 2} {
			all.Go(func() {
				g.enter(t.Context(), start.Add(time.Duration(n)), start.Add(time.Minute))
				mu.Lock()
				order = append(order, n)
				mu.Unlock()
			})
		}
		synctest.Wait()
		if len(order) != 0 {
			t.Fatalf("%v came in above the bound", order)
		}
		for range 3 {
			g.leave()
			synctest.Wait()
		}
		all.Wait()
		if !slices.Equal(order, []int{1, 2, 3}) {
			t.Errorf("order %v", order)
		}
	})
}

func TestGateGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g gate
		g.resize(0)
		now := time.Now()
		for range loginsPerStreamer {
			g.enter(t.Context(), now, now)
		}
		if g.enter(t.Context(), now, now.Add(time.Second)) || time.Since(now) != time.Second {
			t.Errorf("a login came in after %v", time.Since(now))
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if g.enter(ctx, now, now.Add(time.Hour)) {
			t.Error("a login came in after the end")
		}
		done := make(chan bool)
		go func() { done <- g.enter(t.Context(), now, now.Add(time.Hour)) }()
		synctest.Wait()
		g.resize(2) // another streamer came
		if !<-done {
			t.Error("a login did not come in when there was room")
		}
	})
}

func TestGateBoundsADevice(t *testing.T) {
	var g gate
	device := site.MAC{2}
	for range loginsPerDevice {
		if !g.register(device) {
			t.Fatal("refused below the bound")
		}
	}
	if g.register(device) || !g.register(site.MAC{4}) {
		t.Error("the bound is not one device's")
	}
	g.unregister(device)
	if !g.register(device) {
		t.Error("refused after one has ended")
	}
}
