package streamer_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"everboot/internal/iscsi"
	"everboot/internal/lab"
	"everboot/site"
	"everboot/streamer"
	"everboot/streamer/tgt"
)

// envAgent makes this test binary a streamer's agent, so that it can be killed.
const envAgent = "EVERBOOT_TEST_AGENT"

func TestMain(m *testing.M) {
	if text := os.Getenv(envAgent); text != "" {
		os.Exit(agentMain(text))
	}
	os.Exit(lab.TestMain(m))
}

type agentSettings struct {
	Node, Address, Store, State string
}

// fileRegistry is a registry of files: what the agent announced, and what the operator wants.
type fileRegistry struct{ state string }

func (r fileRegistry) Announce(_ context.Context, s site.Streamer) (site.StreamerState, error) {
	b, err := json.Marshal(s)
	if err != nil {
		return "", err
	}
	next := filepath.Join(r.state, "announced.new")
	if err := os.WriteFile(next, b, 0o644); err != nil {
		return "", err
	}
	wanted, _ := os.ReadFile(filepath.Join(r.state, "wanted"))
	return site.StreamerState(wanted), os.Rename(next, filepath.Join(r.state, "announced"))
}

func (r fileRegistry) Withdraw(context.Context, string) error {
	return os.Remove(filepath.Join(r.state, "announced"))
}

func agentMain(text string) int {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	run := func() error {
		var a agentSettings
		if err := json.Unmarshal([]byte(text), &a); err != nil {
			return err
		}
		addresses := []netip.AddrPort{netip.MustParseAddrPort(a.Address)}
		engine, err := tgt.New(tgt.Config{Addresses: addresses, State: a.State, Threads: 1}, log)
		if err != nil {
			return err
		}
		agent, err := streamer.NewAgent(streamer.AgentConfig{
			Node: a.Node, Site: "berlin", Addresses: addresses, StorePath: a.Store, Every: 200 * time.Millisecond, Settle: time.Millisecond,
		}, engine, fileRegistry{a.State}, log)
		if err != nil {
			return err
		}
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		return agent.Run(ctx)
	}
	if err := run(); err != nil {
		log.Error("agent", "error", err)
		return 1
	}
	return 0
}

const patience = 20 * time.Second

// farm is two or more real streamers behind a director.
type farm struct {
	*fleet
	lab     *lab.Lab
	client  *lab.Host
	content []byte
	agents  map[string]*lab.Process
	state   map[string]string
	cables  map[string]*lab.Cable
	stopped atomic.Bool
	secrets atomic.Pointer[streamer.CHAP] // of every device; nil: none
}

// allowed is how long a read may take when its streamer dies.
const allowed = slowdown * 200 * time.Millisecond

const portal = "198.18.0.10:3260"

// newFarm starts streamers s1, s2, … whose first block of content is changed as told.
func newFarm(t *testing.T, changed ...bool) *farm {
	t.Helper()
	l := lab.ForTest(t)
	lab.Need(t, "tgtd", "tgtadm", "iscsi-ls", "iscsi-perf", "iscsi-readcapacity16")
	lan := l.Segment("lan")
	f := &farm{lab: l, content: make([]byte, 8<<20), agents: make(map[string]*lab.Process), state: make(map[string]string),
		cables: make(map[string]*lab.Cable)}
	rnd := rand.NewChaCha8([32]byte{1})
	rnd.Read(f.content)
	appliance := l.Host("a")
	appliance.Join(lan, "198.18.0.10/24")
	f.client = l.Host("t1")
	f.client.Join(lan, "198.18.0.51/24")
	f.fleet = newFleet(t, streamer.DirectorConfig{
		Listen: []string{portal}, Hold: 2 * time.Second, ListenFunc: appliance.Listen, Dial: appliance.Dial,
		CHAP: func(site.MAC) (streamer.CHAP, bool) {
			c := f.secrets.Load()
			if c == nil {
				return streamer.CHAP{}, false
			}
			return *c, true
		},
	})
	for i, other := range changed {
		f.start(lan, i+1, other)
	}
	t.Cleanup(func() { f.stopped.Store(true) })
	go f.observe()
	for i, other := range changed {
		name := fmt.Sprintf("s%d", i+1)
		eventuallyLong(t, name+" is in the view", func() bool {
			s := f.view.Load().Streamers[name]
			return len(s.Replicas) == 1 && (s.Replicas[0].Digest == f.digest()) != other
		})
	}
	return f
}

func eventuallyLong(t *testing.T, what string, f func() bool) {
	t.Helper()
	if err := lab.Eventually(patience, what, f); err != nil {
		t.Fatal(err)
	}
}

func (f *farm) digest() site.Digest {
	for _, v := range f.view.Load().VDisks["debian"].Versions {
		return v.Digest
	}
	return ""
}

func (f *farm) start(lan *lab.Segment, number int, other bool) {
	f.t.Helper()
	name, address := fmt.Sprintf("s%d", number), fmt.Sprintf("198.18.0.2%d", number)
	host := f.lab.Host(name)
	f.cables[name] = host.Join(lan, address+"/24")
	dir := filepath.Join(f.lab.Dir(), name)
	f.state[name] = dir
	replica := filepath.Join(dir, "store", "debian", "1")
	if err := os.MkdirAll(replica, 0o755); err != nil {
		f.t.Fatal(err)
	}
	content := bytes.Clone(f.content)
	if other {
		content[0] ^= 0xff
	}
	if err := os.WriteFile(filepath.Join(replica, "disk.raw"), content, 0o644); err != nil {
		f.t.Fatal(err)
	}
	settings, err := json.Marshal(agentSettings{Node: name, Address: address + ":3260", Store: filepath.Join(dir, "store"), State: dir})
	if err != nil {
		f.t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		f.t.Fatal(err)
	}
	f.agents[name] = host.StartWith(lab.Settings{Env: []string{envAgent + "=" + string(settings)}}, "agent", self)
	eventuallyLong(f.t, name+" announces a replica", func() bool {
		s, ok := f.announced(name)
		return ok && len(s.Replicas) == 1
	})
}

