package vrrp

import (
	"net/netip"
	"reflect"
	"testing"
	"time"
)

// The tests of this file stand for the rules of RFC 9568, section by section. The longer stories are in testdata.

const second = time.Second

var (
	epoch = time.Unix(0, 0)
	usual = Config{VRID: 51, Priority: 100, Interval: second, Primary: a2, Addresses: v4}
)

func from(addr netip.Addr, priority uint8, interval time.Duration) Received {
	return Received{From: addr, Advertisement: Advertisement{VRID: 51, Priority: priority, Interval: interval, Addresses: v4}}
}

// in returns a machine of that configuration that has come into the state at epoch.
func in(t *testing.T, s State, c Config) *Machine {
	t.Helper()
	m := New(c)
	switch s {
	case Backup:
		m.Step(epoch, Startup{})
	case Active:
		m.Step(epoch.Add(-DownInterval(c.Priority, c.Interval)), Startup{})
		m.Step(epoch, Tick{})
	}
	if m.State() != s {
		t.Fatalf("the machine is in %s, want %s", m.State(), s)
	}
	return m
}

func expect(t *testing.T, got []Action, want ...Action) {
	t.Helper()
	if len(got) != len(want) || len(want) > 0 && !reflect.DeepEqual(got, want) {
		t.Errorf("got %#v, want %#v", got, want)
	}
}

func expectTimer(t *testing.T, m *Machine, after time.Duration) {
	t.Helper()
	if got := m.Deadline().Sub(epoch); got != after {
		t.Errorf("the timer is at %s, want %s", got, after)
	}
}

func Test_6_1_SkewTimeIsTheFractionOfTheActiveRoutersInterval(t *testing.T) {
	for _, c := range []struct {
		priority uint8
		interval time.Duration
		want     time.Duration
	}{
		{100, second, 609375 * time.Microsecond},
		{254, second, 7812500 * time.Nanosecond},
		{1, second, 996093750 * time.Nanosecond},
		{255, second, 3906250 * time.Nanosecond},
		{100, 10 * time.Millisecond, 6093750 * time.Nanosecond},
		{1, MaxInterval, 40790039062 * time.Nanosecond},
	} {
		if got := SkewTime(c.priority, c.interval); got != c.want {
			t.Errorf("priority %d, interval %s: got %s, want %s", c.priority, c.interval, got, c.want)
		}
		if got := DownInterval(c.priority, c.interval); got != c.want+3*c.interval {
			t.Errorf("priority %d, interval %s: Active_Down_Interval is %s", c.priority, c.interval, got)
		}
	}
}

func Test_6_4_1_TheOwnerOfTheAddressesBecomesActiveAtOnce(t *testing.T) {
	c := usual
	c.Priority = Owner
	m := New(c)
	expect(t, m.Step(epoch, Startup{}), Drop{}, Hold{}, Advertise{Owner}, Announce{}, Transition{Initialize, Active, OwnsAddresses})
	expectTimer(t, m, second)
}

func Test_6_4_1_AnybodyElseBecomesBackupAndWaits(t *testing.T) {
	m := New(usual)
	expect(t, m.Step(epoch, Startup{}), Drop{}, Probe{}, Transition{Initialize, Backup, Started})
	expectTimer(t, m, DownInterval(100, second))
	expect(t, m.Step(epoch, Startup{})) // a second one changes nothing
}

func Test_6_4_1_InInitializeNothingButStartupCounts(t *testing.T) {
	for _, e := range []Event{Tick{}, Shutdown{}, ClaimFailed{}, from(a3, 200, second), from(a3, 0, second)} {
		m := New(usual)
		expect(t, m.Step(epoch, e))
		if m.State() != Initialize || !m.Deadline().IsZero() {
			t.Errorf("%T led to %s", e, m.State())
		}
	}
}

func Test_6_4_2_ShutdownInBackupIsSilent(t *testing.T) {
	m := in(t, Backup, usual)
	expect(t, m.Step(epoch, Shutdown{}), Transition{Backup, Initialize, Stopped})
	if !m.Deadline().IsZero() {
		t.Error("the Active_Down_Timer was not cancelled")
	}
}

