package leases

import (
	"net/netip"
	"slices"
	"time"

	"everboot/site"
)

// maxRecords is how many addresses are remembered before freed ones are used again while others were never used: at about 200 bytes
// each it keeps a huge range and a flood of clients from filling the memory.
const maxRecords = 1 << 17

// releasedFor is how long a record of an address in no pool stays after it was given back: longer than a node with an older record, by which
// somebody has the address, is out of contact as a rule, and a lease lasts.
const releasedFor = 7 * 24 * time.Hour

// Table knows the state of every address. It is not safe for concurrent use.
type Table struct {
	epoch, now time.Time
	records    map[[4]byte]*record // IPv4
	clients    clients             // of live and of freed addresses
	live       queue               // by expiry
	back       queue               // of those in no pool that were given back, by when
	pools      []*pool
	// before: a lease that ended later than this may have been prolonged by somebody else, so that its address is only for the client
	// that had it. Zero: nobody else prolongs leases.
	before time.Time
	// held: whatever is free, and what was never given here, may have been given by somebody else.
	held bool
}

// NewTable returns a table in which every address of the pools is free. Pools must not overlap.
func NewTable(pools []Pool) *Table {
	t := &Table{records: make(map[[4]byte]*record), clients: newClients(), back: queue{byEnd: true}}
	for _, p := range pools {
		t.pools = append(t.pools, &pool{Pool: p, fresh: p.First, free: queue{byEnd: true}, aside: make(map[netip.Addr]bool)})
	}
	return t
}

// Settle says until when everybody else's doings are known: an address whose lease ended later is given to nobody but the client that had
// it. The zero time lifts that. held says that any of them may have been given, also one of which there is
// no record.
func (t *Table) Settle(until time.Time, held bool) { t.before, t.held = until, held }

// Reown sorts the free addresses anew, after a pool's Owns has changed.
func (t *Table) Reown() {
	for _, p := range t.pools {
		p.fresh = p.First
		clear(p.aside)
	}
	for _, r := range t.records {
		if !r.live() {
			t.unqueue(r)
			t.enqueue(r)
		}
	}
}

// settled reports whether an address whose lease ended then may be given to another client.
func (t *Table) settled(ended int64) bool {
	return !t.held && (t.before.IsZero() || ended <= t.ns(t.before))
}

// at returns the record of an address; nil: there is none.
func (t *Table) at(a netip.Addr) *record {
	if !a.Is4() {
		return nil
	}
	return t.records[a.As4()]
}

// Load puts leases from disk into an empty table and returns the addresses that are not worth keeping. Times are moved onto the clock of now. A
// lease never lasts longer than its full length from now on, however far the wall clock went back meanwhile.
func (t *Table) Load(now time.Time, list []Lease) (stale []netip.Addr) {
	t.clock(now)
	for _, l := range list {
		full, left := l.Expires.Sub(l.Start), l.Expires.Sub(now)
		left = min(left, max(full, 0))
		l.Expires = now.Add(left)
		l.Start = l.Expires.Add(-full)
		if l.Live() && left <= 0 {
			l.State = Expired
		}
		if !l.Address.Is4() || t.poolOf(l.Address) == nil && !l.Live() && (l.State != Released || now.Sub(l.Expires) >= releasedFor) {
			stale = append(stale, l.Address)
			continue
		}
		t.put(l)
	}
	return stale
}

// Of returns what a client has or last had within a network: a live address before one that is free again, else the one
// that it had last.
func (t *Table) Of(now time.Time, c Client, in netip.Prefix) (Lease, bool) {
	t.expire(now)
	var best *record
	t.clients.of(c, func(r *record) {
		if !in.Contains(r.address()) || r.state == declined || r.in == &t.back {
			return
		}
		if best == nil || r.live() && !best.live() || r.live() == best.live() && r.expires > best.expires {
			best = r
		}
	})
	if best == nil {
		return Lease{}, false
	}
	return t.lease(best), true
}

// At returns what is known of an address.
func (t *Table) At(now time.Time, a netip.Addr) (Lease, bool) {
	t.expire(now)
	r := t.at(a)
	if r == nil {
		return Lease{}, false
	}
	return t.lease(r), true
}

// Available reports whether an address may be given to the client: nobody else holds it, or may hold it, and it is not in quarantine.
func (t *Table) Available(now time.Time, a netip.Addr, c Client) bool {
	t.expire(now)
	r := t.at(a)
	switch {
	case r == nil:
		return !t.held
	case r.live():
		return r.is(c) && r.state != declined
	}
	return r.is(c) || t.settled(r.ended)
}

// Owned reports whether an address is in a pool and ours to give.
func (t *Table) Owned(a netip.Addr) bool {
	p := t.poolOf(a)
	return p != nil && p.owns(a)
}

// Offer holds an available address for a client. A client that is bound to it stays bound.
func (t *Table) Offer(now time.Time, l Lease, hold time.Duration) {
	t.expire(now)
	old := t.at(l.Address)
	if old != nil && old.state == bound && old.is(l.Client) {
		old.offered = t.ns(now.Add(hold))
		return
	}
	l.State, l.Start, l.Expires = Offered, now, now.Add(hold)
	if old != nil {
		l.Version = old.version
	}
	r := t.put(l)
	r.offered = r.expires
}

// Promised reports whether we offered an address to a client lately: a REQUEST for it is ours to answer.
func (t *Table) Promised(now time.Time, a netip.Addr, c Client) bool {
	t.expire(now)
	r := t.at(a)
	return r != nil && r.is(c) && t.ns(now) < r.offered
}

