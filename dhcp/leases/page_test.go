package leases

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

var block = netip.MustParsePrefix("198.18.0.0/22")

// TestThePageOfTheLongestRecordsFits: Consul takes 512 KiB a value.
func TestThePageOfTheLongestRecordsFits(t *testing.T) {
	var list []Lease
	for a := block.Addr(); block.Contains(a); a = a.Next() {
		list = append(list, Lease{
			Address: a, Client: Client(strings.Repeat("\xff", 255)), Name: strings.Repeat("n", 63), State: Bound, Start: epoch, Expires: epoch.Add(time.Hour), Version: 1 << 63,
		})
	}
	b := EncodePage(epoch, list)
	if len(list) != 1024 || len(b) > 400<<10 {
		t.Fatalf("%d leases, %d bytes", len(list), len(b))
	}
	got, err := DecodePage(epoch, block, b)
	for i := range got {
		got[i].Start, got[i].Expires = got[i].Start.UTC(), got[i].Expires.UTC()
	}
	if err != nil || !reflect.DeepEqual(got, list) {
		t.Errorf("%d leases came back, %v", len(got), err)
	}
}

func TestAPageIsRefused(t *testing.T) {
	good := EncodePage(epoch, []Lease{state(1, Bound, 0, time.Hour, 3)})
	for what, b := range map[string][]byte{
		"nothing": nil, "another format": []byte("everboot leases, page 2\n12345678"), "a record cut short": good[:len(good)-1], "a byte too many": append(append([]byte{}, good...), 0),
		"a length too long": append(append([]byte{}, good...), 0xff, 0xff), "too large": append([]byte(pageHeader), make([]byte, maxPage)...),
	} {
		if list, err := DecodePage(epoch, block, b); err == nil {
			t.Errorf("%s: read as %v", what, list)
		}
	}
	if _, err := DecodePage(epoch, netip.MustParsePrefix("198.18.4.0/22"), good); err == nil {
		t.Error("an address of another page was taken")
	}
	if b := EncodePage(epoch, []Lease{{Address: addr(1), State: Offered}}); b != nil {
		t.Errorf("an offer was written: %q", b)
	}
}

// TestAPageOfAClockThatIsAhead: an hour ahead makes no lease longer by an hour.
func TestAPageOfAClockThatIsAhead(t *testing.T) {
	ahead := epoch.Add(time.Hour)
	b := EncodePage(ahead, []Lease{{Address: addr(1), State: Bound, Start: ahead, Expires: ahead.Add(time.Minute)}})
	list, err := DecodePage(epoch, block, b)
	if err != nil || !list[0].Expires.Equal(epoch.Add(time.Minute)) {
		t.Errorf("%v, %v", list, err)
	}
}

