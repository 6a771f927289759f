package streamer_test

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"everboot/site"
	"everboot/streamer"
)

// fakeEngine serves nothing.
type fakeEngine struct {
	mu       sync.Mutex
	exports  []streamer.Export
	sessions []streamer.EngineSession
	cut      []streamer.EngineSession
	starts   int
	refuse   error
	die      chan error
}

func (e *fakeEngine) Start(ctx context.Context, exports []streamer.Export) (<-chan error, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.starts++
	if e.refuse != nil {
		return nil, e.refuse
	}
	e.exports = exports
	die, ended := make(chan error, 1), make(chan error, 1)
	e.die = die
	go func() {
		select {
		case err := <-die:
			ended <- err
		case <-ctx.Done():
			ended <- ctx.Err()
		}
	}()
	return ended, nil
}

func (e *fakeEngine) Export(_ context.Context, exports []streamer.Export) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.exports = exports
	return nil
}

func (e *fakeEngine) Sessions(context.Context) ([]streamer.EngineSession, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.sessions), nil
}

func (e *fakeEngine) Disconnect(_ context.Context, s streamer.EngineSession) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.cut = append(e.cut, s)
	e.sessions = slices.DeleteFunc(e.sessions, func(x streamer.EngineSession) bool { return x == s })
	return nil
}

func (e *fakeEngine) started() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.starts
}

func (e *fakeEngine) serves() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.exports)
}

// fakeRegistry remembers what it was told.
type fakeRegistry struct {
	mu        sync.Mutex
	now       *site.Streamer
	wanted    site.StreamerState
	down      bool
	announced func(s site.Streamer)
}

func (r *fakeRegistry) Announce(_ context.Context, s site.Streamer) (site.StreamerState, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.down {
		return "", errors.New("no answer")
	}
	r.now = &s
	if r.announced != nil {
		r.announced(s)
	}
	return r.wanted, nil
}

func (r *fakeRegistry) Withdraw(context.Context, string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now = nil
	return nil
}

func (r *fakeRegistry) streamer() site.Streamer {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.now == nil {
		return site.Streamer{}
	}
	return *r.now
}

// putDisk writes a replica whose time is that of the test's clock.
func putDisk(t *testing.T, store, vdisk, version string, content byte) string {
	t.Helper()
	folder := filepath.Join(store, vdisk, version)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1<<20)
	for i := range b {
		b[i] = content + byte(i>>12)
	}
	path := filepath.Join(folder, "disk.raw")
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, time.Now(), time.Now()); err != nil {
		t.Fatal(err)
	}
	return path
}

type agentTest struct {
	engine   fakeEngine
	registry fakeRegistry
	store    string
	stop     func() error
}

