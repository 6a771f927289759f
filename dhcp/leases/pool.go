package leases

import (
	"encoding/binary"
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

type pool struct {
	Pool
	fresh netip.Addr          // the next address that was never given; invalid: none is left
	free  queue               // those of ours that were given and are free again, the longest free first
	aside map[netip.Addr]bool // those that were to be avoided when it was their turn
}

// Waits reports whether there are free addresses of ours that are not yet for everybody.
func (t *Table) Waits(in netip.Prefix) bool {
	return t.held || slices.ContainsFunc(t.pools, func(p *pool) bool { return in.Contains(p.First) && len(p.free.list) > 0 })
}

// Spare counts the addresses of ours in the pools within a network that can be given to somebody new now, and returns how many addresses those pools
// have. Those that are avoided are none; of those that were never given, one of so many owners is taken to have an equal part. It looks at every record.
func (t *Table) Spare(now time.Time, in netip.Prefix, owners int, avoided map[netip.Addr]bool) (free, size int) {
	t.expire(now)
	for _, p := range t.pools {
		if !in.Contains(p.First) {
			continue
		}
		size += span(p.First, p.Last)
		for _, r := range p.free.list {
			if t.settled(r.ended) && !avoided[r.address()] {
				free++
			}
		}
		for a := range p.aside {
			if r := t.at(a); (r == nil && !t.held || r != nil && r.in == nil && t.settled(r.ended)) && !avoided[a] {
				free++
			}
		}
		free += t.never(p, avoided) / owners
	}
	return free, size
}

// never counts the addresses of a pool that nobody has had for certain, whose ever they are, without those that are avoided.
func (t *Table) never(p *pool, avoided map[netip.Addr]bool) int {
	if !p.fresh.IsValid() || t.held {
		return 0
	}
	rest := Pool{First: p.fresh, Last: p.Last}
	n := span(rest.First, rest.Last)
	for _, r := range t.records {
		if rest.contains(r.address()) {
			n--
		}
	}
	for a := range avoided {
		if a.Is4() && rest.contains(a) && t.at(a) == nil {
			n--
		}
	}
	return n
}

// span counts the addresses from the first to the last, of IPv4.
func span(first, last netip.Addr) int {
	a, b := first.As4(), last.As4()
	return int(binary.BigEndian.Uint32(b[:])) - int(binary.BigEndian.Uint32(a[:])) + 1
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
	return t.recall(p, avoid)
}

// recall takes, last, what had to be avoided once and need not any more.
func (t *Table) recall(p *pool, avoid func(netip.Addr) bool) (first netip.Addr, found bool) {
	for a := range p.aside {
		if r := t.at(a); (r == nil && !t.held || r != nil && !r.live() && t.settled(r.ended)) && !avoid(a) && (!found || a.Less(first)) {
			first, found = a, true
		}
	}
	delete(p.aside, first)
	return first, found
}

func (t *Table) freshOf(p *pool, avoid func(netip.Addr) bool) (netip.Addr, bool) {
	for p.fresh.IsValid() && !t.held {
		a := p.fresh
		p.fresh = a.Next()
		if a == p.Last {
			p.fresh = netip.Addr{}
		}
		switch {
		case !p.owns(a) || t.at(a) != nil:
		case avoid(a):
			p.aside[a] = true
		default:
			return a, true
		}
	}
	return netip.Addr{}, false
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
		a := r.address()
		if !avoid(a) {
			return a, true
		}
		p.aside[a] = true
	}
	return netip.Addr{}, false
}
