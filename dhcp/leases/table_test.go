package leases

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"everboot/site"
)

var (
	epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	lan   = netip.MustParsePrefix("198.18.0.0/24")
)

func addr(i int) netip.Addr { return netip.AddrFrom4([4]byte{198, 18, 0, byte(i)}) }

func mac(i int) site.MAC { return site.MAC{0x52, 0x54, 0, 0, byte(i >> 8), byte(i)} }

func who(i int) Client { return ClientOf(nil, mac(i)) }

func lease(a, client int) Lease {
	return Lease{Address: addr(a), Client: who(client), MAC: mac(client)}
}

func nobody(netip.Addr) bool { return false }

// table has a pool of three addresses, 10 to 12.
func table() *Table { return NewTable([]Pool{{First: addr(10), Last: addr(12)}}) }

func TestNeverGivenFirstThenTheLongestFree(t *testing.T) {
	tab, now := table(), epoch
	for i := range 3 {
		a, ok := tab.Pick(now, lan, nobody)
		if !ok || a != addr(10+i) {
			t.Fatalf("pick %d: %v %v", i, a, ok)
		}
		tab.Bind(now, lease(10+i, i), time.Hour)
	}
	if a, ok := tab.Pick(now, lan, nobody); ok {
		t.Fatalf("an exhausted pool gives %v", a)
	}
	for i, n := range []int{12, 10, 11} {
		if _, ok := tab.Release(now.Add(time.Duration(i)*time.Second), addr(n), who(n-10)); !ok {
			t.Fatalf("release of %d", n)
		}
	}
	now = now.Add(time.Minute)
	for _, want := range []int{12, 10, 11} {
		a, _ := tab.Pick(now, lan, nobody)
		if a != addr(want) {
			t.Fatalf("picked %v, want %v", a, addr(want))
		}
		tab.Offer(now, lease(want, 20+want), time.Minute)
	}
}

func TestALeaseEndsAtItsTimeAndNotBefore(t *testing.T) {
	tab := table()
	tab.Bind(epoch, lease(10, 1), time.Hour)
	just := epoch.Add(time.Hour - time.Nanosecond)
	if tab.Available(just, addr(10), who(2)) {
		t.Error("free before its time")
	}
	// The clock goes back: nothing is freed early.
	if tab.Available(epoch.Add(-24*time.Hour), addr(10), who(2)) {
		t.Error("free because the clock went back")
	}
	if !tab.Available(epoch.Add(time.Hour), addr(10), who(2)) {
		t.Error("not free at its time")
	}
	// The client still finds what it had, until somebody else gets it.
	if l, ok := tab.Of(epoch.Add(2*time.Hour), who(1), lan); !ok || l.Address != addr(10) || l.State != Expired {
		t.Errorf("after its end: %+v %v", l, ok)
	}
}

func TestOfferEndsAndCanBeForgotten(t *testing.T) {
	tab := table()
	tab.Offer(epoch, lease(10, 1), 30*time.Second)
	if tab.Available(epoch.Add(29*time.Second), addr(10), who(2)) || !tab.Available(epoch.Add(30*time.Second), addr(10), who(2)) {
		t.Error("an offer must hold for 30 s")
	}
	tab.Offer(epoch.Add(time.Minute), lease(10, 1), 30*time.Second)
	tab.Forget(epoch.Add(time.Minute), who(1), lan)
	if !tab.Available(epoch.Add(time.Minute), addr(10), who(2)) {
		t.Error("forgotten, and still held")
	}
	tab.Bind(epoch.Add(time.Minute), lease(11, 1), time.Hour)
	tab.Forget(epoch.Add(time.Minute), who(1), lan)
	tab.Offer(epoch.Add(time.Minute), lease(11, 1), time.Second)
	if tab.Available(epoch.Add(30*time.Minute), addr(11), who(2)) {
		t.Error("a bound lease was forgotten, or cut short by an offer")
	}
}

func TestDeclineAndStrangers(t *testing.T) {
	tab := table()
	tab.Bind(epoch, lease(10, 1), time.Hour)
	if _, ok := tab.Release(epoch, addr(10), who(2)); ok {
		t.Error("a stranger released it")
	}
	if _, ok := tab.Decline(epoch, addr(10), who(2), time.Hour); ok {
		t.Error("a stranger declined it")
	}
	if _, ok := tab.Decline(epoch, addr(10), who(1), 2*time.Hour); !ok {
		t.Fatal("not declined")
	}
	if _, ok := tab.Of(epoch.Add(time.Hour), who(1), lan); ok {
		t.Error("a declined address is nobody's")
	}
	if tab.Available(epoch.Add(time.Hour), addr(10), who(1)) || !tab.Available(epoch.Add(2*time.Hour), addr(10), who(1)) {
		t.Error("quarantine is for everybody, for its time")
	}
}

