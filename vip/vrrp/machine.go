package vrrp

import (
	"net/netip"
	"time"
)

// State is a state of a virtual router (RFC 9568 §6.4).
type State string

// The three states.
const (
	Initialize State = "initialize"
	Backup     State = "backup"
	Active     State = "active"
)

// Config is what a virtual router is told (§6.1).
type Config struct {
	VRID     uint8
	Priority uint8         // 0: withdrawn, never claims; 255: owns the addresses
	Interval time.Duration // Advertisement_Interval
	// Preempt says that this router takes over from one of lower priority that is alive (Preempt_Mode).
	Preempt bool
	// Sick is the highest priority that counts as sick: an active router that advertises so little is preempted even
	// without Preempt. 0: none. It lets a router whose health turned bad go on serving until a better one has taken over.
	Sick uint8
	// PreemptDelay is how long a better router lets a worse one that is alive go on before it preempts.
	PreemptDelay time.Duration
	Primary      netip.Addr // this router's own address, which breaks ties
	Addresses    []netip.Addr
	Checksum     Checksum
	// Peers are the only routers that are listened to; none: all.
	Peers []netip.Addr
}

// Machine is one virtual router. It is not safe for concurrent use.
//
// It has one timer: in Backup the Active_Down_Timer, in Active the Adver_Timer. The caller steps it with Tick when
// Deadline has come.
type Machine struct {
	cfg      Config
	state    State
	priority uint8
	// Of the active router, as last heard: Active_Adver_Interval (§6.1) and its address.
	activeInterval time.Duration
	active         netip.Addr
	// resigned says that the Active_Down_Timer runs because the active router sent priority 0.
	resigned bool
	armed    time.Time // when the Active_Down_Timer was last set
	timer    time.Time // zero: not set
	leaving  leaving
	// humble says that the router was told to hand over: it does not take back from a well router, even with Preempt.
	humble bool
	// alone says that it has heard nobody since its start and was never active, inUse that somebody has the addresses all the same.
	alone, inUse bool
	// worseSince is since when a worse router is active that may be preempted.
	worseSince time.Time
}

// New returns a machine in Initialize.
func New(cfg Config) *Machine {
	return &Machine{cfg: cfg, state: Initialize, priority: cfg.Priority, activeInterval: cfg.Interval}
}

// State returns the state that the last step led to.
func (m *Machine) State() State { return m.state }

// Priority returns the priority that the router has now.
func (m *Machine) Priority() uint8 { return m.priority }

// Owner returns the primary address of the active router, as far as it is known: the zero address when it is not.
func (m *Machine) Owner() netip.Addr { return m.active }

// Deadline returns when the machine wants its next Tick; the zero time when it waits for nothing.
func (m *Machine) Deadline() time.Time { return m.timer }

// Advertisement returns the message that the action asks for.
func (m *Machine) Advertisement(a Advertise) Advertisement {
	return Advertisement{
		VRID: m.cfg.VRID, Priority: a.Priority, Interval: m.cfg.Interval, Addresses: m.cfg.Addresses, Checksum: m.cfg.Checksum,
	}
}

// SkewTime returns how much longer than three intervals a router of this priority waits (§6.1): the lower the priority,
// the longer, so that the best of several backups is first.
func SkewTime(priority uint8, activeInterval time.Duration) time.Duration {
	return time.Duration(256-int(priority)) * activeInterval / 256
}

// DownInterval returns how long an active router must be silent before a router of this priority takes over
// (Active_Down_Interval, §6.1).
func DownInterval(priority uint8, activeInterval time.Duration) time.Duration {
	return 3*activeInterval + SkewTime(priority, activeInterval)
}

// Step takes an event and returns what is to be done, in this order and to the end. The orders are part of the contract:
//
//   - Claim: Hold, Advertise, Announce. Nobody is told of an address before it answers.
//   - Shutdown, Release: Advertise with priority 0; Drop a moment after the next owner was heard. The old owner answers
//     until nobody asks it any more.
//   - Withdrawal: Advertise with priority 0, Drop: it must not serve.
//   - Outranked: Drop at once, for the other one answers already. Then one last Advertise, beyond what the RFC asks: when a
//     partition has healed the winner may not have heard of us yet, and hearing us it announces itself to our neighbours.
//   - After a sleep: Drop, then Advertise with priority 0; others may have taken over meanwhile.
//
// A Transition comes last, when all of it is true.
func (m *Machine) Step(now time.Time, e Event) []Action {
	if m.state == Active && m.overslept(now) {
		// Whatever woke it: it lets go before it answers anything.
		return append(m.tick(now), m.on(now, e)...)
	}
	return m.on(now, e)
}

