package leases

import (
	"net/netip"
	"slices"
	"time"
)

// Pool is a range of addresses to pick from, and which of them are ours to give. When Owns changes its mind, Reown must be called.
type Pool struct {
	First, Last netip.Addr
	Owns        func(netip.Addr) bool // nil: all of them
}

func (p Pool) contains(a netip.Addr) bool { return p.First.Compare(a) <= 0 && a.Compare(p.Last) <= 0 }

// maxRecords is how many addresses are remembered before freed ones are used again while others were never used: at about 300 bytes
// each it keeps a huge range and a flood of clients from filling the memory.
const maxRecords = 1 << 17

// Table knows the state of every address. It is not safe for concurrent use.
type Table struct {
	records map[netip.Addr]*record
	clients map[Client][]netip.Addr // of live and of freed addresses
	live    queue                   // by expiry
	pools   []*pool
	// before: a lease that ended later than this may have been prolonged by somebody else, so that its address is only for the client
	// that had it. Zero: nobody else prolongs leases.
	before time.Time
}

type pool struct {
	Pool
	fresh netip.Addr // the next address that was never given; invalid: none is left
	free  queue      // those of ours that were given and are free again, the longest free first
	aside []netip.Addr
}

// NewTable returns a table in which every address of the pools is free. Pools must not overlap.
func NewTable(pools []Pool) *Table {
	t := &Table{records: make(map[netip.Addr]*record), clients: make(map[Client][]netip.Addr)}
	for _, p := range pools {
		t.pools = append(t.pools, &pool{Pool: p, fresh: p.First, free: queue{byEnd: true}})
	}
	return t
}

// Settle says until when everybody else's doings are known: an address whose lease ended later is given to nobody but the client that had
// it. The zero time lifts that.
func (t *Table) Settle(until time.Time) { t.before = until }

// Reown sorts the free addresses anew, after a pool's Owns has changed.
func (t *Table) Reown() {
	for _, p := range t.pools {
		p.fresh, p.aside = p.First, nil
	}
	for _, r := range t.records {
		if !r.Live() {
			t.unqueue(r)
			t.enqueue(r)
		}
	}
}

// settled reports whether an address whose lease ended then may be given to another client.
func (t *Table) settled(ended time.Time) bool { return t.before.IsZero() || !ended.After(t.before) }

