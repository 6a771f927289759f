package leases

import (
	"hash/maphash"
	"math"
	"net/netip"
	"slices"
	"time"

	"everboot/site"
)

// record is a lease as the table keeps it: a hundred thousand of them must be small, and give the garbage collector little to look at. Times
// are nanoseconds since the table's epoch, on the monotonic clock.
type record struct {
	client  Client // empty: the one that ClientOf makes of the MAC
	name    string
	start   int64
	expires int64
	ended   int64 // of the last lease that a client was told of; never: there was none
	offered int64 // until when our offer of it to the client stands
	version uint64
	in      *queue
	next    *record // of the clients with the same hash
	index   int32   // in the queue
	addr    [4]byte
	mac     site.MAC
	state   byte // index of allStates
	flags   byte
}

const (
	flagReserved = 1 << iota
	flagNobody   // the lease is no client's
)

// never is the time that has not been.
const never = math.MinInt64

// allStates are the states by their number in a record; the first three are live.
var allStates = []State{Offered, Bound, Declined, Released, Expired}

const (
	offered = iota
	bound
	declined
	released
	expired
)

func stateOf(s State) byte { return byte(slices.Index(allStates, s)) }

func (r *record) live() bool { return r.state <= declined }

func (r *record) address() netip.Addr { return netip.AddrFrom4(r.addr) }

// is reports whether the record is of a client.
func (r *record) is(c Client) bool {
	switch {
	case r.flags&flagNobody != 0:
		return c == ""
	case r.client != "":
		return r.client == c
	}
	return len(c) == 1+len(r.mac) && c[0] == 1 && string(c[1:]) == string(r.mac[:])
}

// clock notes the time. Each method with a time does so first.
func (t *Table) clock(now time.Time) {
	if t.epoch.IsZero() {
		t.epoch = now
	}
	t.now = now
}

// ns returns a time as records have it.
func (t *Table) ns(at time.Time) int64 {
	if at.IsZero() {
		return never
	}
	if t.epoch.IsZero() {
		t.clock(at)
	}
	return int64(at.Sub(t.epoch))
}

// time returns the time of a record by the clock of now: if the wall clock was set meanwhile, by the one that is right.
func (t *Table) time(ns int64) time.Time {
	if ns == never {
		return time.Time{}
	}
	return t.now.Add(time.Duration(ns) - t.now.Sub(t.epoch))
}

// lease returns a record as others see it.
func (t *Table) lease(r *record) Lease {
	l := Lease{
		Address: r.address(), Client: r.client, MAC: r.mac, Name: r.name, State: allStates[r.state],
		Start: t.time(r.start), Expires: t.time(r.expires), Reserved: r.flags&flagReserved != 0, Version: r.version,
	}
	if r.client == "" && r.flags&flagNobody == 0 {
		l.Client = ClientOf(nil, r.mac)
	}
	return l
}

// set fills a record.
func (t *Table) set(r *record, l Lease) {
	r.addr, r.mac, r.name, r.state, r.version = l.Address.As4(), l.MAC, l.Name, stateOf(l.State), l.Version
	r.start, r.expires = t.ns(l.Start), t.ns(l.Expires)
	r.client, r.flags = l.Client, 0
	if l.Reserved {
		r.flags |= flagReserved
	}
	if l.Client == "" {
		r.flags |= flagNobody
	} else if len(l.Client) == 1+len(l.MAC) && l.Client[0] == 1 && string(l.Client[1:]) == string(l.MAC[:]) {
		r.client = ""
	}
}

// clients finds the records of a client, by the hash of its name.
type clients struct {
	seed maphash.Seed
	list map[uint64]*record
}

func newClients() clients { return clients{maphash.MakeSeed(), make(map[uint64]*record)} }

func (c clients) key(name Client) uint64 { return maphash.String(c.seed, string(name)) }

// of calls f with each record of a client. f may unlink it.
func (c clients) of(name Client, f func(*record)) {
	var next *record
	for r := c.list[c.key(name)]; r != nil; r = next {
		if next = r.next; r.is(name) {
			f(r)
		}
	}
}

func (c clients) link(name Client, r *record) {
	k := c.key(name)
	r.next, c.list[k] = c.list[k], r
}

func (c clients) unlink(name Client, r *record) {
	k := c.key(name)
	head := c.list[k]
	if head == r {
		if r.next == nil {
			delete(c.list, k)
		} else {
			c.list[k] = r.next
		}
		r.next = nil
		return
	}
	for p := head; p != nil; p = p.next {
		if p.next == r {
			p.next, r.next = r.next, nil
			return
		}
	}
}
