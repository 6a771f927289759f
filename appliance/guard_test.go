package appliance

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"everboot/appliance/keep"
)

// The test binary plays the worker: it does what this variable says.
const workerEnv = "EVERBOOT_TEST_WORKER"

// lingerPatience is the guard's with a worker that takes longer to stop.
const lingerPatience = 500 * time.Millisecond

func TestMain(m *testing.M) {
	switch os.Getenv(workerEnv) {
	case "":
		os.Exit(m.Run())
	case "refuse":
		os.Exit(1)
	case "serve":
		_, _ = os.NewFile(3, "ready").Write([]byte{1})
		sayPID()
		select {} // until SIGTERM
	case "beat":
		guard, err := InheritedLifeline(3)
		if err != nil {
			os.Exit(3)
		}
		guard.Say() // ready
		guard.Say() // from now on it beats
		sayPID()
		for range time.Tick(20 * time.Millisecond) { // until SIGTERM
			guard.Say()
		}
	case "linger":
		guard, err := InheritedLifeline(3)
		if err != nil {
			os.Exit(3)
		}
		told := make(chan os.Signal, 1)
		signal.Notify(told, syscall.SIGTERM)
		guard.Say() // ready
		guard.Say() // from now on it beats
		sayPID()
		for beat := time.Tick(20 * time.Millisecond); ; {
			select {
			case <-beat:
				guard.Say()
			case <-told:
				time.Sleep(3 * lingerPatience) // it hands over, and beats no more
				os.Exit(0)
			}
		}
	case "refuse-second":
		if text, _ := os.ReadFile(os.Getenv("EVERBOOT_TEST_PIDS")); strings.Count(string(text), "\n") == 1 {
			sayPID()
			os.Exit(2)
		}
		_, _ = os.NewFile(3, "ready").Write([]byte{1})
		sayPID()
		select {} // until SIGTERM
	}
}

// sayPID tells the test who the worker is.
func sayPID() {
	f, err := os.OpenFile(os.Getenv("EVERBOOT_TEST_PIDS"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		os.Exit(3)
	}
	_, _ = f.WriteString(strconv.Itoa(os.Getpid()) + "\n")
	_ = f.Close()
}

func guard(t *testing.T, role string) (g *Guard, released chan struct{}) {
	t.Helper()
	t.Setenv(workerEnv, role)
	released = make(chan struct{}, 16)
	return &Guard{Worker: []string{os.Args[0]}, Keep: keep.NewHolder(quiet), Log: quiet, Release: func() error { released <- struct{}{}; return nil }}, released
}

func TestGuardGivesUpOnAWorkerThatNeverServed(t *testing.T) {
	g, released := guard(t, "refuse")
	var exit ExitError
	if err := g.Run(t.Context()); !errors.As(err, &exit) || exit.Code != 1 {
		t.Errorf("Run = %v, want the worker's exit code 1", err)
	}
	if len(released) != 1 {
		t.Errorf("released %d times, want 1", len(released))
	}
}

func TestGuardReleasesAndStartsAgainWhenItsWorkerIsKilled(t *testing.T) {
	pids := t.TempDir() + "/pids"
	t.Setenv("EVERBOOT_TEST_PIDS", pids)
	g, released := guard(t, "serve")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()

	first := workers(t, pids, 1)[0]
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-released
	second := workers(t, pids, 2)[1]
	if second == first {
		t.Error("no other worker was started")
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Run = %v after a stop", err)
	}
	<-released
	if err := syscall.Kill(second, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("the worker outlives its guard: %v", err)
	}
}

// TestGuardTriesOnOnceItsWorkerHasServed: a worker that died and cannot start again at once, because its interface is gone for a moment or
// somebody edits its configuration, must not end the appliance for good.
func TestGuardTriesOnOnceItsWorkerHasServed(t *testing.T) {
	pids := t.TempDir() + "/pids"
	t.Setenv("EVERBOOT_TEST_PIDS", pids)
	g, released := guard(t, "refuse-second")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()

	first := workers(t, pids, 1)[0]
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	workers(t, pids, 3)
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Run = %v after a stop", err)
	}
	if len(released) != 3 {
		t.Errorf("released %d times, want once for each worker", len(released))
	}
}

// TestGuardReleasesForAFrozenWorker: a worker that is stopped with SIGSTOP loses its addresses once; one that beats keeps them.
func TestGuardReleasesForAFrozenWorker(t *testing.T) {
	pids := t.TempDir() + "/pids"
	t.Setenv("EVERBOOT_TEST_PIDS", pids)
	g, released := guard(t, "beat")
	g.Patience = 500 * time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	worker := workers(t, pids, 1)[0]
	for range 2 {
		if err := syscall.Kill(worker, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		<-released
		if err := syscall.Kill(worker, syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		time.Sleep(g.Patience / 2) // the worker is another process: it has no moment to wait for at which it beats again
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Run = %v after a stop", err)
	}
	if n := len(workersNow(t, pids)); n != 1 {
		t.Errorf("%d workers were started for one that was frozen", n)
	}
}

// TestGuardLeavesAWorkerThatStopsItsAddresses: one that was told to stop hands over in its own time.
func TestGuardLeavesAWorkerThatStopsItsAddresses(t *testing.T) {
	pids := t.TempDir() + "/pids"
	t.Setenv("EVERBOOT_TEST_PIDS", pids)
	g, released := guard(t, "linger")
	g.Patience = lingerPatience
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	workers(t, pids, 1)
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Run = %v after a stop", err)
	}
	if n := len(released); n != 1 {
		t.Errorf("released %d times, want once, when the worker is gone", n)
	}
}

func TestVigil(t *testing.T) {
	const patience = 400 * time.Millisecond
	start := time.Unix(0, 0)
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	for name, c := range map[string]struct {
		signs, looks []int // ms
		want         []int // looks that find it frozen
	}{
		"it beats":                   {[]int{0, 80, 160, 240, 320, 400, 480}, []int{100, 200, 300, 400, 500}, nil},
		"it never began to":          {nil, []int{100, 200, 300, 400, 500, 600, 700}, nil},
		"it stops":                   {[]int{0, 80}, []int{100, 200, 300, 400, 500, 600, 700}, []int{500}},
		"it stops, wakes, and stops": {[]int{0, 80, 650}, []int{100, 200, 300, 400, 500, 600, 700, 800, 900, 1000, 1100, 1200}, []int{500, 1100}},
		"the guard slept itself":     {[]int{0, 80}, []int{100, 5000, 5100, 5200, 5300, 5400, 5500}, []int{5500}},
	} {
		t.Run(name, func(t *testing.T) {
			v := vigil{patience: patience}
			var got []int
			for _, look := range c.looks {
				for len(c.signs) > 0 && c.signs[0] <= look {
					v.sign(at(c.signs[0]))
					c.signs = c.signs[1:]
				}
				if v.look(at(look)) {
					got = append(got, look)
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("frozen at %v, want %v", got, c.want)
			}
		})
	}
}

func workersNow(t *testing.T, path string) []string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(text))
}

// workers waits until n workers have said who they are.
func workers(t *testing.T, path string, n int) []int {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for time.Now().Before(deadline) {
		text, _ := os.ReadFile(path) // it may not be there yet
		fields := strings.Fields(string(text))
		if len(fields) < n {
			time.Sleep(10 * time.Millisecond) // another process: there is nothing to wait on
			continue
		}
		var pids []int
		for _, f := range fields {
			pid, err := strconv.Atoi(f)
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, pid)
		}
		return pids
	}
	t.Fatalf("there never were %d workers", n)
	return nil
}
