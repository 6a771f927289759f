package leases

import (
	"net/netip"
	"slices"
	"time"
)

// Pool is a range of addresses to pick from, and which of them are ours to give.
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
}

type pool struct {
	Pool
	fresh netip.Addr // the next address that was never given; invalid: none is left
	free  queue      // those that were given and are free again, the longest free first
	aside []netip.Addr
}

// NewTable returns a table in which every address of the pools is free. Pools must not overlap.
func NewTable(pools []Pool) *Table {
	t := &Table{records: make(map[netip.Addr]*record), clients: make(map[Client][]netip.Addr)}
	for _, p := range pools {
		t.pools = append(t.pools, &pool{Pool: p, fresh: p.First})
	}
	return t
}

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

// Available reports whether an address may be given to the client: nobody else holds it and it is not in quarantine.
func (t *Table) Available(now time.Time, a netip.Addr, c Client) bool {
	l, ok := t.At(now, a)
	return !ok || !l.Live() || l.Client == c && l.State != Declined
}

// Owned reports whether an address is in a pool and ours to give.
func (t *Table) Owned(a netip.Addr) bool {
	p := t.poolOf(a)
	return p != nil && p.owns(a)
}

// Offer holds an available address for a client. A client that is bound to it stays bound.
func (t *Table) Offer(now time.Time, l Lease, hold time.Duration) {
	t.expire(now)
	if old, ok := t.records[l.Address]; ok && old.State == Bound && old.Client == l.Client {
		return
	}
	l.State, l.Start, l.Expires = Offered, now, now.Add(hold)
	t.put(l)
}

// Bind gives an available address to a client, or prolongs what it has, and returns what must be on disk before the client is told.
func (t *Table) Bind(now time.Time, l Lease, length time.Duration) Lease {
	t.expire(now)
	l.State, l.Start, l.Expires = Bound, now, now.Add(length)
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
	return r.Lease, true
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
	t.put(l)
	return l, true
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
		if a, ok := p.oldest(avoid); ok {
			return a, true
		}
	}
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
	if a, ok := p.oldest(avoid); ok {
		return a, true
	}
	// Last, what had to be avoided once and perhaps need not any more.
	for i, a := range p.aside {
		if r := t.records[a]; (r == nil || !r.Live()) && !avoid(a) {
			p.aside = slices.Delete(p.aside, i, i+1)
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

// oldest takes the longest free address out of the queue. What must be avoided, or is not ours any more, goes out of its way.
func (p *pool) oldest(avoid func(netip.Addr) bool) (netip.Addr, bool) {
	for len(p.free.list) > 0 {
		r := p.free.list[0]
		p.free.remove(r)
		switch {
		case !p.owns(r.Address):
		case avoid(r.Address):
			p.aside = append(p.aside, r.Address)
		default:
			return r.Address, true
		}
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
	}
	r.Lease = l
	if l.Client != "" && !slices.Contains(t.clients[l.Client], l.Address) {
		t.clients[l.Client] = append(t.clients[l.Client], l.Address)
	}
	if l.Live() {
		t.live.add(r)
	} else if p := t.poolOf(l.Address); p != nil {
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
	r.State, r.Expires = state, at
	if p := t.poolOf(r.Address); p != nil {
		p.free.add(r)
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
