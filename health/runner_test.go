package health_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"everboot/health"
	"everboot/site"
)

// fake is a thing with a switch.
type fake struct {
	name     string
	broken   atomic.Bool
	running  atomic.Int32
	probes   atomic.Int32
	closed   atomic.Int32
	lost     chan struct{}
	slow     time.Duration
	watching atomic.Int32
}

func (f *fake) probe(ctx context.Context) error {
	if f.running.Add(1) != 1 {
		panic("two probes of one check at a time")
	}
	defer f.running.Add(-1)
	f.probes.Add(1)
	if f.slow > 0 {
		select {
		case <-time.After(f.slow):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if f.broken.Load() {
		return errors.New("broken")
	}
	return nil
}

func (f *fake) watch(ctx context.Context) error {
	f.watching.Add(1)
	defer f.watching.Add(-1)
	select {
	case <-f.lost:
		return errors.New("lost")
	case <-ctx.Done():
		return nil
	}
}

func (f *fake) check(on ...string) health.Check {
	c := health.Check{Name: f.name, DependsOn: on, Interval: time.Second, Timeout: time.Second, Rise: 2, Fall: 3,
		Probe: f.probe, Close: func() { f.closed.Add(1) }}
	if f.lost != nil {
		c.Watch = f.watch
	}
	return c
}

// scene runs a runner in simulated time. What it reports is collected as "1.5s tftp down broken".
type scene struct {
	*testing.T
	runner *health.Runner
	mu     sync.Mutex
	told   []string
}

func simulate(t *testing.T, f func(s *scene)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &scene{T: t}
		start := time.Now()
		s.runner = health.New(health.Config{Report: func(name string, c site.Check) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.told = append(s.told, fmt.Sprintf("%v %s %s %s", time.Since(start), name, c.Health, c.Reason))
		}}, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- s.runner.Run(ctx) }()
		f(s)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func (s *scene) set(checks ...health.Check) {
	s.Helper()
	if err := s.runner.Set(checks); err != nil {
		s.Fatal(err)
	}
	synctest.Wait()
}

func (s *scene) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// want compares what was told since the last call, without the times unless they are given.
func (s *scene) want(told ...string) {
	s.Helper()
	s.mu.Lock()
	got := s.told
	s.told = nil
	s.mu.Unlock()
	ok := len(got) == len(told)
	for i := range min(len(got), len(told)) {
		ok = ok && len(got[i]) >= len(told[i]) && got[i][len(got[i])-len(told[i]):] == told[i]
	}
	if !ok {
		s.Errorf("told %q, want %q", got, told)
	}
}

func TestFirstResultCountsAtOnce(t *testing.T) {
	simulate(t, func(s *scene) {
		good, bad := &fake{name: "good"}, &fake{name: "bad"}
		bad.broken.Store(true)
		s.set(good.check())
		s.want("0s good up ")
		s.set(good.check(), bad.check())
		s.want("0s bad down broken")
	})
}

func TestRiseAndFall(t *testing.T) {
	simulate(t, func(s *scene) {
		f := &fake{name: "x"}
		s.set(f.check())
		s.pass(10 * time.Second)
		s.want("x up ")
		probes := f.probes.Load() // one at the start, then on the grid
		if probes != 11 && probes != 12 {
			t.Errorf("%d probes in 10 s at 1 s", probes)
		}
		f.broken.Store(true)
		s.pass(time.Second) // it fails once on the grid, and is asked again soon
		s.want()
		if r := s.runner.Status()[0]; r.Check.Health != site.Up || r.Error != "broken" || r.Failures != 2 || r.Probes != uint64(probes)+2 {
			t.Errorf("%+v", r)
		}
		s.pass(time.Second)
		s.want("x down broken")
		f.broken.Store(false)
		s.pass(time.Second)
		s.want()
		s.pass(time.Second)
		s.want("x up ")
	})
}

// TestADeathIsKnownSoon: a second failure does not wait for the next turn, but what fails again and again is not asked more often than others.
func TestADeathIsKnownSoon(t *testing.T) {
	simulate(t, func(s *scene) {
		f := &fake{name: "x"}
		c := f.check()
		c.Fall = 2
		s.set(c)
		s.pass(10 * time.Second)
		s.want("x up ")
		f.broken.Store(true)
		s.pass(1100 * time.Millisecond)
		s.want("x down broken")
		probes := f.probes.Load()
		s.pass(10 * time.Second)
		if n := f.probes.Load() - probes; n > 11 {
			t.Errorf("%d probes in 10 s of what is down", n)
		}
	})
}

// TestSlowProbes: a probe that takes longer than the interval skips turns, and one that never answers ends with its time-out.
func TestSlowProbes(t *testing.T) {
	simulate(t, func(s *scene) {
		slow, dead := &fake{name: "slow", slow: 2500 * time.Millisecond}, &fake{name: "dead", slow: time.Hour}
		c := slow.check()
		c.Timeout = 3 * time.Second
		s.set(c, dead.check())
		s.pass(time.Second)
		s.want("1s dead down no answer in time")
		s.pass(30 * time.Second)
		s.want("2.5s slow up ")
		if n := slow.probes.Load(); n < 10 || n > 13 {
			t.Errorf("%d probes of 2.5 s in 31 s", n)
		}
	})
}

func TestDependencies(t *testing.T) {
	simulate(t, func(s *scene) {
		vip, tftp, file := &fake{name: "vip", slow: 100 * time.Millisecond}, &fake{name: "tftp"}, &fake{name: "file"}
		s.set(file.check("tftp"), tftp.check("vip"), vip.check())
		s.want() // nothing is probed before what it depends on has answered
		s.pass(100 * time.Millisecond)
		s.want("100ms vip up ", "100ms tftp up ", "100ms file up ")
		s.pass(5 * time.Second)
		vip.broken.Store(true)
		s.pass(4 * time.Second)
		s.want("vip down broken", "tftp down dependency vip failed", "file down dependency tftp failed")
		probes := tftp.probes.Load()
		s.pass(5 * time.Second)
		if n := tftp.probes.Load(); n != probes {
			t.Errorf("%d probes of a check whose dependency is down", n-probes)
		}
		tree := health.Format(health.Tree(s.runner.Status()))
		if want := "vip: down (broken)\n  tftp: down (dependency vip failed)\n    file: down (dependency tftp failed)\n"; tree != want {
			t.Errorf("tree:\n%swant:\n%s", tree, want)
		}
		vip.broken.Store(false)
		tftp.broken.Store(true)
		s.pass(3 * time.Second) // vip needs two successes; then tftp is asked at once
		s.want("vip up ", "tftp down broken")
		tftp.broken.Store(false)
		s.pass(3 * time.Second)
		s.want("tftp up ", "file up ")
	})
}

// TestLoss: what Watch sees is followed by a probe at once, and by down at once if that fails.
func TestLoss(t *testing.T) {
	simulate(t, func(s *scene) {
		f := &fake{name: "s1", lost: make(chan struct{})}
		s.set(f.check())
		s.pass(3500 * time.Millisecond)
		s.want("s1 up ")
		f.broken.Store(true)
		at := time.Now()
		f.lost <- struct{}{}
		synctest.Wait()
		s.want("s1 down broken")
		if time.Since(at) != 0 {
			t.Error("it took", time.Since(at))
		}
	})
}

// TestLossThatHeals: a session that ended, but can be had again, is no death; and a thing that dies after each probe is not probed without a pause.
func TestLossThatHeals(t *testing.T) {
	simulate(t, func(s *scene) {
		f := &fake{name: "s1", lost: make(chan struct{})}
		close(f.lost)
		s.set(f.check())
		s.pass(10 * time.Second)
		s.want("s1 up ")
		if n := f.probes.Load(); n > 24 { // two a second at most
			t.Errorf("%d probes in 10 s", n)
		}
	})
}

func TestSetWhileRunning(t *testing.T) {
	simulate(t, func(s *scene) {
		a, b := &fake{name: "a"}, &fake{name: "b", slow: 300 * time.Millisecond, lost: make(chan struct{})}
		s.set(a.check(), b.check())
		s.pass(5 * time.Second)
		s.want("a up ", "b up ")
		probes := a.probes.Load()
		s.set(b.check(), a.check())
		if n := a.probes.Load(); n != probes {
			t.Error("an unchanged check started again")
		}
		if err := s.runner.Set([]health.Check{{Name: "x"}}); err == nil {
			t.Error("a check without a probe was taken")
		}
		s.set(a.check())
		if b.closed.Load() != 1 || len(s.runner.Status()) != 1 || b.watching.Load() != 0 {
			t.Errorf("closed %d times, status %+v", b.closed.Load(), s.runner.Status())
		}
		// Another revision keeps its health until the first result, which counts at once.
		moved := &fake{name: "a", slow: 500 * time.Millisecond}
		moved.broken.Store(true)
		c := moved.check()
		c.Revision = "198.18.0.22"
		s.set(c)
		if a.closed.Load() != 1 || s.runner.Status()[0].Check.Health != site.Up {
			t.Errorf("closed %d times, %+v", a.closed.Load(), s.runner.Status())
		}
		s.want()
		s.pass(500 * time.Millisecond)
		s.want("a down broken")
		s.set()
		if moved.closed.Load() != 1 {
			t.Error("not closed")
		}
	})
}

// TestStopClosesAll: Run joins its workers, and each closes what it has.
func TestStopClosesAll(t *testing.T) {
	a := &fake{name: "a", slow: time.Minute}
	simulate(t, func(s *scene) { s.set(a.check()) })
	if a.closed.Load() != 1 {
		t.Error("not closed")
	}
}

// TestSpread: checks of one interval do not all probe at the same moment.
func TestSpread(t *testing.T) {
	simulate(t, func(s *scene) {
		moments := make(map[time.Time]int)
		var checks []health.Check
		for i := range 50 {
			f := &fake{name: fmt.Sprint("streamer ", i)}
			c := f.check()
			c.Probe = func(context.Context) error { return nil }
			checks = append(checks, c)
		}
		s.set(checks...)
		s.pass(3 * time.Second)
		for _, r := range s.runner.Status() {
			moments[r.Probed]++
		}
		if len(moments) < 40 {
			t.Errorf("50 checks probe at %d moments", len(moments))
		}
	})
}
