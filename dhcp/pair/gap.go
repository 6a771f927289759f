package pair

import (
	"encoding/binary"
	"time"

	"everboot/site"
)

// A machine can stand still and go on as if nothing had been: a virtual one that is paused, moved, or taken back to a snapshot of its memory; a process
// that is stopped. What it believes of its peers is then as old as that lasted, and they may have taken it for gone.

// maxGap is how long nothing is heard of the time, while Tick is called a few times a second, before that is taken for a standstill.
const maxGap = 5 * time.Second

// Ready notes the time and reports whether clients may be answered.
func (m *Machine) Ready(now time.Time) bool {
	m.notice(now)
	return m.settled
}

// notice looks whether the node stood still, by the clock that never goes back, or by the wall clock: the first stands still with a virtual machine. One
// that is set looks the same: that costs a comparison, or the time of a start without peers.
func (m *Machine) notice(now time.Time) {
	last := m.noticed
	m.noticed = now
	if last.IsZero() {
		return
	}
	if gap := max(now.Sub(last), now.Round(0).Sub(last.Round(0))); gap > maxGap {
		m.restart(now, uint64(now.UnixNano()), gap)
	}
}

// restart makes of the machine that of a node which starts now, with the leases that it has. For its peers it is another run: what they heard of this one says
// nothing, and they tell it all. salt is something that no earlier restart had.
func (m *Machine) restart(now time.Time, salt uint64, gap time.Duration) {
	key := binary.BigEndian.AppendUint64(nil, m.cfg.Incarnation)
	m.cfg.Incarnation = site.Rendezvous(key, binary.BigEndian.AppendUint64(nil, salt))
	m.started, m.settled, m.number, m.nextBeat = now, false, 0, time.Time{}
	seq := m.outbox.seq
	m.outbox = newOutbox()
	m.outbox.seq = seq
	clear(m.receipts)
	for _, p := range m.peers {
		p.told, p.ready, p.met, p.alive, p.vouched = false, false, false, false, time.Time{}
		long := gap > m.staleAfter(p)
		if p.state == Gone && !long {
			continue // should it have come back meanwhile, it did not give what is ours
		}
		gone := p.state == Gone
		p.state, p.life, p.behind = Waiting, now, p.behind || long
		if gone {
			m.table.Reown()
		}
	}
	m.settle(now)
}

// wasAway reports whether a beat says that this node was away for its peer though it noticed nothing: the peer has heard beats of this run that are yet
// to come, or it has heard a late one and is out of contact, though it was not.
func (m *Machine) wasAway(p *peer, b beat, fresh bool) (snapshot, lost bool) {
	for _, e := range b.echoes {
		if e.to != m.cfg.Self || e.incarnation != m.cfg.Incarnation {
			continue
		}
		snapshot = snapshot || e.beat > m.number
		lost = lost || fresh && p.state == InTouch && p.met && !e.inTouch && b.incarnation == p.incarnation
	}
	return snapshot, lost
}