// Bind gives an available address to a client, or prolongs what it has, and returns what must be on disk before the client is told.
func (t *Table) Bind(now time.Time, l Lease, length time.Duration) Lease {
	t.expire(now)
	l.State, l.Start, l.Expires = Bound, now, now.Add(length)
	if old := t.at(l.Address); old != nil {
		l.Version = old.version
	}
	l.Version++
	t.put(l)
	return l
}

// Forget takes back what was only offered to the client, within a network.
func (t *Table) Forget(now time.Time, c Client, in netip.Prefix) {
	t.expire(now)
	t.clients.of(c, func(r *record) {
		if r.state == offered && in.Contains(r.address()) {
			t.retire(r, expired, t.ns(now))
		}
	})
}

// Release frees an address that the client has.
func (t *Table) Release(now time.Time, a netip.Addr, c Client) (Lease, bool) {
	t.expire(now)
	r := t.at(a)
	if r == nil || !r.is(c) || r.state != bound && r.state != offered {
		return Lease{}, false
	}
	t.retire(r, released, t.ns(now))
	r.version++
	return t.lease(r), true
}

// Free frees an address whoever has it, also from quarantine.
func (t *Table) Free(now time.Time, a netip.Addr) (Lease, bool) {
	t.expire(now)
	r := t.at(a)
	if r == nil || !r.live() {
		return Lease{}, false
	}
	t.retire(r, released, t.ns(now))
	r.version++
	return t.lease(r), true
}

// Decline puts an address that the client has into quarantine.
func (t *Table) Decline(now time.Time, a netip.Addr, c Client, quarantine time.Duration) (Lease, bool) {
	t.expire(now)
	r := t.at(a)
	if r == nil || !r.is(c) || r.state != bound && r.state != offered {
		return Lease{}, false
	}
	l := t.lease(r)
	l.State, l.Start, l.Expires = Declined, now, now.Add(quarantine)
	l.Version++
	t.put(l)
	return l, true
}

// Live returns how many addresses are given to nobody else.
func (t *Table) Live(now time.Time) int {
	t.expire(now)
	return len(t.live.list)
}

// LiveOf returns the lowest address that a machine has, whatever it calls itself.
func (t *Table) LiveOf(now time.Time, mac site.MAC) (l Lease, ok bool) {
	t.expire(now)
	var best *record
	for _, r := range t.records {
		if r.mac == mac && r.live() && (best == nil || r.address().Less(best.address())) {
			best = r
		}
	}
	if best == nil {
		return Lease{}, false
	}
	return t.lease(best), true
}

// All returns every known lease by address, offers and freed ones among them.
func (t *Table) All(now time.Time) []Lease {
	t.expire(now)
	list := make([]Lease, 0, len(t.records))
	for _, r := range t.records {
		list = append(list, t.lease(r))
	}
	slices.SortFunc(list, func(a, b Lease) int { return a.Address.Compare(b.Address) })
	return list
}

// put replaces what is known of an address, which is an IPv4 one.
func (t *Table) put(l Lease) *record {
	r := t.at(l.Address)
	if r != nil {
		t.unqueue(r)
	}
	switch {
	case r == nil:
		r = &record{ended: never, offered: never}
		t.records[l.Address.As4()] = r
		t.set(r, l)
		t.clients.link(l.Client, r)
	case !r.is(l.Client):
		t.clients.unlink(t.lease(r).Client, r)
		r.offered = never
		t.set(r, l)
		t.clients.link(l.Client, r)
	default:
		t.set(r, l)
	}
	if !r.live() {
		r.ended = r.expires
	}
	t.enqueue(r)
	return r
}

// enqueue puts a record into the queue that it belongs to, if any.
func (t *Table) enqueue(r *record) {
	if r.live() {
		t.live.add(r)
	} else if p := t.poolOf(r.address()); p == nil {
		t.back.add(r)
	} else if p.owns(r.address()) {
		p.free.add(r)
	}
}

// expire frees whatever has run out.
func (t *Table) expire(now time.Time) {
	t.clock(now)
	for ns := t.ns(now); len(t.live.list) > 0 && t.live.list[0].expires <= ns; {
		r := t.live.list[0]
		t.retire(r, expired, r.expires)
	}
	for ns := t.ns(now); len(t.back.list) > 0 && t.back.list[0].ended <= ns-int64(releasedFor); {
		r := t.back.list[0]
		t.unqueue(r)
		t.drop(r)
	}
}

// retire makes a live record a free one. The record stays, so that the client finds its address again. In no pool it stays if it was given back, which
// others must hear; that it ran out they know.
func (t *Table) retire(r *record, state byte, at int64) {
	t.unqueue(r)
	pooled := t.poolOf(r.address()) != nil
	switch {
	case r.state != offered:
		r.ended = at // nobody was told of an offer that was not taken as of a lease
	case !pooled && r.ended != never:
		state, at = released, r.ended // as it was before the offer
	}
	r.state, r.expires = state, at
	if pooled || state == released && r.ended != never {
		t.enqueue(r)
		return
	}
	t.drop(r)
}

// drop forgets a record, which is in no queue.
func (t *Table) drop(r *record) {
	t.clients.unlink(t.lease(r).Client, r)
	delete(t.records, r.addr)
}

func (t *Table) unqueue(r *record) {
	if r.in != nil {
		r.in.remove(r)
	}
}

// Each calls f with every known record, in no order. f must not change the table.
func (t *Table) Each(f func(Lease)) {
	for _, r := range t.records {
		f(t.lease(r))
	}
}
