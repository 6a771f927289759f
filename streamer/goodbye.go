package streamer

import (
	"context"
	"time"

	"everboot/site"
)

// goodbye moves the sessions away: the directors do, as soon as they know; what is left at the end of the grace is cut.
func (a *Agent) goodbye(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, a.cfg.Grace)
	defer cancel()
	a.log.Info("stopping: sessions move to other streamers", "grace", a.cfg.Grace)
	told := a.announce(ctx, site.Draining)
	select {
	case <-told:
		a.awaitEmpty(ctx)
	case <-ctx.Done():
		a.log.Warn("stopping: nobody could be told; sessions are cut")
	}
	after, cancel := context.WithTimeout(context.WithoutCancel(ctx), byeTimeout)
	defer cancel()
	a.cut(after)
	if err := a.herald.withdraw(after); err != nil {
		a.log.Warn("stopping: the streamer could not be withdrawn; its registration runs out", "error", err)
	}
}

// byeTimeout bounds what comes after the grace.
const byeTimeout = 5 * time.Second

func (a *Agent) awaitEmpty(ctx context.Context) {
	for {
		sessions, err := a.sessions(ctx)
		if err != nil || len(sessions) == 0 {
			return
		}
		pause(ctx, minBackoff)
		if ctx.Err() != nil {
			a.log.Warn("stopping: sessions that no other streamer took are cut", "sessions", len(sessions))
			return
		}
	}
}

func (a *Agent) cut(ctx context.Context) {
	if a.ended == nil {
		return
	}
	sessions, err := a.sessions(ctx)
	if err != nil {
		a.log.Warn("stopping: listing sessions", "error", err)
		return
	}
	for _, s := range sessions {
		if err := a.engine.Disconnect(ctx, s); err != nil {
			a.log.Warn("stopping: ending a session", "initiator", s.Initiator, "error", err)
		}
		pause(ctx, a.cfg.DrainPace)
	}
}
