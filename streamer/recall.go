package streamer

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"slices"
	"time"

	"everboot/internal/iscsi"
	"everboot/site"
)

// A redirected session does not go through here, but it can be ended from here: who logs in at its streamer as its initiator does, with the same ISID, is
// taken for that one (session reinstatement, RFC 7143 §6.3.5), and the streamer closes the connection of the session before. The initiator then comes back to
// the director, as it does whenever it loses its streamer.

// recallTime bounds it.
const recallTime = 2 * time.Second

// away returns the redirected sessions that the director knows of. It hears of their begin only: their devices may have been switched off since.
func (t *table) away() []*session {
	var list []*session
	for i := range t.shards {
		h := &t.shards[i]
		h.mu.Lock()
		for _, r := range h.devices {
			if s, ok := r.session(); ok {
				list = append(list, s)
			}
		}
		h.mu.Unlock()
	}
	return list
}

// session returns a redirected session as far as it is known: it has no connections here.
func (r record) session() (*session, bool) {
	name, err := site.ParseTargetName(r.Target)
	isid, errISID := hex.DecodeString(r.ISID)
	if !r.Redirected || err != nil || errISID != nil || len(isid) != 6 {
		return nil, false
	}
	return &session{
		Session: Session{Device: r.MAC, VDisk: name.VDisk, Version: name.Version, Streamer: r.Streamer, Since: r.Since, Failovers: r.Failovers},
		login:   site.Login{MAC: r.MAC, VDisk: name.VDisk, Version: name.Version, Digest: site.Digest(name.Digest), From: r.From},
		isid:    [6]byte(isid), target: r.Target,
	}, true
}

// isAway reports whether a session is one of away's.
func (s *session) isAway() bool { return s.initiator == nil }

// leave makes a session's device log in again. It returns false if the session has ended by itself, or cannot be ended.
func (d *Director) leave(ctx context.Context, s *session, cause string) bool {
	if !s.isAway() {
		return s.end(cause, false)
	}
	return d.recall(ctx, s, cause)
}

// recall ends a redirected session.
func (d *Director) recall(ctx context.Context, s *session, cause string) bool {
	if !d.table.recalled(s, cause, time.Now()) {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, recallTime)
	defer cancel()
	failures := errors.New("it has no address")
	for _, address := range d.view().Streamers[s.Streamer].Addresses {
		again, err := iscsi.Dial(ctx, address.String(), iscsi.Config{
			InitiatorName: site.InitiatorName(s.Device), TargetName: s.target, ISID: s.isid, Dial: d.cfg.Dial,
		})
		if err == nil {
			_ = again.Logout(ctx) // it is closed in any case
			d.event(s.Device, "recalled", s.Streamer+": "+cause)
			return true
		}
		failures = err
	}
	d.table.stays(s)
	d.log.Warn("a redirected session cannot be ended", "device", s.Device.String(), "streamer", s.Streamer, "error", failures)
	return false
}

// recalled notes that a redirected session is being ended, before its device can be back. It returns false if that is not what the device has any more.
func (t *table) recalled(s *session, cause string, now time.Time) bool {
	return t.rewrite(s, func(r *record) { r.Redirected, r.peer, r.lost, r.why = false, false, now, cause })
}

// stays takes recalled back.
func (t *table) stays(s *session) {
	t.rewrite(s, func(r *record) { r.Redirected, r.lost, r.why = true, time.Time{}, "" })
}

// rewrite changes what is remembered of a redirected session, if it is its device's last.
func (t *table) rewrite(s *session, change func(*record)) bool {
	h := t.shard(s.Device)
	h.mu.Lock()
	defer h.mu.Unlock()
	r, ok := h.devices[s.Device]
	if !ok || !r.Since.Equal(s.Since) || r.Streamer != s.Streamer {
		return false
	}
	change(&r)
	h.devices[s.Device] = r
	return true
}

// settled returns the redirected sessions that streamers announce: of what is remembered the newest, as many as each has beside those that go through here.
func settled(v *site.View, here, away []*session) []*session {
	room := make(map[string]int)
	for name, s := range v.Streamers {
		room[name] = s.Sessions
	}
	for _, s := range here {
		room[s.Streamer]--
	}
	slices.SortFunc(away, func(a, b *session) int {
		return cmp.Or(b.Since.Compare(a.Since), slices.Compare(a.Device[:], b.Device[:]))
	})
	return slices.DeleteFunc(away, func(s *session) bool {
		room[s.Streamer]--
		return room[s.Streamer] < 0
	})
}
