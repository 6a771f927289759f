package leases

import (
	"testing"
	"time"
)

// state makes a lease of address 10.
func state(client int, s State, start, expires time.Duration, version uint64) Lease {
	l := lease(10, client)
	l.State, l.Start, l.Expires, l.Version = s, epoch.Add(start), epoch.Add(expires), version
	return l
}

func TestMerge(t *testing.T) {
	const m = time.Minute
	now := epoch.Add(30 * m)
	for name, c := range map[string]struct {
		ours, theirs Lease
		verdict      Verdict
		holds        int // the client that has the address after; 0: nobody
		until        time.Duration
	}{
		"nothing is known":                  {Lease{}, state(1, Bound, 0, 60*m, 1), Taken, 1, 60 * m},
		"a renewal":                         {state(1, Bound, 0, 60*m, 1), state(1, Bound, 30*m, 90*m, 2), Joined, 1, 90 * m},
		"an old word":                       {state(1, Bound, 30*m, 90*m, 2), state(1, Bound, 0, 60*m, 1), Kept, 1, 90 * m},
		"both renewed, out of contact":      {state(1, Bound, 10*m, 70*m, 2), state(1, Bound, 20*m, 80*m, 2), Joined, 1, 80 * m},
		"renewed by it, run out here":       {state(1, Bound, 0, 20*m, 1), state(1, Bound, 19*m, 79*m, 2), Joined, 1, 79 * m},
		"a release":                         {state(1, Bound, 0, 60*m, 1), state(1, Released, 0, 30*m, 2), Taken, 0, 30 * m},
		"a release just after the lease":    {state(1, Bound, 30*m-time.Second, 90*m, 1), state(1, Released, 0, 30*m, 2), Taken, 0, 30 * m},
		"a lease from before the release":   {state(1, Released, 0, 30*m, 2), state(1, Bound, 0, 60*m, 1), Kept, 0, 30 * m},
		"released there, taken again here":  {state(1, Bound, 20*m, 80*m, 2), state(1, Released, 0, 5*m, 3), Kept, 1, 80 * m},
		"the same, seen from there":         {state(1, Released, 0, 5*m, 3), state(1, Bound, 20*m, 80*m, 2), Taken, 1, 80 * m},
		"it gave the address anew":          {state(1, Expired, 0, 20*m, 1), state(2, Bound, 30*m, 90*m, 2), Taken, 2, 90 * m},
		"two clients":                       {state(1, Bound, 0, 60*m, 4), state(2, Bound, 20*m, 80*m, 1), Conflict, 2, 80 * m},
		"two clients, seen from there":      {state(2, Bound, 20*m, 80*m, 1), state(1, Bound, 0, 60*m, 4), Conflict, 2, 80 * m},
		"a decline":                         {state(1, Bound, 29*m, 89*m, 1), state(1, Declined, 30*m, 90*m, 2), Taken, 1, 90 * m},
		"a bare offer gives way to a lease": {state(1, Offered, 30*m, 31*m, 0), state(2, Bound, 20*m, 80*m, 1), Taken, 2, 80 * m},
	} {
		t.Run(name, func(t *testing.T) {
			tab := table()
			if c.ours.Address.IsValid() {
				tab.put(c.ours)
			}
			l, verdict := tab.Merge(now, c.theirs)
			at, _ := tab.At(now, addr(10))
			if verdict != c.verdict || at != l {
				t.Errorf("%s; said %+v, is %+v", verdict, l, at)
			}
			if at.Live() != (c.holds != 0) || at.Live() && at.Client != who(c.holds) || !at.Expires.Equal(epoch.Add(c.until)) {
				t.Errorf("now %+v", at)
			}
		})
	}
}

// TestWhatAnotherMayHaveProlonged: an address goes to another client only when everything that the other node did up to the lease's end
// is known here.
func TestWhatAnotherMayHaveProlonged(t *testing.T) {
	tab := table()
	tab.Settle(epoch.Add(-time.Second), false)
	for i := range 3 {
		tab.Bind(epoch, lease(10+i, i), time.Hour)
	}
	now := epoch.Add(2 * time.Hour)
	if a, ok := tab.Pick(now, lan, nobody); ok || tab.Available(now, addr(10), who(7)) || !tab.Available(now, addr(10), who(0)) {
		t.Errorf("%v was given away, or its own client does not get it", a)
	}
	tab.Settle(epoch.Add(time.Hour-1), false)
	if a, ok := tab.Pick(now, lan, nobody); ok {
		t.Errorf("%v was given away", a)
	}
	// An offer that nobody takes changes nothing.
	tab.Offer(now, lease(10, 0), time.Second)
	now = now.Add(time.Minute)
	tab.Settle(epoch.Add(time.Hour), false)
	if a, ok := tab.Pick(now, lan, nobody); !ok || a != addr(10) {
		t.Errorf("picked %v %v", a, ok)
	}
}
