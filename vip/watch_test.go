package vip

import (
	"errors"
	"log/slog"
	"net"
	"testing"
	"testing/synctest"

	"github.com/vishvananda/netlink"
)

// TestAWatchThatFailsBeginsAnew: what happened in between is looked for, and what comes then is heard.
func TestAWatchThatFailsBeginsAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		subscriptions := make(chan chan<- netlink.AddrUpdate)
		tries := 0
		w, err := startWatch(&net.Interface{Index: 3, Name: "eth0"}, func(updates chan<- netlink.AddrUpdate, done <-chan struct{}, failed func(error)) error {
			if tries++; tries == 2 {
				return errors.New("no buffer space available")
			}
			if tries > 2 {
				go func() { <-done; failed(net.ErrClosed); close(updates) }()
			}
			go func() { subscriptions <- updates }()
			return nil
		}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		e := (&cable{}).port("198.18.0.2").edge()
		r := newRouter(good(), e, slog.New(slog.DiscardHandler))
		w.join(r)
		close(<-subscriptions)
		second := <-subscriptions // after one that failed
		<-r.touches
		second <- netlink.AddrUpdate{LinkAddress: net.IPNet{IP: net.IPv4(198, 18, 0, 10)}, LinkIndex: 3, NewAddr: true}
		<-r.touches
		if err := r.Close(); err != nil { // the watch ends with it
			t.Error(err)
		}
	})
}