func (f *farm) announced(name string) (site.Streamer, bool) {
	var s site.Streamer
	b, err := os.ReadFile(filepath.Join(f.state[name], "announced"))
	return s, err == nil && json.Unmarshal(b, &s) == nil
}

// observe makes views of what the agents announce. Its probe believes them, so that the director must find out about a death itself.
func (f *farm) observe() {
	for ; !f.stopped.Load(); time.Sleep(50 * time.Millisecond) {
		old := f.view.Load()
		content := site.Content{VDisks: []site.VDisk{{Name: "debian"}}}
		for _, d := range old.Devices {
			content.Devices = append(content.Devices, d)
		}
		seen := site.Observed{Streamers: make(map[string]site.Check)}
		for name := range f.state {
			seen.Streamers[name] = site.Check{Health: site.Down}
			if s, ok := f.announced(name); ok {
				content.Streamers = append(content.Streamers, s)
				seen.Streamers[name] = site.Check{Health: site.Up}
			}
		}
		v := site.Merge(old, &content, site.Registry{Kind: "embedded", Reachable: true}, seen, time.Now())
		f.view.Store(v)
		f.director.Update(v)
	}
}

func (f *farm) iqn() string { return site.NameTarget("berlin", "debian", 1, f.digest()).IQN() }

func (f *farm) dial(ctx context.Context, address string) (*iscsi.Session, error) {
	return iscsi.Dial(ctx, address, iscsi.Config{InitiatorName: site.InitiatorName(t1), TargetName: f.iqn(), Dial: f.client.Dial})
}

// serving returns the streamer of a device's session.
func (f *farm) serving(mac site.MAC) string {
	for _, s := range f.director.Sessions() {
		if s.Device == mac {
			return s.Streamer
		}
	}
	return ""
}

// enginePID is the process number of a streamer's tgtd.
func (f *farm) enginePID(name string) int {
	f.t.Helper()
	var found []int
	children, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", f.agents[name].PID()))
	for _, path := range children {
		b, _ := os.ReadFile(path)
		for _, field := range strings.Fields(string(b)) {
			if comm, _ := os.ReadFile("/proc/" + field + "/comm"); strings.TrimSpace(string(comm)) == "tgtd" {
				pid, _ := strconv.Atoi(field)
				found = append(found, pid)
			}
		}
	}
	if len(found) != 1 {
		f.t.Fatalf("%s has %d tgtd", name, len(found))
	}
	return found[0]
}

// killEngine sends SIGKILL to the tgtd of a streamer.
func (f *farm) killEngine(name string) {
	f.t.Helper()
	syscall.Kill(f.enginePID(name), syscall.SIGKILL)
}

// gone waits until a process is no more.
func gone(t *testing.T, pid int) {
	t.Helper()
	eventuallyLong(t, "the end of tgtd", func() bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) })
}

// reader reads random blocks until its context ends, logs in again whenever it must, and remembers its longest stall over a login.
// (Without one a read may be slow as well, because the machine is busy.)
type reader struct {
	stall  time.Duration
	reads  atomic.Int64
	logins int
	err    error
}

func (f *farm) read(ctx context.Context, r *reader) {
	var s *iscsi.Session
	last, back := time.Now(), false
	for ctx.Err() == nil {
		if s == nil {
			back = r.logins > 0
			var err error
			if s, err = f.dial(ctx, portal); err != nil {
				s = nil
				var refused *iscsi.LoginError
				if errors.As(err, &refused) {
					r.err = err
					return
				}
				continue
			}
			r.logins++
		}
		lba := rand.Uint64N(uint64(len(f.content)/512) - 8)
		b, err := s.ReadBlocks(ctx, lba, 8)
		if err != nil {
			s.Close()
			s = nil
			continue
		}
		if !bytes.Equal(b, f.content[lba*512:lba*512+4096]) {
			r.err = fmt.Errorf("wrong content at block %d", lba)
			return
		}
		if back {
			r.stall = max(r.stall, time.Since(last))
		}
		last, back = time.Now(), false
		r.reads.Add(1)
	}
	if s != nil {
		s.Close()
	}
}

// during reads while f happens, and some hundred times after it.
func (f *farm) during(what func()) *reader {
	f.t.Helper()
	ctx, cancel := context.WithCancel(f.t.Context())
	defer cancel()
	r, done := new(reader), make(chan struct{})
	go func() { defer close(done); f.read(ctx, r) }()
	more := func() {
		n := r.reads.Load()
		eventuallyLong(f.t, "300 more reads", func() bool { return r.reads.Load() > n+300 })
	}
	more()
	what()
	more()
	cancel()
	<-done
	if r.err != nil {
		f.t.Errorf("reading: %v", r.err)
	}
	f.t.Logf("%d reads, %d logins, longest stall %v", r.reads.Load(), r.logins, r.stall)
	return r
}
