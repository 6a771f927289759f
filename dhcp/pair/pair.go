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
	"cmp"
	"net/netip"
	"slices"
	"time"

	"everboot/dhcp/leases"
	"everboot/site"
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
)

// Contact is how things stand with a peer.
type Contact string

// The states of a peer.
const (
	Waiting Contact = "waiting" // we have just started and not heard of it yet
	InTouch Contact = "in touch"
	Away    Contact = "away" // silent; its leases may be alive
	Gone    Contact = "gone" // silent for so long that none of its leases can be alive
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

	number   uint32
	nextBeat time.Time
	beats    [beatsKept]time.Time // when beat number n was sent, at n % beatsKept
	outbox   outbox
}

type peer struct {
	addr        netip.Addr
	incarnation uint64
	state       Contact
	lastBeat    uint32
	heard       time.Time // when a beat of it came
	touched     time.Time // when the last of our beats was sent that it has heard
	life        time.Time // the last sign of life of any kind
	synced      time.Time // until when each side knows what the other did
	longest     time.Duration
	told        bool // since contact began it has told us all, and we it
	ready       bool
	seen        bool // something else says that it lives
	longAway    bool // since contact was lost it was gone: it may have taken our addresses for its own
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
	m := &Machine{cfg: cfg, table: table, started: now, outbox: newOutbox()}
	for _, a := range cfg.Peers {
		m.peers = append(m.peers, &peer{addr: a, state: Waiting, life: now, synced: cfg.Synced, longest: cfg.Longest})
	}
	slices.SortFunc(m.peers, func(a, b *peer) int { return a.addr.Compare(b.addr) })
	table.Settle(m.Until())
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
	for _, p := range m.peers {
		p.seen = seen != nil && seen(p.addr)
		if p.seen {
			p.life = now
		}
		m.age(now, p)
	}
	if !m.settled && m.canSettle(now) {
		m.settled = true
	}
	m.table.Settle(m.Until())
	m.outbox.resend(now)
	var tell [][]byte
	if !now.Before(m.nextBeat) {
		m.nextBeat = now.Add(beatEvery)
		tell = append(tell, m.beat(now))
	}
	return append(tell, m.Flush(now)...)
}

// age looks whether a peer has been silent for too long.
func (m *Machine) age(now time.Time, p *peer) {
	switch p.state {
	case InTouch:
		if now.Sub(p.touched) > Silence || now.Sub(p.heard) > Silence {
			m.enter(p, Away)
		}
	case Waiting:
		if now.Sub(m.started) >= startPatience {
			m.enter(p, Away)
		}
	case Away:
		if now.Sub(p.life) > max(p.longest, m.cfg.Longest)+margin {
			m.enter(p, Gone)
		}
	case Gone:
		if p.seen {
			m.enter(p, Away)
		}
	}
}

func (m *Machine) enter(p *peer, next Contact) {
	was := p.state
	p.state = next
	switch next {
	case InTouch:
		p.longAway = false
		m.compare()
	case Gone:
		p.longAway = true
	}
	if was == Gone {
		m.settled = false
	}
	if next != InTouch {
		p.told, p.ready = false, false
		m.outbox.lost(p.addr, m.inTouch())
	}
	if was == Gone || next == Gone {
		m.table.Reown()
	}
}

