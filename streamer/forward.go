package streamer

import (
	"context"
	"fmt"
	"time"

	"everboot/site"
)

// forward splices a session until it ends.
func (d *Director) forward(ctx context.Context, s *session) {
	d.pool.use(s.portal, 1)
	s.ended = func(cause string) {
		now := time.Now()
		if cause == endSilent {
			d.pool.hush(s.portal, s.Streamer, now.Add(hushTime))
		}
		d.table.remove(s, cause, now)
		d.pool.use(s.portal, -1)
		d.pool.leave(s.Streamer)
	}
	before, failover := d.table.add(s)
	d.cfg.Tell(encodeRuns([]run{s.runs(false)}))
	d.counts.login(site.Picked)
	if failover {
		d.counts.failovers.Add(1)
	}
	d.begins(s, before, failover)
	s.block = func(now time.Time) { d.reads(s, before, failover, now) }
	stop := context.AfterFunc(ctx, func() { s.end(endStop, true) })
	defer stop()
	cause := s.run()
	d.counts.bytesIn.Add(s.in)
	d.counts.bytesOut.Add(s.out)
	d.log.Info("iSCSI session closed", "device", s.Device.String(), "streamer", s.Streamer, "why", cause, "bytes", s.out)
	d.event(s.Device, "closed", fmt.Sprintf("%s: %s", s.Streamer, cause))
}

// begins tells of a session's begin. A device that asked for nothing when it lost its streamer has had its stall now.
func (d *Director) begins(s *session, before record, failover bool) {
	now := time.Now()
	what, detail := "login", fmt.Sprintf("%s version %d from %s", s.VDisk, s.Version, s.Streamer)
	if failover {
		what = "failover"
		detail = fmt.Sprintf("%s version %d from %s to %s %s", s.VDisk, s.Version, before.Streamer, s.Streamer, before.after(s.Since))
		if !before.lost.IsZero() && before.asked.IsZero() {
			d.table.stalled(s.Device, now.Sub(before.lost), now)
		}
	}
	d.log.Info("iSCSI "+what, "device", s.Device.String(), "streamer", s.Streamer, "detail", detail)
	d.events(site.Event{At: now, MAC: s.Device, What: what, Detail: detail, Begins: s.firmware() && !failover})
}

// reads tells of a session's first block, and of the stall that it ended.
func (d *Director) reads(s *session, before record, failover bool, now time.Time) {
	if !failover || before.asked.IsZero() {
		d.event(s.Device, "block", fmt.Sprintf("the first from %s, %s after the login", s.Streamer, now.Sub(s.Since).Round(time.Millisecond)))
		return
	}
	stall := now.Sub(before.asked)
	d.table.stalled(s.Device, stall, now)
	d.event(s.Device, "block", fmt.Sprintf("the first from %s, after a stall of %s", s.Streamer, stall.Round(time.Millisecond)))
}

// after says how long a device was away, and why.
func (r record) after(now time.Time) string {
	switch {
	case r.Redirected:
		return "which it was redirected to"
	case r.peer:
		return "after its appliance stopped"
	}
	return fmt.Sprintf("after %s: %s", now.Sub(r.lost).Round(time.Millisecond), r.why)
}

// Last is what the director remembers of a device's last session, wherever it was led.
type Last struct {
	Target     string        `json:"target"` // IQN
	Streamer   string        `json:"streamer"`
	Since      time.Time     `json:"since"`
	Failovers  int           `json:"failovers"`
	Redirected bool          `json:"redirected"`     // it does not go through a director
	Elsewhere  bool          `json:"elsewhere"`      // another appliance's director led it
	Lost       time.Time     `json:"lost,omitzero"`  // when the device lost it; zero: it did not, or nobody here knows
	Why        string        `json:"why,omitempty"`  // it was lost
	Stall      time.Duration `json:"stall,omitzero"` // see Session
	StallAt    time.Time     `json:"stall_at,omitzero"`
}

// Last returns the last session of a device; false: nobody knows of one.
func (d *Director) Last(m site.MAC) (Last, bool) {
	r, ok := d.table.last(m)
	return Last{r.Target, r.Streamer, r.Since, r.Failovers, r.Redirected, r.peer, r.lost, r.why, r.stall, r.stallAt}, ok
}
