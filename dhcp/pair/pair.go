// Package pair makes one DHCP service of several nodes that each have all leases. It is a machine without clock, socket or disk: messages
// come in by Receive, the time by Tick, and what they return is to be told to all peers over a channel that may lose, repeat and
// reorder.
//
// Three questions are kept apart. *Who answers* a client is a matter of liveness only: both nodes may, and nothing breaks.
// *Whose an address is* is decided by hash: of two nodes that cannot see each other, only its owner gives an address to somebody new.
// *What may be given again* is a matter of knowledge: an owner gives an address, whose lease ended, to another client only when it knows
// all that its peers did up to that end (Until), because a peer may have prolonged the lease. When a peer has been silent for so long that
// no lease of its can be alive any more, its addresses are shared out among the others.
//
// No rule compares the clocks of two nodes. Messages carry how long ago and for how long; a beat names the last beat that was heard from
// the other side, which bounds how old the words in it can be.
package pair

import (
	"net/netip"
	"slices"
	"time"

	"everboot/dhcp/leases"
)

const (
	// beatEvery is the period of beats; Silence is a few of them, so that a busy machine is not taken for a dead one, and short enough
	// that a client whose node died is answered by the other within its first two tries.
	beatEvery = 200 * time.Millisecond
	// Silence is how long a peer is quiet on the channel before it counts as out of contact.
	Silence = 1500 * time.Millisecond
	// startPatience is how long a node that starts waits for its peers before it believes that it is alone.
	startPatience = 3 * time.Second
	// lateAfter: an update that was under way for longer is dropped and sent again, so that the ends of a lease on two nodes differ by no
	// more; margin is that and some more. It is taken off everything that is concluded of a peer's words.
	lateAfter = 5 * time.Second
	margin    = 10 * time.Second
	// window is how many updates may be unconfirmed at once, resendAfter when one is taken for lost.
	window      = 32
	resendAfter = 300 * time.Millisecond
	beatsKept   = 64
	// receiptsHeld is how many updates are confirmed in one message at least, if Tick is not called before: a quarter of what a peer sends
	// without an answer. A message more costs each node as much as a client's.
	receiptsHeld = window / 4
	// runsKept bounds how many earlier runs of a peer are remembered.
	runsKept = 64
)

// Config says who is who.
type Config struct {
	Self  netip.Addr
	Peers []netip.Addr
	// Longest is the longest lease that is given here; a peer says what its own is.
	Longest time.Duration
	// Incarnation differs from run to run.
	Incarnation uint64
	// Synced is until when all that the peers did was known in an earlier run; zero if that is not known.
	Synced time.Time
}

// Machine is the state. It is not safe for concurrent use.
type Machine struct {
	cfg     Config
	table   *leases.Table
	peers   []*peer // by address
	started time.Time
	settled bool
	noticed time.Time // the last time that was heard of
	yielded bool      // a peer lives that may have given addresses of ours: none is ours to give

	hindered bool

	number   uint32
	nextBeat time.Time
	beats    [beatsKept]time.Time // when beat number n was sent, at n % beatsKept
	outbox   outbox
	receipts map[netip.Addr][]uint32 // by peer: updates of its that are to be confirmed
}

// Clash is an address that two clients were given.
type Clash struct {
	Ours, Theirs leases.Lease
}

// Result is what came of a message.
type Result struct {
	Save    []leases.Lease // for the disk
	Clashes []Clash
	Tell    [][]byte // to all peers
	Drop    Drop     // why the message was dropped, or empty
}

// Drop says why a message was dropped.
type Drop string

// The reasons for dropping a message.
const (
	DropMalformed Drop = "malformed"
	DropFormat    Drop = "other-version"
	DropStranger  Drop = "stranger" // its sender is not in our list of peers
	DropStale     Drop = "stale"    // of an earlier run, or overtaken
	DropLate      Drop = "late"     // too long under way; it comes again
)

// New returns the machine of a node that starts now. It keeps the table told whose addresses are.
func New(now time.Time, cfg Config, table *leases.Table) *Machine {
	if cfg.Synced.After(now) {
		cfg.Synced = time.Time{} // the clock was set back: by it that says nothing
	}
	m := &Machine{cfg: cfg, table: table, started: now, outbox: newOutbox(), receipts: make(map[netip.Addr][]uint32)}
	for _, a := range cfg.Peers {
		p := &peer{addr: a, state: Waiting, life: now, synced: cfg.Synced, longest: cfg.Longest}
		p.behind = p.synced.IsZero() || now.Sub(p.synced) > m.staleAfter(p)
		m.peers = append(m.peers, p)
	}
	slices.SortFunc(m.peers, func(a, b *peer) int { return a.addr.Compare(b.addr) })
	m.settle(now)
	return m
}

// Changed notes that the record of an address changed and must be told.
func (m *Machine) Changed(now time.Time, a netip.Addr) {
	if m.inTouch() {
		m.outbox.add(a, item{since: now})
	}
}

// Tick moves the time on and returns what to tell. Call it a few times a second. seen reports whether something else than this channel
// says that a peer lives; it may be nil.
func (m *Machine) Tick(now time.Time, seen func(netip.Addr) bool) [][]byte {
	m.notice(now)
	for _, p := range m.peers {
		p.seen = seen != nil && seen(p.addr)
		if p.seen {
			p.lives(now)
		}
		m.age(now, p)
	}
	if !m.settled && m.canSettle(now) {
		m.settled = true
	}
	m.settle(now)
	m.outbox.resend(now)
	var tell [][]byte
	if !now.Before(m.nextBeat) {
		m.nextBeat = now.Add(beatEvery)
		tell = append(tell, m.beat(now))
	}
	tell = append(tell, m.confirm()...)
	return append(tell, m.Flush(now)...)
}

