package leases

import "time"

// Verdict is what became of another node's record of an address.
type Verdict string

// The verdicts of Merge.
const (
	Taken    Verdict = "taken"    // ours was older, or there was none
	Kept     Verdict = "kept"     // ours is the newer one
	Joined   Verdict = "joined"   // the same client: it has the address for the longer of the two times
	Conflict Verdict = "conflict" // two clients were given one address; the newer lease counts
)

// doubt is how far two nodes' ideas of when something happened may differ: what a message may be under way, and then some.
const doubt = 10 * time.Second

// Merge takes another node's record of an address, with its times on our clock, into the table. It returns what is known of the address now.
// In doubt an address is taken: the worst is then that it lies idle until the lease ends.
func (t *Table) Merge(now time.Time, l Lease) (Lease, Verdict) {
	t.expire(now)
	if !l.Address.Is4() {
		return l, Kept
	}
	if l.Live() && !now.Before(l.Expires) {
		l.State = Expired
	}
	r := t.at(l.Address)
	switch {
	case r == nil && !l.Live() && t.poolOf(l.Address) == nil:
		return l, Kept
	case r == nil, r.state == offered && l.Live():
		t.put(l)
		return l, Taken
	case r.state == offered:
		r.version = max(r.version, l.Version)
		r.ended = max(r.ended, t.ns(l.Expires))
		return t.lease(r), Kept
	case r.state != declined && r.state != released && l.State == Bound && r.is(l.Client):
		return t.join(r, l) // also when ours ran out: the other node has prolonged it meanwhile
	}
	verdict, clash := Kept, r.state == bound && l.State == Bound
	if newer(l, t.lease(r)) {
		t.put(l)
		verdict = Taken
	}
	if clash {
		verdict = Conflict
	}
	return t.lease(r), verdict
}

// join gives a client the longer of two leases of one address.
func (t *Table) join(r *record, l Lease) (Lease, Verdict) {
	verdict, ours := Kept, t.lease(r)
	if l.Expires.After(ours.Expires) {
		verdict = Joined
	} else {
		l.Start, l.Expires = ours.Start, ours.Expires
	}
	l.Version = max(l.Version, ours.Version)
	t.put(l)
	return l, verdict
}

// newer reports whether record a of an address counts rather than b: what happened clearly later; else what was made in knowledge of the
// other; else the one that holds the address.
func newer(a, b Lease) bool {
	at, bt := a.changed(), b.changed()
	if d := at.Sub(bt); d > doubt || d < -doubt {
		return d > 0
	}
	if a.Version != b.Version {
		return a.Version > b.Version
	}
	if a.Live() != b.Live() {
		return a.Live()
	}
	return a.Client > b.Client // any rule will do, if it is the same on both nodes
}

// changed is when somebody made the record what it is. That it ran out is nobody's doing.
func (l Lease) changed() time.Time {
	if l.State == Released {
		return l.Expires
	}
	return l.Start
}
