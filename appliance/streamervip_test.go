package appliance

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"everboot/vip"
	"everboot/vip/vrrp"
)

// homely is a router that has its address at once, until its context ends or its edge fails.
type homely struct {
	changes chan vip.Transition
	fails   chan error
	ended   bool
}

func newHomely() *homely {
	h := &homely{changes: make(chan vip.Transition, 1), fails: make(chan error, 1)}
	h.changes <- vip.Transition{Transition: vrrp.Transition{To: vrrp.Active}}
	return h
}

func (h *homely) Changes() <-chan vip.Transition { return h.changes }
func (h *homely) Run(ctx context.Context) (err error) {
	defer close(h.changes)
	defer func() { h.ended = true }()
	select {
	case <-ctx.Done():
		return nil
	case err := <-h.fails:
		return err
	}
}

// TestNothingServesAtAnAddressThatIsGone: a streamer whose router fails ends with its error, for systemd to start it anew; a planned end lets the addresses
// go after what serves there.
func TestNothingServesAtAnAddressThatIsGone(t *testing.T) {
	broken := errors.New("the network is down")
	for _, c := range []struct {
		name string
		fail error
	}{{"a router fails", broken}, {"a planned end", nil}} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				one, two := newHomely(), newHomely()
				served, done := false, make(chan error, 1)
				go func() {
					done <- serveAt(ctx, []*homely{one, two}, func(ctx context.Context) error {
						served = true
						<-ctx.Done()
						if c.fail == nil && (one.ended || two.ended) {
							t.Error("an address is gone while something serves there")
						}
						return nil
					})
				}()
				synctest.Wait()
				if c.fail == nil {
					cancel()
				} else {
					two.fails <- c.fail
				}
				select {
				case err := <-done:
					if !errors.Is(err, c.fail) || !served || !one.ended || !two.ended {
						t.Errorf("%v; served %v, ended %v and %v", err, served, one.ended, two.ended)
					}
				case <-time.After(time.Minute):
					t.Error("it goes on")
					cancel()
				}
			})
		})
	}
}