func (m *Machine) on(now time.Time, e Event) []Action {
	switch e := e.(type) {
	case Startup:
		return m.startup(now)
	case Shutdown:
		return m.shutdown(now)
	case Release:
		return m.leave(now, toBackup)
	case Slept:
		return m.slept(now)
	case Received:
		return m.received(now, e)
	case Tick:
		return m.tick(now)
	case SetPriority:
		return m.setPriority(now, e.Priority)
	case ClaimFailed:
		return m.yield(now, HoldFailed)
	case AddressesLost:
		return m.yield(now, Robbed)
	case AddressesInUse:
		m.inUse = m.Probing()
	}
	return nil
}

// yield gives up what cannot be kept.
func (m *Machine) yield(now time.Time, why Cause) []Action {
	if m.state != Active {
		return nil
	}
	return append([]Action{Advertise{Priority: 0}, Drop{}}, m.retire(now, why)...)
}

// startup is §6.4.1.
func (m *Machine) startup(now time.Time) []Action {
	if m.state != Initialize {
		return nil
	}
	// What an earlier life left on the interface goes first: a backup must not answer for the addresses (§6.4.2).
	actions := []Action{Drop{}}
	if m.priority == Owner {
		return append(actions, m.claim(now, OwnsAddresses)...)
	}
	m.activeInterval, m.alone, m.inUse = m.cfg.Interval, true, false
	return append(append(actions, Probe{}), m.become(now, Backup, Started)...)
}

// shutdown is the Shutdown event of §6.4.2 and §6.4.3. A second one does not wait for the next owner.
func (m *Machine) shutdown(now time.Time) []Action {
	switch {
	case m.state == Active && m.leaving.to != toInitialize:
		return m.leave(now, toInitialize)
	case m.state == Active:
		return append([]Action{Drop{}}, m.retire(now, Stopped)...)
	}
	return m.become(now, Initialize, Stopped)
}

// received is an advertisement that passed Accept.
func (m *Machine) received(now time.Time, e Received) []Action {
	a := e.Advertisement
	if a.VRID != m.cfg.VRID {
		return nil
	}
	m.alone = false
	switch m.state {
	case Backup:
		m.heardInBackup(now, e)
	case Active:
		switch {
		case m.leaving.to != nowhere:
			m.heardInLeaving(now, e)
		case a.Priority == 0:
			// Another one resigns: §6.4.3 answers at once, so that no backup takes over. It may have owned the addresses
			// until now, if it was frozen: what it has drawn is drawn here by announcing again.
			m.timer = now.Add(m.cfg.Interval)
			return []Action{Advertise{Priority: m.priority}, Announce{}}
		case a.Priority > m.priority || a.Priority == m.priority && e.From.Compare(m.cfg.Primary) > 0:
			m.activeInterval, m.active = a.Interval, e.From
			return append([]Action{Drop{}, Advertise{Priority: m.priority}}, m.become(now, Backup, Outranked)...)
		default:
			// §6.4.3: assert the Active state. The loser's gratuitous ARP may have drawn traffic: announce again.
			return []Action{Advertise{Priority: m.priority}, Announce{}}
		}
	}
	return nil
}

// heardInBackup is §6.4.2.
func (m *Machine) heardInBackup(now time.Time, e Received) {
	a := e.Advertisement
	switch {
	case a.Priority == 0:
		m.resigned, m.armed = true, now
		m.arm()
		if m.active == e.From {
			m.active = netip.Addr{}
		}
	case !m.preempts(a) || a.Priority >= m.priority:
		m.worseSince = time.Time{}
		m.obey(now, e)
	case m.delayed(now, a):
		m.obey(now, e)
	default:
		m.active = e.From // alive, but the timer runs on: it is about to be preempted
	}
}

// obey lets the active router go on.
func (m *Machine) obey(now time.Time, e Received) {
	m.activeInterval, m.active = e.Advertisement.Interval, e.From
	m.resigned, m.armed = false, now
	m.arm()
}

