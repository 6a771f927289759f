package vip

import (
	"context"
	"errors"

	"everboot/vip/vrrp"
)

// What a Release that hands over nothing returns.
var (
	ErrNotOwner = errors.New("this node does not own the floating addresses; ask the one that does")
	ErrNoHeir   = errors.New("no other node took the floating addresses over; this one goes on")
	ErrStopped  = errors.New("the router has stopped")
)

// Release hands the addresses over to another node and returns when that one has them and this one has let go. From then on this
// node is a backup that does not take back, even with Preempt, from a well node. It returns ErrNotOwner, ErrNoHeir or
// ErrStopped, or the context's error; the addresses may have moved all the same after the last.
func (r *Router) Release(ctx context.Context) error {
	answer := make(chan error, 1)
	select {
	case r.releases <- answer:
	case <-r.stopped:
		return ErrStopped
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// release begins a hand-over for one who waits; settleReleases answers.
func (r *Router) release(answer chan error) {
	if r.machine.State() != vrrp.Active {
		answer <- ErrNotOwner
		return
	}
	r.asked = append(r.asked, answer)
	r.step(vrrp.Release{})
}

// settleReleases answers everybody who waits for a hand-over that has come to its end.
func (r *Router) settleReleases() {
	switch {
	case r.machine.Leaving():
	case r.machine.State() == vrrp.Active:
		r.answerReleases(ErrNoHeir)
	default:
		r.answerReleases(nil)
	}
}

func (r *Router) answerReleases(err error) {
	for _, answer := range r.asked {
		answer <- err
	}
	r.asked = nil
}
