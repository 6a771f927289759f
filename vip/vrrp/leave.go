package vrrp

import (
	"net/netip"
	"time"
)

// Times of a planned hand-over. RFC 9568 §6.4.3 lets the active router go as soon as it has sent priority 0: then nobody
// answers for as long as the next one's skew lasts.
const (
	// lingerTime is how long the old owner answers beside the new one, which it has heard: what was sent before the senders
	// heard the new one's gratuitous ARP still finds it.
	lingerTime = 20 * time.Millisecond
	// leaveSlack is what a busy backup may need beyond its skew, and leaveMax the longest wait of all: a stop must not hang
	// for minutes where intervals are long.
	leaveSlack = 50 * time.Millisecond
	leaveMax   = 3 * time.Second
)

// LeaveTime returns how long a router that resigns waits for another one to take over. A backup waits less than an interval
// after priority 0 was heard; it is said twice, for the first may be lost.
func LeaveTime(interval time.Duration) time.Duration {
	return min(4*interval+leaveSlack, leaveMax)
}

// destination is where a router goes that leaves Active in good order.
type destination uint8

const (
	nowhere      destination = iota // it does not leave
	toBackup                        // Release
	toInitialize                    // Shutdown
)

// leaving is what an active router knows that has said priority 0 and waits for the next owner.
type leaving struct {
	to    destination
	until time.Time
	heir  netip.Addr // who took over; zero: nobody yet
}

// leave begins a hand-over, or turns one that runs into that of a stop.
func (m *Machine) leave(now time.Time, to destination) []Action {
	switch {
	case m.state != Active:
		return nil
	case m.leaving.to != nowhere:
		m.leaving.to = max(m.leaving.to, to)
		return nil
	}
	m.leaving = leaving{to: to, until: now.Add(LeaveTime(m.cfg.Interval))}
	m.timer = m.sayAgain(now)
	return []Action{Advertise{Priority: 0}}
}

// sayAgain returns when priority 0 is said again: not before a backup of the lowest priority had the time to take over after
// it was said first, for each time it hears it a backup's wait begins anew.
func (m *Machine) sayAgain(now time.Time) time.Time {
	if again := now.Add(2 * m.cfg.Interval); again.Before(m.leaving.until) {
		return again
	}
	return m.leaving.until
}

// heardInLeaving takes any router that says it is active for the next owner, whatever its priority.
func (m *Machine) heardInLeaving(now time.Time, e Received) {
	if e.Advertisement.Priority == 0 || m.leaving.heir.IsValid() {
		return
	}
	m.leaving.heir, m.leaving.until = e.From, now.Add(lingerTime)
	m.timer = m.leaving.until
	m.activeInterval = e.Advertisement.Interval
}

// tickInLeaving says priority 0 again, or lets go.
func (m *Machine) tickInLeaving(now time.Time) []Action {
	switch {
	case now.Before(m.leaving.until):
		m.timer = m.sayAgain(now)
		return []Action{Advertise{Priority: 0}}
	case m.leaving.to == toBackup && (!m.leaving.heir.IsValid() && m.priority > 0):
		// Nobody is there to hand over to.
		m.leaving = leaving{}
		m.timer = now.Add(m.cfg.Interval)
		return []Action{Advertise{Priority: m.priority}}
	}
	return append([]Action{Drop{}}, m.retire(now, HandedOver)...)
}

// Leaving reports whether the router is active and waits for another one to take over.
func (m *Machine) Leaving() bool { return m.leaving.to != nowhere }

// retire is the way out of Active: to Backup for the cause given, or to Initialize if the router is about to stop.
func (m *Machine) retire(now time.Time, why Cause) []Action {
	if m.leaving.to == toInitialize {
		return m.become(now, Initialize, Stopped)
	}
	heir, interval := m.leaving.heir, m.activeInterval
	actions := m.become(now, Backup, why)
	if why == HandedOver {
		m.humble, m.active, m.activeInterval = true, heir, interval
		m.arm()
	}
	return actions
}