// canSettle reports whether we know enough of our peers to give addresses that we have no record of.
func (m *Machine) canSettle(now time.Time) bool {
	for _, p := range m.peers {
		switch {
		case p.state == Waiting, p.state == InTouch && !p.told:
			return false
		case p.longAway && p.state == Away && now.Sub(p.life) < startPatience:
			return false // it is coming back
		}
	}
	return true
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

func (m *Machine) peer(a netip.Addr) *peer {
	i := slices.IndexFunc(m.peers, func(p *peer) bool { return p.addr == a })
	if i < 0 {
		return nil
	}
	return m.peers[i]
}

// heard takes a beat in.
func (m *Machine) heard(now time.Time, b beat) Result {
	p := m.peer(b.from)
	if p == nil {
		return Result{Drop: DropStranger}
	}
	p.life = now
	if p.state == Gone {
		m.enter(p, Away)
	}
	if b.incarnation != p.incarnation {
		if p.state == InTouch {
			m.enter(p, Away) // it started anew and knows only what is on its disk
		}
		p.incarnation, p.lastBeat = b.incarnation, 0
	}
	if b.number <= p.lastBeat {
		return Result{Drop: DropStale}
	}
	p.lastBeat, p.heard, p.longest, p.ready = b.number, now, b.longest, b.ready
	sent, inTouch, ok := m.sentTo(b.echoes)
	if !ok || now.Sub(sent) > Silence {
		return Result{}
	}
	p.touched = sent
	if p.state != InTouch {
		m.enter(p, InTouch)
		return Result{Tell: m.Flush(now)}
	}
	if b.owed >= 0 && inTouch && !m.outbox.comparing() {
		p.told = true
		known := sent.Add(-b.owed)
		if oldest, any := m.outbox.oldest(); any && oldest.Before(known) {
			known = oldest
		}
		if known.After(p.synced) {
			p.synced = known
		}
	}
	m.table.Settle(m.Until())
	return Result{}
}

// sentTo returns when the beat of ours was sent that a peer heard last, and whether the peer tells us of its changes.
func (m *Machine) sentTo(list []echo) (sent time.Time, inTouch, ok bool) {
	for _, e := range list {
		if e.to == m.cfg.Self && e.incarnation == m.cfg.Incarnation && e.beat <= m.number && m.number-e.beat < beatsKept && e.beat > 0 {
			return m.beats[e.beat%beatsKept], e.inTouch, true
		}
	}
	return time.Time{}, false, false
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
	r.Tell = [][]byte{ack{head: m.head(), to: echo{to: u.from, incarnation: u.incarnation}, seqs: []uint32{u.seq}}.marshal()}
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
	for _, seq := range a.seqs {
		m.outbox.confirm(seq, p.addr)
	}
	return Result{Tell: m.Flush(now)}
}

func (m *Machine) head() head { return head{m.cfg.Self, m.cfg.Incarnation} }

func (m *Machine) echoes() (list []echo) {
	for _, p := range m.peers {
		if p.lastBeat > 0 && len(list) < maxPeers {
			list = append(list, echo{p.addr, p.incarnation, p.lastBeat, p.state == InTouch})
		}
	}
	return list
}

func (m *Machine) beat(now time.Time) []byte {
	m.number++
	m.beats[m.number%beatsKept] = now
	b := beat{head: m.head(), number: m.number, owed: -time.Second, longest: m.cfg.Longest, ready: m.settled, echoes: m.echoes()}
	if !m.outbox.comparing() {
		b.owed = 0
		if oldest, ok := m.outbox.oldest(); ok {
			b.owed = now.Sub(oldest)
		}
	}
	return b.marshal()
}

// Flush returns the updates that can be sent now.
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

func (m *Machine) inTouch() bool {
	return slices.ContainsFunc(m.peers, func(p *peer) bool { return p.state == InTouch })
}

// Settled reports whether clients may be answered: not before the leases are compared at a start, or after so long a time apart that a
// peer may have given addresses of ours.
func (m *Machine) Settled() bool { return m.settled }

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

// Synced returns up to when all that the peers did is known, to be kept for the next run.
func (m *Machine) Synced() time.Time {
	var synced time.Time
	for i, p := range m.peers {
		if i == 0 || p.synced.Before(synced) {
			synced = p.synced
		}
	}
	return synced
}

// Owns reports whether an address is ours to give to a client that does not have it.
func (m *Machine) Owns(a netip.Addr) bool {
	own := site.Rendezvous(a.AsSlice(), m.cfg.Self.AsSlice())
	for _, p := range m.peers {
		if p.state == Gone {
			continue
		}
		w := site.Rendezvous(a.AsSlice(), p.addr.AsSlice())
		if w > own || w == own && p.addr.Less(m.cfg.Self) {
			return false
		}
	}
	return true
}

// First reports whether a client is first ours to answer (RFC 3074): its bucket is one of those of this node, among the nodes that
// answer now.
func (m *Machine) First(c leases.Client) bool {
	nodes, self := 1, 0
	for _, p := range m.peers {
		if !p.answers() {
			continue
		}
		nodes++
		if p.addr.Less(m.cfg.Self) {
			self++
		}
	}
	return bucket(c)*nodes/256 == self
}

// answers reports whether a peer answers clients, as far as we know. One that is silent on the channel, but seen otherwise, does: the
// channel is broken, and not the peer.
func (p *peer) answers() bool { return p.state == InTouch && p.ready || p.state != InTouch && p.seen }

// Away reports whether some peer is out of contact.
func (m *Machine) Away() bool {
	return slices.ContainsFunc(m.peers, func(p *peer) bool { return p.state == Away || p.state == Waiting })
}

// Overheard notes that a client asks for an address that only a peer can have offered: some peer lives.
func (m *Machine) Overheard(now time.Time) {
	for _, p := range m.peers {
		if p.state == Away {
			p.life = now
		}
	}
}

// Peer is how things stand with a peer.
type Peer struct {
	Address netip.Addr `json:"address"`
	State   Contact    `json:"state"`
	Heard   time.Time  `json:"heard,omitzero"`
	Synced  time.Time  `json:"synced,omitzero"` // until when each knows what the other did
}

// Peers returns how things stand with each peer, by address.
func (m *Machine) Peers() []Peer {
	var list []Peer
	for _, p := range m.peers {
		list = append(list, Peer{p.addr, p.state, p.heard, p.synced})
	}
	slices.SortFunc(list, func(a, b Peer) int { return cmp.Compare(a.Address.String(), b.Address.String()) })
	return list
}