// compare queues all that a peer needs to know.
func (m *Machine) compare() {
	for _, p := range m.peers {
		p.told = false
	}
	m.table.Each(func(l leases.Lease) {
		if stateByte(l.State) != 0xff {
			m.outbox.add(l.Address, item{bulk: true})
		}
	})
}

// Receive takes a message of a peer in.
func (m *Machine) Receive(now time.Time, b []byte) Result {
	m.notice(now)
	msg, err := parse(now, b)
	switch {
	case err == errFormat:
		return Result{Drop: DropFormat}
	case err != nil:
		return Result{Drop: DropMalformed}
	}
	switch msg := msg.(type) {
	case beat:
		return m.heard(now, msg)
	case update:
		return m.learn(now, msg)
	case ack:
		return m.confirmed(now, msg)
	}
	return Result{Drop: DropMalformed}
}

// learn takes records of a peer in.
func (m *Machine) learn(now time.Time, u update) Result {
	p := m.peer(u.from)
	switch {
	case p == nil:
		return Result{Drop: DropStranger}
	case u.incarnation != p.incarnation:
		return Result{Drop: DropStale}
	}
	if sent, _, ok := m.sentTo(u.echoes); !ok || now.Sub(sent) > lateAfter {
		return Result{Drop: DropLate}
	}
	p.life = now
	var r Result
	for _, l := range u.leases {
		before, _ := m.table.At(now, l.Address)
		after, verdict := m.table.Merge(now, l)
		if verdict == leases.Conflict {
			r.Clashes = append(r.Clashes, Clash{Ours: before, Theirs: l})
		}
		if after != before && after.State != leases.Offered {
			r.Save = append(r.Save, after)
		}
	}
	if m.receipts[u.from] = append(m.receipts[u.from], u.seq); len(m.receipts[u.from]) >= receiptsHeld {
		r.Tell = m.confirm()
	}
	return r
}

// confirmed takes a peer's word in that it has updates of ours.
func (m *Machine) confirmed(now time.Time, a ack) Result {
	p := m.peer(a.from)
	switch {
	case p == nil:
		return Result{Drop: DropStranger}
	case a.to.to != m.cfg.Self:
		return Result{} // it is another peer's
	case a.incarnation != p.incarnation || a.to.incarnation != m.cfg.Incarnation:
		return Result{Drop: DropStale}
	}
	waited := len(m.outbox.order) > 0 && !m.outbox.waits()
	for _, seq := range a.seqs {
		m.outbox.confirm(seq, p.addr)
	}
	// What waited for a place in the window goes at once, and nobody is answered before a comparison is over.
	if waited || m.outbox.comparing() {
		return Result{Tell: m.Flush(now)}
	}
	return Result{}
}

// confirm returns messages that confirm what was learned since.
func (m *Machine) confirm() (tell [][]byte) {
	for _, p := range m.peers {
		if seqs := m.receipts[p.addr]; len(seqs) > 0 {
			tell = append(tell, ack{head: m.head(), to: echo{to: p.addr, incarnation: p.incarnation}, seqs: seqs}.marshal())
			delete(m.receipts, p.addr)
		}
	}
	return tell
}

// Flush returns the updates that can be sent now. Called a few milliseconds after a change, rather than at once, it fills its messages.
func (m *Machine) Flush(now time.Time) (tell [][]byte) {
	if !m.inTouch() {
		return nil
	}
	var need []netip.Addr
	for _, p := range m.peers {
		if p.state == InTouch {
			need = append(need, p.addr)
		}
	}
	for m.outbox.waits() {
		b := update{head: m.head(), seq: m.outbox.seq + 1, echoes: m.echoes()}.begin()
		b = m.outbox.fill(b, now, need, func(b []byte, a netip.Addr) []byte {
			l, known := m.table.At(now, a)
			if !known || stateByte(l.State) == 0xff {
				return b // it ran out, and it will there
			}
			return appendLease(b, now, l)
		})
		tell = append(tell, b)
	}
	return tell
}

// Settled reports whether clients may be answered: not before the leases are compared at a start, or after so long a time apart that a
// peer may have given addresses of ours.
func (m *Machine) Settled() bool { return m.settled }

// Hinder says that this node can give no leases for the time being, or can again: its peers answer its clients.
func (m *Machine) Hinder(on bool) { m.hindered = on }

// Until returns up to when all that the peers did to leases is known. The zero time means that there is nobody who could do anything.
func (m *Machine) Until() time.Time {
	var until time.Time
	for _, p := range m.peers {
		if p.state == Gone {
			continue
		}
		// No peer has a time before the first: a record may have ended at the zero time, and then it was never given.
		known := time.Unix(1, 0)
		if p.synced.After(known) {
			known = p.synced.Add(-margin)
		}
		if until.IsZero() || known.Before(until) {
			until = known
		}
	}
	return until
}

// Synced returns up to when all that the peers did is known, to be kept for the next run; zero: it is not. Of a peer that is gone that is now, so
// that who outlives its peer is not taken for one that comes back when it starts anew.
func (m *Machine) Synced(now time.Time) time.Time {
	synced := now
	for _, p := range m.peers {
		switch {
		case p.behind:
			return time.Time{}
		case p.state != Gone && p.synced.Before(synced):
			synced = p.synced
		}
	}
	return synced
}

// Owns reports whether an address is ours to give to a client that does not have it. Nothing is while a peer lives that may have given it.
func (m *Machine) Owns(a netip.Addr) bool {
	if m.yielded {
		return false
	}
	return Owns(a, m.cfg.Self, func(yield func(netip.Addr) bool) {
		for _, p := range m.peers {
			if p.state != Gone && !yield(p.addr) {
				return
			}
		}
	})
}
