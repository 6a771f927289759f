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
	fresh netip.Addr // the next address that was never given; invalid: none is left
	free  queue      // those of ours that were given and are free again, the longest free first
	aside []netip.Addr
}

// Waits reports whether there are free addresses of ours that are not yet for everybody.
func (t *Table) Waits(in netip.Prefix) bool {
	return slices.ContainsFunc(t.pools, func(p *pool) bool { return in.Contains(p.First) && len(p.free.list) > 0 })
}

// Spare estimates how many addresses of ours are free in the pools within a network, which are shared among so many owners, and returns how
// many addresses those pools have.
func (t *Table) Spare(in netip.Prefix, owners int) (free, size int) {
	for _, p := range t.pools {
		if !in.Contains(p.First) {
			continue
		}
		all, fresh := span(p.First, p.Last), 0
		if p.fresh.IsValid() {
			fresh = span(p.fresh, p.Last)
		}
		size += all
		free += len(p.free.list) + len(p.aside) + fresh/owners
	}
	return free, size
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
	// Last, what had to be avoided once and perhaps need not any more.
	for i, a := range p.aside {
		if r := t.at(a); (r == nil || !r.live() && t.settled(r.ended)) && !avoid(a) {
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
		case !p.owns(a) || t.at(a) != nil:
		case avoid(a):
			p.aside = append(p.aside, a)
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
		p.aside = append(p.aside, a)
	}
	return netip.Addr{}, false
}