func Test_6_4_2_WhenTheActiveDownTimerFiresItAdvertisesAndAnnounces(t *testing.T) {
	m := in(t, Backup, usual)
	expect(t, m.Step(m.Deadline().Add(-1), Tick{})) // not before
	expect(t, m.Step(m.Deadline(), Tick{}), Hold{}, Advertise{100}, Announce{}, Transition{Backup, Active, Silence})
	expectTimer(t, m, DownInterval(100, second)+second)
	if m.Owner() != a2 {
		t.Errorf("the owner is %s", m.Owner())
	}
}

func Test_6_4_2_PriorityZeroSetsTheActiveDownTimerToSkewTime(t *testing.T) {
	m := in(t, Backup, usual)
	m.Step(epoch, from(a3, 200, second))
	expect(t, m.Step(epoch, from(a3, 0, second)))
	expectTimer(t, m, SkewTime(100, second))
	if m.Owner().IsValid() {
		t.Errorf("the owner is %s, which has resigned", m.Owner())
	}
}

func Test_6_4_2_AnAdvertisementThatCountsResetsTheTimerByItsInterval(t *testing.T) {
	for _, c := range []struct {
		preempt bool
		heard   uint8
		counts  bool
	}{
		{false, 1, true}, {false, 100, true}, {false, 255, true},
		{true, 99, false}, {true, 100, true}, {true, 101, true},
	} {
		conf := usual
		conf.Preempt = c.preempt
		m := in(t, Backup, conf)
		expect(t, m.Step(epoch.Add(second), from(a3, c.heard, 2*second)))
		want := DownInterval(100, second) // unchanged
		if c.counts {
			want = second + DownInterval(100, 2*second)
		}
		expectTimer(t, m, want)
	}
}

func Test_6_4_3_ShutdownInActiveSendsPriorityZero(t *testing.T) {
	m := in(t, Active, usual)
	expect(t, m.Step(epoch, Shutdown{}), Advertise{0})
	expectTimer(t, m, 2*second)
	expect(t, m.Step(epoch, from(a3, 90, second))) // the next owner
	expectTimer(t, m, lingerTime)
	expect(t, m.Step(m.Deadline(), Tick{}), Drop{}, Transition{Active, Initialize, Stopped})
	if !m.Deadline().IsZero() {
		t.Error("the Adver_Timer was not cancelled")
	}
}

func Test_6_4_3_WhenTheAdverTimerFiresItAdvertises(t *testing.T) {
	m := in(t, Active, usual)
	expect(t, m.Step(epoch.Add(second), Tick{}), Advertise{100})
	expectTimer(t, m, 2*second)
}

func Test_6_4_3_PriorityZeroIsAnsweredAtOnce(t *testing.T) {
	m := in(t, Active, usual)
	expect(t, m.Step(epoch.Add(second/2), from(a3, 0, second)), Advertise{100}, Announce{})
	expectTimer(t, m, second/2+second)
}

func Test_6_4_3_TheHigherPriorityWinsThenTheHigherAddress(t *testing.T) {
	low := netip.MustParseAddr("198.18.0.1")
	// Addresses are compared as numbers: 198.18.0.10 is above 198.18.0.2, though not as text.
	ten := netip.MustParseAddr("198.18.0.10")
	for _, c := range []struct {
		from     netip.Addr
		priority uint8
		loses    bool
	}{
		{a3, 101, true}, {low, 101, true}, {a3, 255, true},
		{a3, 100, true}, {ten, 100, true},
		{low, 100, false}, {a3, 99, false}, {a3, 1, false},
	} {
		m := in(t, Active, usual)
		got := m.Step(epoch, from(c.from, c.priority, 2*second))
		if c.loses {
			expect(t, got, Drop{}, Advertise{100}, Transition{Active, Backup, Outranked})
			expectTimer(t, m, DownInterval(100, 2*second))
			if m.Owner() != c.from {
				t.Errorf("the owner is %s, want %s", m.Owner(), c.from)
			}
			continue
		}
		expect(t, got, Advertise{100}, Announce{})
		expectTimer(t, m, second)
	}
}

func Test_7_2_TheAdvertisementCarriesTheConfiguration(t *testing.T) {
	c := usual
	c.Checksum = MessageOnly
	got := New(c).Advertisement(Advertise{Priority: 7})
	want := Advertisement{VRID: 51, Priority: 7, Interval: second, Addresses: v4, Checksum: MessageOnly}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