func TestAvoidedAddressesComeBack(t *testing.T) {
	tab := table()
	avoid := func(a netip.Addr) bool { return a == addr(10) }
	for i := range 2 {
		a, ok := tab.Pick(epoch, lan, avoid)
		if !ok || a == addr(10) {
			t.Fatalf("pick %d: %v %v", i, a, ok)
		}
		tab.Bind(epoch, Lease{Address: a, Client: who(i)}, time.Hour)
	}
	if a, ok := tab.Pick(epoch, lan, avoid); ok {
		t.Fatalf("gave %v, which is to be avoided", a)
	}
	if a, ok := tab.Pick(epoch, lan, nobody); !ok || a != addr(10) {
		t.Fatalf("what need not be avoided any more: %v %v", a, ok)
	}
}

// TestWhatIsAvoidedIsRememberedOnce: a reservation inside a pool is set aside each time its lease ends.
func TestWhatIsAvoidedIsRememberedOnce(t *testing.T) {
	tab, now := NewTable([]Pool{{First: addr(10), Last: addr(11)}}), epoch
	avoided := map[netip.Addr]bool{addr(10): true}
	for range 20 {
		tab.Bind(now, lease(10, 1), time.Minute)
		now = now.Add(2 * time.Minute)
		a, ok := tab.Pick(now, lan, func(a netip.Addr) bool { return avoided[a] })
		if !ok {
			t.Fatal("no address")
		}
		tab.Bind(now, Lease{Address: a, Client: who(2)}, time.Minute)
	}
	if n := len(tab.pools[0].aside); n != 1 {
		t.Errorf("%d addresses are set aside", n)
	}
}

// TestSpareIsWhatCanBeGiven counts addresses in each way in which one can be free, or not be.
func TestSpareIsWhatCanBeGiven(t *testing.T) {
	tab := NewTable([]Pool{{First: addr(10), Last: addr(19)}})
	avoided := map[netip.Addr]bool{addr(10): true, addr(19): true, addr(200): true, netip.MustParseAddr("2001:db8::1"): true}
	spare := func(now time.Time, want int) {
		t.Helper()
		if free, size := tab.Spare(now, lan, 1, avoided); free != want || size != 10 {
			t.Errorf("%d of %d addresses can be given, want %d of 10", free, size, want)
		}
	}
	spare(epoch, 8)
	tab.Bind(epoch, lease(11, 1), time.Minute) // before its turn, as those that peers tell of
	tab.Bind(epoch, lease(18, 2), time.Hour)
	spare(epoch, 6)
	if a, ok := tab.Pick(epoch, lan, func(a netip.Addr) bool { return avoided[a] }); !ok || a != addr(12) {
		t.Fatalf("picked %v", a)
	}
	tab.Bind(epoch, lease(12, 3), time.Hour)
	spare(epoch, 5)
	now := epoch.Add(time.Minute)
	spare(now, 6) // the first has ended
	tab.Settle(epoch.Add(30*time.Second), false)
	spare(now, 5) // and somebody else may have prolonged it
	tab.Settle(now, false)
	spare(now, 6)
	delete(avoided, addr(10)) // which was set aside
	spare(now, 7)
	if free, _ := tab.Spare(now, lan, 2, avoided); free != 4 { // 10, 11, and half of those from 13 to 17
		t.Errorf("%d of one of two owners", free)
	}
	tab.Settle(now, true)
	spare(now, 0) // somebody else may have given any of them
}

func TestLoad(t *testing.T) {
	bound := func(a int, start, end time.Duration) Lease {
		l := lease(a, a)
		l.State, l.Start, l.Expires = Bound, epoch.Add(start), epoch.Add(end)
		return l
	}
	tab := table()
	stale := tab.Load(epoch, []Lease{
		bound(10, -30*time.Minute, 30*time.Minute),
		bound(11, -2*time.Hour, -time.Hour),   // over
		bound(12, 50*time.Hour, 51*time.Hour), // the clock went back by two days since
		bound(99, -2*time.Hour, -time.Hour),   // over, and in no pool
	})
	if len(stale) != 1 || stale[0] != addr(99) {
		t.Errorf("stale: %v", stale)
	}
	for _, c := range []struct {
		after time.Duration
		live  string
	}{{0, "10 12 "}, {30*time.Minute - 1, "10 12 "}, {30 * time.Minute, "12 "}, {time.Hour - 1, "12 "}, {time.Hour, ""}} {
		got := ""
		for _, l := range tab.All(epoch.Add(c.after)) {
			if l.Live() {
				got += fmt.Sprint(l.Address.As4()[3], " ")
			}
		}
		if got != c.live {
			t.Errorf("after %s live: %q, want %q", c.after, got, c.live)
		}
	}
}