// delayed reports whether it is too early to preempt. A sick router is preempted at once.
func (m *Machine) delayed(now time.Time, a Advertisement) bool {
	if m.worseSince.IsZero() {
		m.worseSince = now
	}
	return a.Priority > m.cfg.Sick && now.Sub(m.worseSince) < m.cfg.PreemptDelay
}

func (m *Machine) preempts(a Advertisement) bool {
	return m.cfg.Preempt && !m.humble || a.Priority <= m.cfg.Sick
}

// tick is a timer that has run out.
func (m *Machine) tick(now time.Time) []Action {
	if m.timer.IsZero() || now.Before(m.timer) {
		return nil
	}
	overslept := m.overslept(now)
	switch {
	case m.state == Active && overslept:
		return m.slept(now)
	case m.state == Active && m.leaving.to != nowhere:
		return m.tickInLeaving(now)
	case m.state == Active:
		m.timer = m.timer.Add(m.cfg.Interval) // from the deadline, not from now: a late tick does not add up
		if !m.timer.After(now) {
			m.timer = now.Add(m.cfg.Interval)
		}
		return []Action{Advertise{Priority: m.priority}}
	case m.state == Backup && overslept:
		return m.slept(now)
	case m.state == Backup && m.resigned:
		return m.claim(now, Resigned)
	case m.Probing() && m.inUse:
		return m.putOff(now)
	case m.state == Backup:
		return m.claim(now, Silence)
	}
	return nil
}

// overslept says that the timer is so late that the others may have elected somebody else: the process was stopped, or the
// machine had no free processor. It listens for a full Active_Down_Interval before it says again that it is active.
func (m *Machine) overslept(now time.Time) bool {
	return !m.timer.IsZero() && now.Sub(m.timer) > DownInterval(m.priority, m.activeInterval)
}

// slept lets go of what somebody else may own by now, and listens.
func (m *Machine) slept(now time.Time) []Action {
	switch m.state {
	case Active:
		return append([]Action{Drop{}, Advertise{Priority: 0}}, m.retire(now, Overslept)...)
	case Backup:
		m.resigned, m.armed = false, now
		m.arm()
	}
	return nil
}

func (m *Machine) setPriority(now time.Time, p uint8) []Action {
	if p == m.priority {
		return nil
	}
	withdrawn := m.priority == 0
	m.priority = p
	switch {
	case m.state == Active && p == 0:
		return append([]Action{Advertise{Priority: 0}, Drop{}}, m.retire(now, Withdrawn)...)
	case m.state == Active && m.leaving.to != nowhere:
		return nil // 0 was said, and is the last word
	case m.state == Active:
		m.timer = now.Add(m.cfg.Interval)
		return []Action{Advertise{Priority: p}} // at once: the others decide by it
	case m.state == Backup:
		if withdrawn {
			m.resigned, m.armed = false, now
		}
		m.arm()
	}
	return nil
}

// claim is the way into Active (§6.4.1, §6.4.2).
func (m *Machine) claim(now time.Time, why Cause) []Action {
	actions := []Action{Hold{}, Advertise{Priority: m.priority}, Announce{}}
	return append(actions, m.become(now, Active, why)...)
}

// become changes the state and sets its timer.
func (m *Machine) become(now time.Time, to State, why Cause) []Action {
	if m.state == to {
		return nil
	}
	t := Transition{From: m.state, To: to, Cause: why}
	m.state, m.leaving = to, leaving{}
	switch to {
	case Initialize:
		m.timer, m.active = time.Time{}, netip.Addr{}
	case Backup:
		if why != Outranked {
			m.active, m.activeInterval = netip.Addr{}, m.cfg.Interval
		}
		m.resigned, m.armed, m.worseSince = false, now, time.Time{}
		m.arm()
	case Active:
		m.active, m.activeInterval, m.humble, m.alone = m.cfg.Primary, m.cfg.Interval, false, false
		m.timer = now.Add(m.cfg.Interval)
	}
	return []Action{t}
}

// arm sets the Active_Down_Timer, counted from when the active router was last heard. A withdrawn router has none.
func (m *Machine) arm() {
	switch {
	case m.priority == 0:
		m.timer = time.Time{}
	case m.resigned:
		m.timer = m.armed.Add(SkewTime(m.priority, m.activeInterval))
	default:
		m.timer = m.armed.Add(DownInterval(m.priority, m.activeInterval))
	}
}
