package pair

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"everboot/dhcp/leases"
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

type peer struct {
	addr        netip.Addr
	incarnation uint64
	state       Contact
	lastBeat    uint32
	next        uint64 // a run of it that has not shown yet that it is the present one
	nextBeat    uint32
	past        []uint64  // runs that are over
	heard       time.Time // when a beat of it came
	touched     time.Time // when the last of our beats was sent that it has heard
	life        time.Time // the last sign of life of any kind
	synced      time.Time // until when each side knows what the other did
	longest     time.Duration
	told        bool // since contact began it has told us all, and we it
	ready       bool
	met         bool      // since contact began it has said that it is in touch with us
	seen        bool      // something else says that it lives
	returned    time.Time // when it was gone no more
	longAway    bool      // since contact was lost it was gone: it may have taken our addresses for its own
	behind      bool      // we were away for so long that it may have taken us for gone, and have not compared since
	alive       bool      // it has shown since then that it lives
	vouched     time.Time // from when on what was written down elsewhere makes up for what it has not told, if it does not live
}

// staleAfter is how long after its last word a peer may be taken for gone, if it gives no other sign of life.
func (m *Machine) staleAfter(p *peer) time.Duration { return max(p.longest, m.cfg.Longest) + margin }

// Behind reports whether some peer may have given addresses of ours that we do not know of.
func (m *Machine) Behind() bool {
	return slices.ContainsFunc(m.peers, func(p *peer) bool { return p.behind })
}

// Yields reports whether a peer answers at this moment that may know more of our addresses than we do: a claim of which we have no record is its
// to decide.
func (m *Machine) Yields() bool {
	return slices.ContainsFunc(m.peers, func(p *peer) bool { return p.behind && p.answers() })
}

// vouchAfter is how long somewhere else is looked for signs of a peer's life before its silence there counts: what is written down there is some
// seconds old.
const vouchAfter = 15 * time.Second

// Vouch notes that all is known that the peers wrote down of their leases elsewhere, where also stands that they live (Lives): it makes up for a disk that is new.
func (m *Machine) Vouch(now time.Time) {
	for _, p := range m.peers {
		p.vouched = now.Add(vouchAfter)
	}
}

// held reports whether the peer may have given what we know nothing of.
func (p *peer) held(now time.Time) bool {
	return p.behind && (p.alive || p.vouched.IsZero() || now.Before(p.vouched))
}

// settle tells the table what may be given to whom.
func (m *Machine) settle(now time.Time) {
	held := slices.ContainsFunc(m.peers, func(p *peer) bool { return p.held(now) })
	m.table.Settle(m.Until(), held)
	alive := slices.ContainsFunc(m.peers, func(p *peer) bool { return p.behind && p.alive })
	if alive != m.yielded {
		m.yielded = alive
		m.table.Reown()
	}
}

// lives notes a sign of life.
func (p *peer) lives(now time.Time) { p.life, p.alive = now, true }

// age looks whether a peer has been silent for too long.
func (m *Machine) age(now time.Time, p *peer) {
	switch p.state {
	case InTouch:
		if now.Sub(p.touched) > Silence || now.Sub(p.heard) > Silence {
			m.enter(now, p, Away)
		}
	case Waiting:
		if now.Sub(m.started) >= startPatience {
			m.enter(now, p, Away)
		}
	case Away:
		if now.Sub(p.life) > m.staleAfter(p) {
			m.enter(now, p, Gone)
		}
	case Gone:
		if p.seen {
			m.enter(now, p, Away)
		}
	}
}

func (m *Machine) enter(now time.Time, p *peer, next Contact) {
	was := p.state
	p.state = next
	switch next {
	case InTouch:
		p.longAway = false
		m.compare()
	case Gone:
		p.longAway, p.behind = true, false
	}
	if was == Gone {
		m.settled, p.returned = false, now
	}
	if next != InTouch {
		p.told, p.ready, p.met = false, false, false
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
		case p.longAway && p.state == Away && now.Sub(p.returned) < startPatience:
			return false // it is coming back. It may live and never get in touch, behind a broken channel
		}
	}
	return true
}

func (m *Machine) peer(a netip.Addr) *peer {
	i := slices.IndexFunc(m.peers, func(p *peer) bool { return p.addr == a })
	if i < 0 {
		return nil
	}
	return m.peers[i]
}