func TestAHugeRangeDoesNotFillTheMemory(t *testing.T) {
	first := netip.MustParseAddr("10.0.0.1")
	tab := NewTable([]Pool{{First: first, Last: netip.MustParseAddr("10.255.255.254")}})
	in := netip.MustParsePrefix("10.0.0.0/8")
	now := epoch
	for i := range maxRecords + 1000 {
		a, ok := tab.Pick(now, in, nobody)
		if !ok {
			t.Fatal("exhausted")
		}
		tab.Offer(now, Lease{Address: a, Client: Client(fmt.Sprint(i))}, time.Second)
		now = now.Add(10 * time.Millisecond)
	}
	if len(tab.records) > maxRecords {
		t.Errorf("%d records", len(tab.records))
	}
}

// TestRandomUse compares the table with a plain list of who may have what.
func TestRandomUse(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	tab := NewTable([]Pool{{First: addr(10), Last: addr(30)}})
	type holding struct {
		client Client
		until  time.Time
	}
	held := make(map[netip.Addr]holding)
	now := epoch
	for step := range 20000 {
		now = now.Add(time.Duration(r.IntN(2000)) * time.Millisecond)
		c := r.IntN(40)
		switch r.IntN(4) {
		case 0, 1:
			a, ok := tab.Pick(now, lan, nobody)
			if !ok {
				break
			}
			if h, taken := held[a]; taken && now.Before(h.until) {
				t.Fatalf("step %d: %v given twice", step, a)
			}
			tab.Bind(now, Lease{Address: a, Client: who(c)}, 20*time.Second)
			held[a] = holding{who(c), now.Add(20 * time.Second)}
		case 2:
			if l, ok := tab.Of(now, who(c), lan); ok && l.Live() {
				if held[l.Address].client != who(c) {
					t.Fatalf("step %d: %v is not client %d's", step, l.Address, c)
				}
				tab.Release(now, l.Address, who(c))
				delete(held, l.Address)
			}
		case 3:
			a := addr(10 + r.IntN(21))
			h, taken := held[a]
			want := !taken || !now.Before(h.until) || h.client == who(c)
			if got := tab.Available(now, a, who(c)); got != want {
				t.Fatalf("step %d: %v available to %d: %v, want %v", step, a, c, got, want)
			}
		}
		if n := len(tab.live.list) + len(tab.pools[0].free.list); n > len(tab.records) {
			t.Fatalf("step %d: %d queued of %d", step, n, len(tab.records))
		}
	}
}

// TestGivenBackInNoPool: the record stays for a while, over a restart, too, so that an older one of another node does not count; it is nothing that its
// client had, and in the end it goes.
func TestGivenBackInNoPool(t *testing.T) {
	tab := table()
	tab.Bind(epoch, lease(11, 1), time.Hour)
	tab.Release(epoch.Add(time.Minute), addr(11), who(1))
	old := tab.Bind(epoch.Add(time.Hour), lease(51, 1), 24*time.Hour)
	back, ok := tab.Release(epoch.Add(2*time.Hour), addr(51), who(1))
	if l, _ := tab.Of(epoch.Add(2*time.Hour), who(1), lan); !ok || l.Address != addr(11) {
		t.Errorf("its client had %+v", l)
	}
	tab.Offer(epoch.Add(2*time.Hour), lease(51, 2), time.Minute) // which nobody takes
	now := epoch.Add(3 * time.Hour)
	again := table()
	if stale := again.Load(now, []Lease{back}); len(stale) > 0 {
		t.Errorf("%v is forgotten", stale)
	}
	for name, tab := range map[string]*Table{"the same run": tab, "after a restart": again} {
		for what, take := range map[string]func(time.Time, Lease) (Lease, Verdict){"told": tab.Merge, "written down": tab.Recall} {
			if l, verdict := take(now, old); verdict != Kept || l.Live() {
				t.Errorf("%s, an older record is %s: %s, %+v", name, what, verdict, l)
			}
		}
		now := now.Add(releasedFor)
		if l, known := tab.At(now, addr(51)); known || len(tab.records)+len(tab.back.list) > 1 {
			t.Errorf("%s, it stays: %+v", name, l)
		}
	}
	if stale := table().Load(now.Add(releasedFor), []Lease{back}); len(stale) != 1 {
		t.Error("it stays on the disk")
	}
}