// withAgent runs a test with an agent in simulated time.
func withAgent(t *testing.T, prepare func(*testing.T, *agentTest), test func(*testing.T, *agentTest)) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		a := &agentTest{store: dir}
		prepare(t, a)
		agent, err := streamer.NewAgent(streamer.AgentConfig{
			Node: "s1", Site: "berlin", Addresses: []netip.AddrPort{netip.MustParseAddrPort("198.18.0.21:3260")}, StorePath: a.store,
		}, &a.engine, &a.registry, slog.New(slog.NewTextHandler(testWriter{t}, nil)))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- agent.Run(ctx) }()
		a.stop = sync.OnceValue(func() error { cancel(); return <-done })
		<-agent.Ready()
		test(t, a)
		if err := a.stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func TestAgentServesWhatSettled(t *testing.T) {
	withAgent(t, func(*testing.T, *agentTest) {}, func(t *testing.T, a *agentTest) {
		time.Sleep(1500 * time.Millisecond)
		if s := a.registry.streamer(); s.Name != "s1" || s.Power != 1 || s.State != site.Active || len(s.Replicas) != 0 {
			t.Errorf("announced %+v", s)
		}
		path := putDisk(t, a.store, "debian", "1", 0)
		putDisk(t, a.store, ".debian", "1", 0)
		putDisk(t, a.store, "debian", "01", 0)
		time.Sleep(time.Second)
		if len(a.registry.streamer().Replicas) != 0 {
			t.Error("announced before it settled")
		}
		time.Sleep(4 * time.Second)
		s := a.registry.streamer()
		if len(s.Replicas) != 1 || s.Replicas[0].VDisk != "debian" || s.Replicas[0].Version != 1 || s.Replicas[0].Size != 1<<20 {
			t.Fatalf("announced %+v", s.Replicas)
		}
		if a.engine.serves() != 1 || a.engine.exports[0].Target != site.NameTarget("berlin", "debian", 1, s.Replicas[0].Digest) {
			t.Errorf("served %+v", a.engine.exports)
		}
		putDisk(t, a.store, "debian", "1", 7) // written over in place
		time.Sleep(1100 * time.Millisecond)
		if a.engine.serves() != 0 || len(a.registry.streamer().Replicas) != 0 {
			t.Errorf("a changed replica is still there: %v", a.registry.streamer())
		}
		time.Sleep(5 * time.Second)
		if again := a.registry.streamer().Replicas; len(again) != 1 || again[0].Digest == s.Replicas[0].Digest {
			t.Errorf("announced %+v", again)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		if a.engine.serves() != 0 {
			t.Error("a removed replica is still served")
		}
	})
}

func TestAgentRestartsItsEngine(t *testing.T) {
	withAgent(t, func(t *testing.T, a *agentTest) { putDisk(t, a.store, "debian", "1", 0) }, func(t *testing.T, a *agentTest) {
		time.Sleep(5 * time.Second)
		before := len(a.registry.streamer().Replicas)
		a.engine.die <- errors.New("killed")
		synctest.Wait()
		if got := a.registry.streamer().Replicas; before != 1 || len(got) != 0 {
			t.Errorf("announced %d replicas before and %v after the engine's death", before, got)
		}
		time.Sleep(150 * time.Millisecond)
		if got := a.registry.streamer().Replicas; a.engine.started() != 2 || len(got) != 1 {
			t.Errorf("%d starts, announced %v", a.engine.started(), got)
		}
		a.engine.mu.Lock()
		a.engine.refuse = errors.New("port taken")
		a.engine.mu.Unlock()
		a.engine.die <- errors.New("killed")
		time.Sleep(30 * time.Second)
		if n := a.engine.started(); n < 6 || n > 14 {
			t.Errorf("%d starts in 30 s", n)
		}
		a.engine.mu.Lock()
		a.engine.refuse = nil
		a.engine.mu.Unlock()
		time.Sleep(6 * time.Second)
		if len(a.registry.streamer().Replicas) != 1 {
			t.Error("not back")
		}
	})
}

func TestAgentThatCannotStart(t *testing.T) {
	engine := &fakeEngine{refuse: errors.New("port taken")}
	agent, err := streamer.NewAgent(streamer.AgentConfig{
		Node: "s1", Site: "berlin", Addresses: []netip.AddrPort{netip.MustParseAddrPort("198.18.0.21:3260")}, StorePath: t.TempDir(),
	}, engine, &fakeRegistry{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := agent.Run(t.Context()); !errors.Is(err, engine.refuse) {
		t.Errorf("Run: %v", err)
	}
}

// sessions are n devices, a second session of the first, and a probe; the latter two do not count.
func sessions(n int) []streamer.EngineSession {
	list := []streamer.EngineSession{{Initiator: "iqn.2026-11.internal.everboot:probe", Session: 99}}
	for i := range n {
		list = append(list, streamer.EngineSession{Initiator: site.InitiatorName(site.MAC{2, 5: byte(i)}), Session: i + 1})
	}
	return append(list, streamer.EngineSession{Initiator: site.InitiatorName(site.MAC{2}), Session: n + 1})
}

func TestAgentDrainsAsTheOperatorWants(t *testing.T) {
	withAgent(t, func(t *testing.T, a *agentTest) { a.engine.sessions = sessions(3) }, func(t *testing.T, a *agentTest) {
		time.Sleep(1500 * time.Millisecond)
		if s := a.registry.streamer(); s.Sessions != 3 || s.State != site.Active {
			t.Errorf("announced %+v", s)
		}
		for _, want := range []site.StreamerState{site.Draining, site.Active} {
			a.registry.mu.Lock()
			a.registry.wanted = want
			a.registry.mu.Unlock()
			time.Sleep(1100 * time.Millisecond)
			if s := a.registry.streamer(); s.State != want {
				t.Errorf("announced %s, want %s", s.State, want)
			}
		}
		if len(a.engine.cut) != 0 {
			t.Error("the agent cut sessions: who can move is known by the directors")
		}
	})
}

func TestAgentStop(t *testing.T) {
	for _, tt := range []struct {
		name    string
		prepare func(a *agentTest)
		took    time.Duration
		cut     int
	}{
		{"directors move the sessions", func(a *agentTest) {
			a.registry.announced = func(s site.Streamer) {
				if s.State == site.Draining {
					a.engine.mu.Lock()
					a.engine.sessions = nil
					a.engine.mu.Unlock()
				}
			}
		}, 0, 0},
		{"nobody takes them", func(*agentTest) {}, 10 * time.Second, 3},
		{"the registry is gone", func(a *agentTest) { a.registry.down = true }, 10 * time.Second, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			withAgent(t, func(t *testing.T, a *agentTest) { a.engine.sessions = sessions(3) }, func(t *testing.T, a *agentTest) {
				time.Sleep(5 * time.Second)
				a.registry.mu.Lock()
				tt.prepare(a)
				a.registry.mu.Unlock()
				start := time.Now()
				if err := a.stop(); err != nil {
					t.Error(err)
				}
				if took := time.Since(start); took < tt.took || took > tt.took+time.Second {
					t.Errorf("stopped after %v, want about %v", took, tt.took)
				}
				if tt.cut > 0 {
					tt.cut++ // the second session of the first
				}
				if len(a.engine.cut) != tt.cut {
					t.Errorf("%d sessions cut, want %d", len(a.engine.cut), tt.cut)
				}
				if s := a.registry.streamer(); s.Name != "" {
					t.Errorf("still registered: %+v", s)
				}
			})
		})
	}
}

func TestAgentConfig(t *testing.T) {
	good := streamer.AgentConfig{
		Node: "s1", Site: "berlin", Addresses: []netip.AddrPort{netip.MustParseAddrPort("198.18.0.21:3260")}, StorePath: "/srv",
	}
	for _, tt := range []struct {
		name   string
		change func(c *streamer.AgentConfig)
		ok     bool
	}{
		{"good", func(*streamer.AgentConfig) {}, true},
		{"no name", func(c *streamer.AgentConfig) { c.Node = "" }, false},
		{"site with a capital", func(c *streamer.AgentConfig) { c.Site = "Berlin" }, false},
		{"no address", func(c *streamer.AgentConfig) { c.Addresses = nil }, false},
		{"negative power", func(c *streamer.AgentConfig) { c.Power = -1 }, false},
		{"no store", func(c *streamer.AgentConfig) { c.StorePath = "" }, false},
		{"a comma in the store", func(c *streamer.AgentConfig) { c.StorePath = "/srv/a,b" }, false},
		{"negative time", func(c *streamer.AgentConfig) { c.Grace = -1 }, false},
	} {
		c := good
		tt.change(&c)
		if err := c.Validate(); (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}
