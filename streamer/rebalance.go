package streamer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"everboot/site"
)

// Rebalancing is how far a rebalance came.
type Rebalancing struct {
	Moved int `json:"moved"` // targets that have come back elsewhere
	Left  int `json:"left"`  // targets that should still move, because the time was over
}

const (
	// backTime is how long a target may take to come back. Those that do are back within a tenth of a second.
	backTime = 5 * time.Second
	// autoPace is the time between two looks at the balance.
	autoPace = time.Minute
	// autoLeast is the number of sessions below which nothing is moved by itself: a small number is never even.
	autoLeast = 10
)

// errBusy says that somebody else rebalances.
var errBusy = errors.New("targets are being moved already; try again when that is done")

// Rebalance makes as few targets as needed log in anew, one after the other, so that the streamers' sessions per power become even. It
// stops when one does not come back, and when ctx ends, after the target that is under way. One redirected target may stay away: nobody here hears
// when those are switched off.
func (d *Director) Rebalance(ctx context.Context) (Rebalancing, error) {
	if !d.rebalancing.TryLock() {
		return Rebalancing{}, errBusy
	}
	defer d.rebalancing.Unlock()
	sessions, placed := d.placed()
	moves := site.Spread(d.view(), placed)
	r, missing := Rebalancing{Left: len(moves)}, false
	for _, i := range moves {
		if ctx.Err() != nil {
			break
		}
		s := sessions[i]
		r.Left--
		if !d.elsewhere(d.view(), time.Now())(s) || !d.leave(ctx, s, endMoved) { // it cannot go any more, or has ended by itself
			continue
		}
		if err := d.back(ctx, s); err != nil && s.isAway() && !missing {
			missing = true
			continue
		} else if err != nil {
			return r, fmt.Errorf("%w; stopped with %d moved and %d left", err, r.Moved, r.Left)
		}
		r.Moved++
		pause(ctx, d.cfg.DrainPace)
	}
	return r, nil
}

// placed returns the sessions, and where they are.
func (d *Director) placed() ([]*session, []site.Placed) {
	here := d.table.all()
	sessions := append(here, settled(d.view(), here, d.table.away())...)
	placed := make([]site.Placed, len(sessions))
	for i, s := range sessions {
		placed[i] = site.Placed{Login: s.login, Streamer: s.Streamer}
	}
	return sessions, placed
}

// back waits until the device of an ended session has another. A deadline of ctx does not end that, or nobody heard of one that stays away;
// the director's stop does.
func (d *Director) back(ctx context.Context, s *session) error {
	const look = 5 * time.Millisecond
	for end := time.Now().Add(backTime); time.Now().Before(end); pause(context.Background(), look) {
		if d.table.since(s.Device).After(s.Since) {
			return nil
		}
		if errors.Is(ctx.Err(), context.Canceled) {
			return ctx.Err()
		}
	}
	return fmt.Errorf("target %s did not come back within %v", s.Device, backTime)
}

// balance rebalances by itself whenever the imbalance is above the configured one.
func (d *Director) balance(ctx context.Context) {
	for pause(ctx, autoPace); ctx.Err() == nil; pause(ctx, autoPace) {
		_, placed := d.placed()
		if len(placed) < autoLeast || site.Imbalance(d.view(), placed) <= d.cfg.RebalanceAbove {
			continue
		}
		r, err := d.Rebalance(ctx)
		if err != nil && ctx.Err() == nil {
			d.log.Warn("rebalancing", "error", err)
		} else if r.Moved > 0 {
			d.log.Info("rebalanced", "moved", r.Moved)
		}
	}
}
