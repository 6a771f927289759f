package vip

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"everboot/vip/vrrp"
)

func openTestCounter(t *testing.T, path string) *Counter {
	t.Helper()
	c, err := OpenCounter(path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// crash ends a counter as a power failure does: what is on disk stays as it is.
func crash(t *testing.T, c *Counter) {
	t.Helper()
	close(c.quit)
	<-c.done
	if err := c.ledger.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestNumbersRiseOverARestartWithAClockThatWasSetBack: peers would take all that the node says for replays, and two nodes would own the
// address until the clock has caught up.
func TestNumbersRiseOverARestartWithAClockThatWasSetBack(t *testing.T) {
	now := time.Now()
	for _, how := range []string{"stopped", "crashed"} {
		path := filepath.Join(t.TempDir(), "vrrp.counter")
		before := openTestCounter(t, path)
		last := before.Next(now)
		for range 100_000 {
			last = before.Next(now)
		}
		if how == "stopped" {
			if err := before.Close(); err != nil {
				t.Fatal(err)
			}
		} else {
			crash(t, before)
		}
		after := openTestCounter(t, path)
		if n := after.Next(now.Add(-24 * time.Hour)); n <= last {
			t.Errorf("%s: the next start begins with %d, after %d", how, n, last)
		}
		if how == "stopped" && after.words.last.Load() > last+1 {
			t.Errorf("a stop in good order leaves a gap of %d", after.words.last.Load()-last)
		}
		if err := after.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestCrashesDoNotAddUp: a keepalived that looks at its clock drops what is five seconds ahead of it.
func TestCrashesDoNotAddUp(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vrrp.counter")
	for range 5 {
		crash(t, openTestCounter(t, path))
	}
	c := openTestCounter(t, path)
	defer c.Close()
	if n, most := c.Next(time.Now()), stamp(time.Now().Add((reserveAhead+1)*time.Second)); n > most {
		t.Errorf("after five crashes the numbers are %d s ahead", (n-stamp(time.Now()))>>32)
	}
}

// TestALedgerThatCannotBeReadIsMadeAnew, at once and for the next start.
func TestALedgerThatCannotBeReadIsMadeAnew(t *testing.T) {
	for _, text := range []string{"rubbish that is longer than a number is\n", "18446744073709551615\n"} {
		path := filepath.Join(t.TempDir(), "vrrp.counter")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c := openTestCounter(t, path)
		last := c.Next(time.Now())
		crash(t, c)
		c = openTestCounter(t, path)
		if n := c.Next(time.Now().Add(-24 * time.Hour)); n <= last || n > stamp(time.Now().Add(time.Hour)) {
			t.Errorf("with %q on disk it begins with %d, and then with %d", text, last, n)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestTheClockDoesNotRunBeyondWhatIsOnDisk: numbers that a clock in the far future would give must not be lost in a crash.
func TestTheClockDoesNotRunBeyondWhatIsOnDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vrrp.counter")
	c := openTestCounter(t, path)
	n := c.Next(time.Now().Add(1000 * time.Hour))
	crash(t, c)
	again := openTestCounter(t, path)
	if first := again.Next(time.Now()); first <= n {
		t.Errorf("after a crash it begins with %d, after %d", first, n)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}

func TestHalfOfWhatIsReservedIsRenewed(t *testing.T) {
	c := openTestCounter(t, filepath.Join(t.TempDir(), "vrrp.counter"))
	defer c.Close()
	now := time.Now()
	later := now.Add(reserveAhead * time.Second * 2 / 3)
	if c.due(now) || !c.due(later) {
		t.Errorf("due at once: %t; late: %t", c.due(now), c.due(later))
	}
	if err := c.reserve(later); err != nil {
		t.Fatal(err)
	}
	if c.due(later) {
		t.Error("it is due although it was renewed")
	}
}

// TestGuardAndWorkerShareTheCounter: a worker that the guard has resigned for may wake and speak again.
func TestGuardAndWorkerShareTheCounter(t *testing.T) {
	guard := openTestCounter(t, "")
	defer guard.Close()
	file, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", guard.Memory().Fd()), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	worker, err := InheritCounter(file)
	if err != nil {
		t.Fatal(err)
	}
	long := time.Unix(0, 0) // the clock is of no help
	var last uint64
	for i := range 10 {
		n := guard.Next(long)
		if i%2 == 1 {
			n = worker.Next(long)
		}
		if n <= last {
			t.Fatalf("number %d after %d", n, last)
		}
		last = n
	}
}

// TestWhoHasLostItsStateGoesByTheClock: a node that is set up anew must be heard.
func TestWhoHasLostItsStateGoesByTheClock(t *testing.T) {
	now := time.Now()
	for _, text := range []string{"", "rubbish"} {
		path := filepath.Join(t.TempDir(), "vrrp.counter")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c := openTestCounter(t, path)
		if n := c.Next(now); n != stamp(now) {
			t.Errorf("with %q on disk: %d", text, n)
		}
		other := openTestCounter(t, path) // such as "vip flush" beside an appliance: not seconds ahead of it
		if n := other.Next(now.Add(time.Second)); n != stamp(now.Add(time.Second)) {
			t.Errorf("a second process: %d", n)
		}
		for _, c := range []*Counter{c, other} {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestARouterThatStartsAnewTakesNoReplay plays what was recorded to a router that was restarted.
func TestARouterThatStartsAnewTakesNoReplay(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vrrp.heard")
	peer := netip.MustParseAddr("198.18.0.2")
	play := func(key string, counter uint64) Status {
		cfg := good()
		cfg.Heard = OpenHeard(path, slog.New(slog.DiscardHandler))
		e := (&cable{}).port("198.18.0.3").edge()
		e.auth = vrrp.NewAuth([]byte(key))
		r := newRouter(cfg.withDefaults(), e, slog.New(slog.DiscardHandler))
		message, err := vrrp.Advertisement{VRID: 51, Priority: 100, Interval: time.Second, Addresses: good().addrs()}.Marshal(peer, vrrp.Group4())
		if err != nil {
			t.Fatal(err)
		}
		message = vrrp.NewAuth([]byte(key)).Seal(counter, peer, vrrp.Group4(), message)
		r.arrived(arrival{packet: vrrp.Packet{Source: peer, Destination: vrrp.Group4(), TTL: vrrp.TTL, Payload: message}})
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		cfg.Heard.Run(ended)
		return r.Status()
	}
	for _, c := range []struct {
		what    string
		key     string
		counter uint64
		reason  vrrp.Reason
	}{
		{"the first", "key", 7, vrrp.Accepted},
		{"a recorded one", "key", 7, vrrp.Replayed},
		{"a new one", "key", 8, vrrp.Accepted},
		{"a recorded one after a new one", "key", 7, vrrp.Replayed},
		{"one under a new key", "other", 1, vrrp.Accepted},
	} {
		s := play(c.key, c.counter)
		if c.reason == vrrp.Accepted && s.Accepted != 1 || c.reason != vrrp.Accepted && s.Dropped[c.reason] != 1 {
			t.Errorf("%s: accepted %d, dropped %v", c.what, s.Accepted, s.Dropped)
		}
	}
}

func TestHeardThatCannotBeReadIsEmpty(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vrrp.heard")
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := OpenHeard(path, slog.New(slog.DiscardHandler)).of("x"); len(got) != 0 {
		t.Errorf("got %v", got)
	}
}