// Load puts leases from disk into an empty table and returns the addresses that are not worth keeping. Times are moved onto the clock of now. A
// lease never lasts longer than its full length from now on, however far the wall clock went back meanwhile.
func (t *Table) Load(now time.Time, list []Lease) (stale []netip.Addr) {
	for _, l := range list {
		full, left := l.Expires.Sub(l.Start), l.Expires.Sub(now)
		left = min(left, max(full, 0))
		l.Expires = now.Add(left)
		l.Start = l.Expires.Add(-full)
		if l.Live() && left <= 0 {
			l.State = Expired
		}
		if t.poolOf(l.Address) == nil && !l.Live() {
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
	for _, a := range t.clients[c] {
		r := t.records[a]
		if !in.Contains(a) || r.State == Declined {
			continue
		}
		if best == nil || r.Live() && !best.Live() || r.Live() == best.Live() && r.Expires.After(best.Expires) {
			best = r
		}
	}
	if best == nil {
		return Lease{}, false
	}
	return best.Lease, true
}

// At returns what is known of an address.
func (t *Table) At(now time.Time, a netip.Addr) (Lease, bool) {
	t.expire(now)
	r, ok := t.records[a]
	if !ok {
		return Lease{}, false
	}
	return r.Lease, true
}

// Available reports whether an address may be given to the client: nobody else holds it, or may hold it, and it is not in quarantine.
func (t *Table) Available(now time.Time, a netip.Addr, c Client) bool {
	t.expire(now)
	r, ok := t.records[a]
	switch {
	case !ok:
		return true
	case r.Live():
		return r.Client == c && r.State != Declined
	}
	return r.Client == c || t.settled(r.ended)
}

// Owned reports whether an address is in a pool and ours to give.
func (t *Table) Owned(a netip.Addr) bool {
	p := t.poolOf(a)
	return p != nil && p.owns(a)
}

// Offer holds an available address for a client. A client that is bound to it stays bound.
func (t *Table) Offer(now time.Time, l Lease, hold time.Duration) {
	t.expire(now)
	old, ok := t.records[l.Address]
	if ok && old.State == Bound && old.Client == l.Client {
		old.offered = now.Add(hold)
		return
	}
	l.State, l.Start, l.Expires = Offered, now, now.Add(hold)
	if ok {
		l.Version = old.Version
	}
	t.put(l)
	t.records[l.Address].offered = l.Expires
}

// Promised reports whether we offered an address to a client lately: a REQUEST for it is ours to answer.
func (t *Table) Promised(now time.Time, a netip.Addr, c Client) bool {
	t.expire(now)
	r, ok := t.records[a]
	return ok && r.Client == c && now.Before(r.offered)
}

// Bind gives an available address to a client, or prolongs what it has, and returns what must be on disk before the client is told.
func (t *Table) Bind(now time.Time, l Lease, length time.Duration) Lease {
	t.expire(now)
	l.State, l.Start, l.Expires = Bound, now, now.Add(length)
	if old, ok := t.records[l.Address]; ok {
		l.Version = old.Version
	}
	l.Version++
	t.put(l)
	return l
}

// Forget takes back what was only offered to the client, within a network.
func (t *Table) Forget(now time.Time, c Client, in netip.Prefix) {
	t.expire(now)
	for _, a := range slices.Clone(t.clients[c]) {
		if r := t.records[a]; r.State == Offered && in.Contains(a) {
			t.retire(r, Expired, now)
		}
	}
}

// Release frees an address that the client has.
func (t *Table) Release(now time.Time, a netip.Addr, c Client) (Lease, bool) {
	t.expire(now)
	r, ok := t.records[a]
	if !ok || r.Client != c || r.State != Bound && r.State != Offered {
		return Lease{}, false
	}
	t.retire(r, Released, now)
	r.Version++
	return r.Lease, true
}

// Free frees an address whoever has it, also from quarantine.
func (t *Table) Free(now time.Time, a netip.Addr) (Lease, bool) {
	t.expire(now)
	r, ok := t.records[a]
	if !ok || !r.Live() {
		return Lease{}, false
	}
	client := *r
	t.retire(r, Released, now)
	client.Lease.State, client.Lease.Expires = Released, now
	client.Lease.Version++
	r.Version = client.Lease.Version
	return client.Lease, true
}

// Decline puts an address that the client has into quarantine.
func (t *Table) Decline(now time.Time, a netip.Addr, c Client, quarantine time.Duration) (Lease, bool) {
	t.expire(now)
	r, ok := t.records[a]
	if !ok || r.Client != c || r.State != Bound && r.State != Offered {
		return Lease{}, false
	}
	l := r.Lease
	l.State, l.Start, l.Expires = Declined, now, now.Add(quarantine)
	l.Version++
	t.put(l)
	return l, true
}

// Waits reports whether there are free addresses of ours that are not yet for everybody.
func (t *Table) Waits(in netip.Prefix) bool {
	return slices.ContainsFunc(t.pools, func(p *pool) bool { return in.Contains(p.First) && len(p.free.list) > 0 })
}

// Pick returns an address of the pools within a network that is ours and free: first those that were never given, then
// the one that is free for longest. Addresses for which avoid is true are passed over.
func (t *Table) Pick(now time.Time, in netip.Prefix, avoid func(netip.Addr) bool) (netip.Addr, bool) {
	t.expire(now)
	for _, p := range t.pools {
		if !in.Contains(p.First) {
			continue
		}
		if a, ok := t.pickFrom(p, avoid); ok {
			return a, true
		}
	}
	return netip.Addr{}, false
}

func (t *Table) pickFrom(p *pool, avoid func(netip.Addr) bool) (netip.Addr, bool) {
	if len(t.records) >= maxRecords {
		if a, ok := t.oldest(p, avoid); ok {
			return a, true
		}
	}
	if a, ok := t.freshOf(p, avoid); ok {
		return a, true
	}
	if a, ok := t.oldest(p, avoid); ok {
		return a, true
	}
	// Last, what had to be avoided once and perhaps need not any more.
	for i, a := range p.aside {
		if r := t.records[a]; (r == nil || !r.Live() && t.settled(r.ended)) && !avoid(a) {
			p.aside = slices.Delete(p.aside, i, i+1)
			return a, true
		}
	}
	return netip.Addr{}, false
}

func (t *Table) freshOf(p *pool, avoid func(netip.Addr) bool) (netip.Addr, bool) {
	for p.fresh.IsValid() {
		a := p.fresh
		p.fresh = a.Next()
		if a == p.Last {
			p.fresh = netip.Addr{}
		}
		switch {
		case !p.owns(a) || t.records[a] != nil:
		case avoid(a):
			p.aside = append(p.aside, a)
		default:
			return a, true
		}
	}
	return netip.Addr{}, false
}

// All returns every known lease by address, offers and freed ones among them.
func (t *Table) All(now time.Time) []Lease {
	t.expire(now)
	list := make([]Lease, 0, len(t.records))
	for _, r := range t.records {
		list = append(list, r.Lease)
	}
	slices.SortFunc(list, func(a, b Lease) int { return a.Address.Compare(b.Address) })
	return list
}

func (t *Table) poolOf(a netip.Addr) *pool {
	for _, p := range t.pools {
		if p.contains(a) {
			return p
		}
	}
	return nil
}

func (p *pool) owns(a netip.Addr) bool { return p.Owns == nil || p.Owns(a) }

// oldest takes the longest free address out of the queue. What must be avoided goes out of its way; what somebody else may have
// prolonged stays, and with it all that were freed later.
func (t *Table) oldest(p *pool, avoid func(netip.Addr) bool) (netip.Addr, bool) {
	for len(p.free.list) > 0 && t.settled(p.free.list[0].ended) {
		r := p.free.list[0]
		p.free.remove(r)
		if !avoid(r.Address) {
			return r.Address, true
		}
		p.aside = append(p.aside, r.Address)
	}
	return netip.Addr{}, false
}

// put replaces what is known of an address.
func (t *Table) put(l Lease) {
	r, ok := t.records[l.Address]
	if !ok {
		r = &record{}
		t.records[l.Address] = r
	}
	t.unqueue(r)
	if ok && r.Client != l.Client {
		t.unlink(r)
		r.offered = time.Time{}
	}
	r.Lease = l
	if !l.Live() {
		r.ended = l.Expires
	}
	if l.Client != "" && !slices.Contains(t.clients[l.Client], l.Address) {
		t.clients[l.Client] = append(t.clients[l.Client], l.Address)
	}
	t.enqueue(r)
}

// enqueue puts a record into the queue that it belongs to, if any.
func (t *Table) enqueue(r *record) {
	if r.Live() {
		t.live.add(r)
	} else if p := t.poolOf(r.Address); p != nil && p.owns(r.Address) {
		p.free.add(r)
	}
}

// expire frees whatever has run out.
func (t *Table) expire(now time.Time) {
	for len(t.live.list) > 0 && !now.Before(t.live.list[0].Expires) {
		r := t.live.list[0]
		t.retire(r, Expired, r.Expires)
	}
}

// retire makes a live record a free one. The record stays, so that the client finds its address again, unless it belongs to no pool.
func (t *Table) retire(r *record, state State, at time.Time) {
	t.unqueue(r)
	if r.State != Offered {
		r.ended = at // nobody was told of an offer that was not taken as of a lease
	}
	r.State, r.Expires = state, at
	if t.poolOf(r.Address) != nil {
		t.enqueue(r)
		return
	}
	t.unlink(r)
	delete(t.records, r.Address)
}

func (t *Table) unqueue(r *record) {
	t.live.remove(r)
	if p := t.poolOf(r.Address); p != nil {
		p.free.remove(r)
	}
}

func (t *Table) unlink(r *record) {
	list := slices.DeleteFunc(t.clients[r.Client], func(a netip.Addr) bool { return a == r.Address })
	if len(list) == 0 {
		delete(t.clients, r.Client)
		return
	}
	t.clients[r.Client] = list
}

// Each calls f with every known record, in no order. f must not change the table.
func (t *Table) Each(f func(Lease)) {
	for _, r := range t.records {
		f(r.Lease)
	}
}