// TestRecall: what a page says of an address against what is known of it.
func TestRecall(t *testing.T) {
	now := epoch.Add(2 * time.Hour)
	state := func(c int, s State, start, expires time.Duration, version uint64) Lease {
		return state(c, s, 2*time.Hour+start, 2*time.Hour+expires, version)
	}
	tests := []struct {
		name       string
		ours, page Lease // ours without an address: nothing is known
		want       State
		client     int
		left       time.Duration // negative: not looked at
		verdict    Verdict
	}{
		{"nothing is known", Lease{}, state(1, Bound, -time.Minute, time.Hour, 3), Bound, 1, time.Hour + time.Minute, Taken},
		{"it ran out since", Lease{}, state(1, Bound, -time.Hour, -time.Minute, 3), Expired, 1, -1, Taken},
		{"it was declined", Lease{}, state(1, Declined, 0, time.Hour, 3), Declined, 1, time.Hour, Taken},
		{"longer than it ever was", Lease{}, state(1, Bound, time.Hour, 2*time.Hour, 3), Bound, 1, time.Hour, Taken},
		{"ours was made later", state(1, Released, -time.Hour, -time.Second, 4), state(1, Bound, time.Minute, time.Hour, 3), Released, 1, -1, Kept},
		{"ours was made earlier", state(1, Released, 0, 0, 3), state(2, Bound, -time.Hour, time.Hour, 4), Bound, 2, time.Hour + time.Minute, Taken},
		{"another has it since", state(2, Bound, 0, time.Minute, 4), state(1, Bound, 0, time.Hour, 3), Bound, 2, time.Minute, Kept},
		{"the same client, longer", state(1, Bound, 0, time.Minute, 4), state(1, Bound, 0, time.Hour, 4), Bound, 1, time.Hour, Joined},
		{"the same client, shorter", state(1, Bound, 0, time.Hour, 4), state(1, Bound, -time.Hour, time.Minute, 4), Bound, 1, time.Hour, Kept},
		{"in quarantine since", state(1, Declined, 0, time.Hour, 4), state(1, Bound, 0, 2*time.Hour, 3), Declined, 1, time.Hour, Kept},
		{"a new disk gave it to another: that lease has run out", state(2, Bound, -time.Minute, time.Hour, 1), state(1, Expired, -2*time.Hour, -time.Hour, 9), Bound, 2, time.Hour, Kept},
		{"a new disk gave it to another: both live", state(2, Bound, -time.Minute, time.Hour, 1), state(1, Bound, -time.Hour, time.Minute, 9), Bound, 2, time.Hour, Conflict},
		{"released there, given again here", state(2, Bound, -time.Minute, time.Hour, 6), state(1, Released, -time.Hour, -time.Minute, 9), Bound, 2, time.Hour, Kept},
		{"a reservation, renewed here", state(1, Bound, -time.Minute, time.Hour, 1), state(1, Expired, -2*time.Hour, -time.Hour, 9), Bound, 1, time.Hour, Kept},
		{"a writer whose clock is behind", Lease{}, state(1, Bound, -time.Hour, time.Second, 9), Bound, 1, time.Minute + time.Second, Taken},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			table := NewTable([]Pool{{First: addr(1), Last: addr(19)}})
			if test.ours.Address.IsValid() {
				table.Load(now, []Lease{test.ours})
			}
			_, verdict := table.Recall(now, test.page)
			got, _ := table.At(now, addr(10))
			if verdict != test.verdict || got.State != test.want || got.Client != lease(10, test.client).Client || test.left >= 0 && got.Expires.Sub(now) != test.left {
				t.Errorf("%s: %+v, for %s", verdict, got, got.Expires.Sub(now))
			}
			if within := table.Within(now, block); len(within) != 1 || within[0] != got {
				t.Errorf("the block has %v", within)
			}
		})
	}
}

// TestPagesThatAreReadByEachOtherEnd: two nodes that know of each other by their pages alone do not prolong a lease for ever.
func TestPagesThatAreReadByEachOtherEnd(t *testing.T) {
	pools := []Pool{{First: addr(1), Last: addr(19)}}
	a, b := NewTable(pools), NewTable(pools)
	a.Load(epoch, []Lease{state(1, Bound, 0, time.Hour, 1)})
	now := epoch
	for ; now.Before(epoch.Add(3 * time.Hour)); now = now.Add(5 * time.Second) {
		for _, pair := range [][2]*Table{{a, b}, {b, a}} {
			for _, l := range pair[0].Within(now, block) {
				pair[1].Recall(now, l)
			}
		}
	}
	for _, table := range []*Table{a, b} {
		if l, ok := table.At(now, addr(10)); !ok || l.State != Expired || l.Expires.After(epoch.Add(time.Hour+slow)) {
			t.Errorf("%+v", l)
		}
	}
}

// FuzzDecodePage: whoever may write to the registry crashes nobody.
func FuzzDecodePage(f *testing.F) {
	f.Add(EncodePage(epoch, []Lease{state(1, Bound, 0, time.Hour, 3), state(2, Released, 0, 0, 3)}))
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := DecodePage(epoch, block, b)
		if err != nil {
			return
		}
		table := NewTable([]Pool{{First: addr(1), Last: addr(19)}})
		for _, l := range list {
			table.Recall(epoch, l)
		}
	})
}