// heard takes a beat in. Beats of one run of a peer count upwards, and a run that was followed by another is over: what is repeated,
// overtaken or kept by somebody and sent again later says nothing.
func (m *Machine) heard(now time.Time, b beat) Result {
	p := m.peer(b.from)
	switch {
	case p == nil:
		return Result{Drop: DropStranger}
	case !p.advances(b):
		return Result{Drop: DropStale}
	}
	p.lives(now)
	if p.state == Gone {
		m.enter(now, p, Away)
	}
	sent, inTouch, ok := m.sentTo(b.echoes)
	fresh := ok && now.Sub(sent) <= Silence
	if snapshot, lost := m.wasAway(p, b, fresh); snapshot || lost {
		gap := time.Duration(0)
		if snapshot {
			gap = m.staleAfter(p) + 1 // nobody knows
		}
		m.restart(now, uint64(b.number), gap)
		p.lives(now)
		return Result{}
	}
	if b.incarnation != p.incarnation && !m.follows(now, p, b, fresh) {
		return Result{}
	}
	p.lastBeat, p.heard, p.longest, p.ready = b.number, now, b.longest, b.ready
	if !fresh {
		return Result{}
	}
	p.touched = sent
	if p.state != InTouch {
		m.enter(now, p, InTouch)
		return Result{Tell: m.Flush(now)}
	}
	p.met = p.met || inTouch
	if b.owed >= 0 && inTouch && !m.outbox.comparing() {
		p.told, p.behind = true, false
		known := sent.Add(-b.owed)
		if oldest, any := m.outbox.oldest(); any && oldest.Before(known) {
			known = oldest
		}
		if known.After(p.synced) {
			p.synced = known
		}
	}
	m.settle(now)
	return Result{}
}

// advances reports whether a beat comes after all that were heard of its run, and its run is not over.
func (p *peer) advances(b beat) bool {
	switch {
	case b.incarnation == p.incarnation:
		return b.number > p.lastBeat
	case b.incarnation == p.next:
		return b.number > p.nextBeat
	}
	return b.number > 0 && !slices.Contains(p.past, b.incarnation)
}

// follows decides on a beat of a run that is not the one we know, and reports whether it has become that. It has when it names a late beat
// of ours, which nobody could have recorded earlier. Until then our beats name it, so that it can.
func (m *Machine) follows(now time.Time, p *peer, b beat, fresh bool) bool {
	if !fresh {
		p.next, p.nextBeat = b.incarnation, b.number
		p.ready = false // if it did start anew it answers nobody yet; if not, its next beat says so
		return false
	}
	if p.state == InTouch {
		m.enter(now, p, Away) // it started anew and knows only what is on its disk
	}
	if p.incarnation != 0 {
		p.past = append(p.past[max(0, len(p.past)+1-runsKept):], p.incarnation)
	}
	p.incarnation, p.next, p.nextBeat = b.incarnation, 0, 0
	delete(m.receipts, p.addr) // they were for updates of the earlier run
	return true
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

func (m *Machine) head() head { return head{m.cfg.Self, m.cfg.Incarnation} }

func (m *Machine) echoes() (list []echo) {
	for _, p := range m.peers {
		if p.lastBeat > 0 && len(list) < maxPeers {
			list = append(list, echo{p.addr, p.incarnation, p.lastBeat, p.state == InTouch})
		}
	}
	for _, p := range m.peers {
		if p.nextBeat > 0 && len(list) < maxPeers {
			list = append(list, echo{p.addr, p.next, p.nextBeat, false})
		}
	}
	return list
}

func (m *Machine) beat(now time.Time) []byte {
	m.number++
	m.beats[m.number%beatsKept] = now
	b := beat{head: m.head(), number: m.number, owed: -time.Second, longest: m.cfg.Longest, ready: m.settled && !m.hindered, echoes: m.echoes()}
	if !m.outbox.comparing() {
		b.owed = 0
		if oldest, ok := m.outbox.oldest(); ok {
			b.owed = now.Sub(oldest)
		}
	}
	return b.marshal()
}

func (m *Machine) inTouch() bool {
	return slices.ContainsFunc(m.peers, func(p *peer) bool { return p.state == InTouch })
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
			p.lives(now)
		}
	}
}

// Lives notes that a peer, which is out of contact, does something: it writes its leases down where we can read them. Whether it answers clients
// that does not say.
func (m *Machine) Lives(now time.Time, a netip.Addr) {
	p := m.peer(a)
	if p == nil || p.state != Away && p.state != Gone {
		return
	}
	p.lives(now)
	if p.state == Gone {
		m.enter(now, p, Away)
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
