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

// killEngine sends SIGKILL to the tgtd of a streamer.
func (f *farm) killEngine(name string) {
	f.t.Helper()
	killed := 0
	children, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", f.agents[name].PID()))
	for _, path := range children {
		b, _ := os.ReadFile(path)
		for _, field := range strings.Fields(string(b)) {
			if comm, _ := os.ReadFile("/proc/" + field + "/comm"); strings.TrimSpace(string(comm)) == "tgtd" {
				pid, _ := strconv.Atoi(field)
				syscall.Kill(pid, syscall.SIGKILL)
				killed++
			}
		}
	}
	if killed != 1 {
		f.t.Fatalf("killed %d tgtd of %s", killed, name)
	}
}

// reader reads random blocks until its context ends, logs in again whenever it must, and remembers its longest stall.
type reader struct {
	stall  time.Duration
	reads  atomic.Int64
	logins int
	err    error
}

func (f *farm) read(ctx context.Context, r *reader) {
	var s *iscsi.Session
	last := time.Now()
	for ctx.Err() == nil {
		if s == nil {
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
		r.stall = max(r.stall, time.Since(last))
		last = time.Now()
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

func TestLabSameDiskEverywhere(t *testing.T) {
	f := newFarm(t, false, false)
	see := func(address string) (pages [][]byte) {
		s, err := f.dial(t.Context(), address)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		b, err := s.Inquiry(t.Context())
		pages = append(pages, b)
		for _, page := range []byte{0x80, 0x83, 0xb0, 0xb1, 0xb2} {
			if err == nil {
				b, err = s.InquiryPage(t.Context(), page)
				pages = append(pages, b)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := s.Keys.Get("DefaultTime2Wait"); ok && got != "0" {
			t.Errorf("%s: DefaultTime2Wait is %s", address, got)
		}
		var refused *iscsi.SCSIError
		_, err = s.Do(t.Context(), iscsi.WriteCommand(0, make([]byte, 512), 512))
		if !errors.As(err, &refused) || refused.Key != iscsi.SenseDataProtect {
			t.Errorf("%s: a write is answered with %v", address, err)
		}
		if b, err := s.ReadBlocks(t.Context(), 0, 8); err != nil || !bytes.Equal(b, f.content[:4096]) {
			t.Errorf("%s: block 0: %v", address, err)
		}
		return pages
	}
	first, second := see("198.18.0.21:3260"), see("198.18.0.22:3260")
	for i := range first {
		if !bytes.Equal(first[i], second[i]) {
			t.Errorf("INQUIRY %d differs:\n%x\n%x", i, first[i], second[i])
		}
	}
	name := site.InitiatorName(t1)
	out, err := f.client.Run(t.Context(), "iscsi-ls", "-i", name, "-s", "iscsi://"+portal)
	if err != nil || !strings.Contains(out, "Target:"+f.iqn()+" Portal:"+portal) || !strings.Contains(out, "Size:7M") {
		t.Errorf("iscsi-ls through the director: %v\n%s", err, out)
	}
	out, err = f.client.Run(t.Context(), "iscsi-readcapacity16", "-i", name, "iscsi://"+portal+"/"+f.iqn()+"/1")
	if err != nil || !strings.Contains(out, "8388608") {
		t.Errorf("iscsi-readcapacity16 through the director: %v\n%s", err, out)
	}
}

func TestLabStreamerKilled(t *testing.T) {
	for _, tt := range []struct {
		name string
		kill func(f *farm, name string)
		back bool
	}{
		{"the target program", func(f *farm, name string) { f.killEngine(name) }, true},
		{"the agent", func(f *farm, name string) { f.agents[name].Kill() }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFarm(t, false, false)
			other := t1
			other[5] = 2
			perf := f.client.Start("perf", "iscsi-perf", "-i", site.InitiatorName(other), "iscsi://"+portal+"/"+f.iqn()+"/1")
			defer perf.Kill()
			eventuallyLong(t, "libiscsi reads", func() bool { return f.serving(other) != "" })
			r := f.during(func() {
				name := f.serving(t1)
				tt.kill(f, name)
				eventuallyLong(t, "the reader is elsewhere", func() bool { s := f.serving(t1); return s != "" && s != name })
			})
			if r.stall > allowed || r.logins != 2 {
				t.Errorf("longest stall %v with %d logins, want under %v with 2", r.stall, r.logins, allowed)
			}
			f.killAndWatch(other, tt.back)
			if !perf.Running() {
				t.Errorf("iscsi-perf gave up:\n%s", perf.Log())
			}
		})
	}
}

// killAndWatch kills libiscsi's streamer if another is there, and measures how long it stays away.
func (f *farm) killAndWatch(mac site.MAC, back bool) {
	f.t.Helper()
	if back {
		eventuallyLong(f.t, "both streamers serve", func() bool {
			a, _ := f.announced("s1")
			b, _ := f.announced("s2")
			return len(a.Replicas) == 1 && len(b.Replicas) == 1
		})
		name := f.serving(mac)
		f.killEngine(name)
		eventuallyLong(f.t, "libiscsi is elsewhere", func() bool { s := f.serving(mac); return s != "" && s != name })
	}
	var closed time.Time
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range f.events {
		switch {
		case e.MAC != mac:
		case e.What == "failover":
			f.t.Logf("libiscsi: %s", e.Detail)
			if away := e.At.Sub(closed); !closed.IsZero() && away > allowed {
				f.t.Errorf("libiscsi was away for %v", away)
			}
		case e.What == "closed":
			closed = e.At
		}
	}
}

func TestLabOtherDigestIsNeverPicked(t *testing.T) {
	f := newFarm(t, false, true)
	f.during(func() {})
	f.agents["s1"].Kill()
	if _, err := f.dial(t.Context(), portal); err == nil {
		t.Error("a login succeeded")
	}
	if reasons := f.director.Stats().Logins; reasons[site.NoHealthyStreamer]+reasons[site.DigestDiffers] != 1 {
		t.Errorf("reasons: %v", reasons)
	}
	for _, e := range f.events {
		if e.What == "login" && !strings.Contains(e.Detail, "from s1") {
			t.Errorf("event: %v", e)
		}
	}
}

func TestLabDrain(t *testing.T) {
	f := newFarm(t, false, false)
	r := f.during(func() {
		name := f.serving(t1)
		if err := os.WriteFile(filepath.Join(f.state[name], "wanted"), []byte(site.Draining), 0o644); err != nil {
			t.Fatal(err)
		}
		eventuallyLong(t, "the session moves", func() bool { s := f.serving(t1); return s != "" && s != name })
		if err := os.WriteFile(filepath.Join(f.state[name], "wanted"), []byte(site.Active), 0o644); err != nil {
			t.Fatal(err)
		}
		eventuallyLong(t, "it is active again", func() bool { return f.view.Load().Streamers[name].State == site.Active })
		name = f.serving(t1)
		start := time.Now()
		if err := f.agents[name].Stop(8 * time.Second); err != nil {
			t.Errorf("stopping the agent: %v", err)
		}
		t.Logf("the agent stopped in %v", time.Since(start))
		if _, ok := f.announced(name); ok {
			t.Error("it is still announced")
		}
	})
	if r.stall > allowed || r.logins != 3 {
		t.Errorf("longest stall %v with %d logins, want under %v with 3", r.stall, r.logins, allowed)
	}
}

// TestLabStreamerFallsSilent: nobody tells the director that the streamer's cable is cut; its own keepalive does.
func TestLabStreamerFallsSilent(t *testing.T) {
	f := newFarm(t, false, false)
	r := f.during(func() {
		name := f.serving(t1)
		f.cables[name].Silence(true)
		eventuallyLong(t, "the session moves", func() bool { s := f.serving(t1); return s != "" && s != name })
	})
	if r.stall > 4*time.Second || r.logins != 2 {
		t.Errorf("longest stall %v with %d logins, want under 4 s with 2", r.stall, r.logins)
	}
}

func TestLabReplicaWrittenOverIsWithdrawn(t *testing.T) {
	f := newFarm(t, false, false)
	r := f.during(func() {
		name := f.serving(t1)
		path := filepath.Join(f.state[name], "store/debian/1/disk.raw")
		now := time.Now() // the content stays, so that the reader has nothing to complain about
		if err := os.Chtimes(path, now, now); err != nil {
			t.Fatal(err)
		}
		eventuallyLong(t, "the session moves", func() bool { s := f.serving(t1); return s != "" && s != name })
		eventuallyLong(t, "the replica is read and served again", func() bool {
			s, ok := f.announced(name)
			return ok && len(s.Replicas) == 1
		})
		folder := filepath.Join(f.state[name], "store/windows/3")
		if err := os.MkdirAll(folder, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(folder, "disk.raw.partial"), make([]byte, 1<<20), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(folder, "disk.raw.partial"), filepath.Join(folder, "disk.raw")); err != nil {
			t.Fatal(err)
		}
		eventuallyLong(t, "a new replica is served too", func() bool {
			s, ok := f.announced(name)
			return ok && len(s.Replicas) == 2
		})
	})
	if r.stall > 2*allowed { // tgt ends the commands under way first
		t.Errorf("longest stall %v", r.stall)
	}
}

func TestLabPortTaken(t *testing.T) {
	l := lab.ForTest(t)
	lab.Need(t, "tgtd", "tgtadm")
	host := l.Host("s1")
	host.Join(l.Segment("lan"), "198.18.0.21/24")
	taken, err := host.Listen("tcp", "198.18.0.21:3260")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	settings := fmt.Sprintf(`{"Node": "s1", "Address": "198.18.0.21:3260", "Store": %q, "State": %[1]q}`, t.TempDir())
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	agent := host.StartWith(lab.Settings{Env: []string{envAgent + "=" + settings}}, "agent", self)
	agent.Wait(patience)
	if agent.ExitCode() != 1 || !strings.Contains(agent.Log(), "198.18.0.21:3260") || !strings.Contains(agent.Log(), "port free") {
		t.Errorf("exit code %d:\n%s", agent.ExitCode(), agent.Log())
	}
}
