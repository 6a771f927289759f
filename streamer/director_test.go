package streamer_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"everboot/internal/iscsi"
	"everboot/internal/iscsi/iscsitest"
	"everboot/site"
	"everboot/streamer"
)

const digest = site.Digest("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef")

var (
	t1     = site.MAC{0x52, 0x54, 0, 0, 0, 1}
	target = site.NameTarget("berlin", "debian", 1, digest).IQN()
)

// fleet is a director with streamers in this process.
type fleet struct {
	t        *testing.T
	director *streamer.Director
	address  string
	mu       sync.Mutex
	view     atomic.Pointer[site.View]
	events   []site.Event
}

func newFleet(t *testing.T, cfg streamer.DirectorConfig) *fleet {
	t.Helper()
	if cfg.ListenFunc == nil { // the lab has goroutines of its own
		before := goleak.IgnoreCurrent()
		t.Cleanup(func() { goleak.VerifyNone(t, before) })
	}
	f := &fleet{t: t}
	v := site.Empty("berlin", "embedded")
	v.Registry.Reachable = true
	for i := range 100 {
		mac := t1
		mac[5] = byte(i + 1)
		v.Devices[mac] = site.Device{MAC: mac, VDisk: "debian"}
	}
	v.VDisks["debian"] = site.VDisk{Name: "debian", Versions: []site.Version{{Number: 1, Digest: digest}}}
	f.view.Store(v)
	listen := cfg.ListenFunc
	if listen == nil {
		cfg.Listen, listen = []string{"127.0.0.1:0"}, net.Listen
	}
	cfg.ListenFunc = func(network, address string) (net.Listener, error) {
		l, err := listen(network, address)
		if err == nil {
			f.address = l.Addr().String()
		}
		return l, err
	}
	var err error
	f.director, err = streamer.NewDirector(cfg, f.view.Load, f.event, slog.New(slog.NewTextHandler(testWriter{t}, nil)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.director.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	<-f.director.Ready()
	return f
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

func (f *fleet) event(e site.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.events = append(f.events, e)
}

// saw reports whether an event of that kind came whose detail holds the text.
func (f *fleet) saw(what, detail string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.ContainsFunc(f.events, func(e site.Event) bool { return e.What == what && strings.Contains(e.Detail, detail) })
}

// change makes a new view of the last one, and tells the director.
func (f *fleet) change(change func(v *site.View)) {
	v := *f.view.Load()
	streamers := make(map[string]site.Streamer)
	for name, s := range v.Streamers {
		streamers[name] = s
	}
	v.Streamers = streamers
	v.Epoch++
	change(&v)
	f.view.Store(&v)
	f.director.Update(&v)
}

func (f *fleet) set(name string, change func(s *site.Streamer)) {
	f.change(func(v *site.View) {
		s := v.Streamers[name]
		change(&s)
		v.Streamers[name] = s
	})
}

func health(h site.Health) func(*site.Streamer) {
	return func(s *site.Streamer) { s.Check.Health = h }
}

// add starts a streamer, and returns it with a function that kills it.
func (f *fleet) add(name string) (*iscsitest.Target, func()) {
	f.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.t.Fatal(err)
	}
	target := &iscsitest.Target{Name: target, Content: make([]byte, 64<<10), Serial: name}
	done := make(chan struct{})
	go func() { defer close(done); target.Serve(l) }()
	kill := func() { l.Close(); <-done }
	f.t.Cleanup(kill)
	f.announce(name, l.Addr().String(), digest)
	return target, kill
}

func (f *fleet) announce(name, address string, d site.Digest) {
	f.set(name, func(s *site.Streamer) {
		*s = site.Streamer{
			Name: name, Site: "berlin", Addresses: []netip.AddrPort{netip.MustParseAddrPort(address)}, State: site.Active,
			Replicas: []site.Replica{{VDisk: "debian", Version: 1, Digest: d}}, Check: site.Check{Health: site.Up},
		}
	})
}

func (f *fleet) config(mac site.MAC) iscsi.Config {
	return iscsi.Config{InitiatorName: site.InitiatorName(mac), TargetName: target}
}

func (f *fleet) login(mac site.MAC) (*iscsi.Session, error) {
	ctx, cancel := context.WithTimeout(f.t.Context(), 10*time.Second)
	defer cancel()
	s, err := iscsi.Dial(ctx, f.address, f.config(mac))
	if err == nil {
		f.t.Cleanup(func() { s.Close() })
	}
	return s, err
}

func (f *fleet) mustLogin(mac site.MAC) (*iscsi.Session, string) {
	f.t.Helper()
	s, err := f.login(mac)
	if err != nil {
		f.t.Fatal(err)
	}
	b, err := s.InquiryPage(f.t.Context(), 0x80)
	if err != nil {
		f.t.Fatal(err)
	}
	return s, string(b[4:])
}

// eventually waits for what happens on another goroutine.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: did not happen in 10 s", what)
		}
	}
}

func TestSessionGoesThrough(t *testing.T) {
	f := newFleet(t, streamer.DirectorConfig{})
	f.add("s1")
	s, name := f.mustLogin(t1)
	if name != "s1" {
		t.Errorf("served by %s", name)
	}
	if b, err := s.ReadBlocks(t.Context(), 0, 64); err != nil || len(b) != 64*512 {
		t.Errorf("reading: %v", err)
	}
	list := f.director.Sessions()
	if len(list) != 1 || list[0].Device != t1 || list[0].Streamer != "s1" || list[0].BytesOut < 64*512 || list[0].BytesIn == 0 {
		t.Errorf("sessions: %+v", list)
	}
	if err := s.Logout(t.Context()); err != nil {
		t.Errorf("logout through the director: %v", err)
	}
	eventually(t, "the session's end", func() bool { return len(f.director.Sessions()) == 0 })
	if got := f.director.Stats(); got.Logins[site.Picked] != 1 || got.Failovers != 0 {
		t.Errorf("stats: %+v", got)
	}
	if !f.saw("login", "debian version 1 from s1") {
		t.Errorf("events: %v", f.events)
	}
	eventually(t, "the closing is told", func() bool { return f.saw("closed", "s1") })
}

func TestLoginRefused(t *testing.T) {
	unknown := site.MAC{0x52, 0x54, 0, 0, 9, 9}
	for _, tt := range []struct {
		name              string
		initiator, target string
		want              iscsi.Status
		reason            site.Reason
	}{
		{"unknown device", site.InitiatorName(unknown), target, iscsi.StatusAuthentication, site.UnknownDevice},
		{"not one of our names", "iqn.1993-08.org.debian:01:abc", target, iscsi.StatusAuthentication, site.MalformedInitiator},
		{"another vDisk", site.InitiatorName(t1), site.NameTarget("berlin", "windows", 1, digest).IQN(), iscsi.StatusAuthorization, site.NotItsVDisk},
		{"another site", site.InitiatorName(t1), site.NameTarget("paris", "debian", 1, digest).IQN(), iscsi.StatusNotFound, site.OtherSite},
		{"not a target", site.InitiatorName(t1), "iqn.2001-04.com.example:x", iscsi.StatusNotFound, site.MalformedTarget},
		{"a version that nobody has", site.InitiatorName(t1), site.NameTarget("berlin", "debian", 2, digest).IQN(), iscsi.StatusUnavailable, site.NoReplica},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFleet(t, streamer.DirectorConfig{Hold: 10 * time.Millisecond})
			f.add("s1")
			_, err := iscsi.Dial(t.Context(), f.address, iscsi.Config{InitiatorName: tt.initiator, TargetName: tt.target})
			var refused *iscsi.LoginError
			if !errors.As(err, &refused) || refused.Status != tt.want {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if !f.saw("refused", string(tt.reason)) || f.director.Stats().Logins[tt.reason] != 1 {
				t.Errorf("events %v, stats %+v: want reason %s", f.events, f.director.Stats(), tt.reason)
			}
		})
	}
}

func TestDeadStreamerClosesSessionAtOnce(t *testing.T) {
	f := newFleet(t, streamer.DirectorConfig{})
	_, kill1 := f.add("s1")
	s, _ := f.mustLogin(t1)
	f.add("s2")
	kill1()
	start := time.Now()
	_, err := s.ReadBlocks(t.Context(), 0, 1)
	if err == nil || time.Since(start) > 100*time.Millisecond {
		t.Errorf("error %v after %v, want one at once", err, time.Since(start))
	}
	again, name := f.mustLogin(t1) // the view still says that s1 is up
	if name != "s2" {
		t.Errorf("served by %s", name)
	}
	if took := time.Since(start); took > 200*time.Millisecond {
		t.Errorf("back after %v", took)
	}
	if _, err := again.ReadBlocks(t.Context(), 0, 1); err != nil {
		t.Error(err)
	}
	if !f.saw("failover", "from s1 to s2") || f.director.Sessions()[0].Failovers != 1 {
		t.Errorf("events %v, sessions %+v", f.events, f.director.Sessions())
	}
}

func TestUpdateClosesSessionsOfWhatIsDown(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(f *fleet)
	}{
		{"down", func(f *fleet) { f.set("s1", health(site.Down)) }},
		{"gone", func(f *fleet) { f.change(func(v *site.View) { delete(v.Streamers, "s1") }) }},
		{"draining", func(f *fleet) { f.set("s1", func(s *site.Streamer) { s.State = site.Draining }) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFleet(t, streamer.DirectorConfig{})
			f.add("s1")
			s, _ := f.mustLogin(t1)
			tt.change(f)
			if _, err := s.ReadBlocks(t.Context(), 0, 1); err != nil {
				t.Fatalf("closed although nobody else could serve it: %v", err)
			}
			f.add("s2")
			eventually(t, "the end of the session", func() bool { return len(f.director.Sessions()) == 0 })
			if _, err := s.ReadBlocks(t.Context(), 0, 1); err == nil {
				t.Error("the session still reads")
			}
			if _, name := f.mustLogin(t1); name != "s2" {
				t.Errorf("served by %s", name)
			}
		})
	}
}

func TestLoginHeldUntilStreamerComes(t *testing.T) {
	f := newFleet(t, streamer.DirectorConfig{Hold: 10 * time.Second})
	done := make(chan error, 1)
	go func() { _, err := f.login(t1); done <- err }()
	eventually(t, "the login is held", func() bool { return f.director.Stats().Holding == 1 })
	f.add("s1")
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestLoginHeldUntilStreamerAnswersAgain(t *testing.T) {
	f := newFleet(t, streamer.DirectorConfig{Hold: 10 * time.Second})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close() // the view says that s1 is up, but it is not
	f.announce("s1", address, digest)
	done := make(chan error, 1)
	go func() { _, err := f.login(t1); done <- err }()
	eventually(t, "the login is held", func() bool { return f.director.Stats().Holding == 1 })
	if l, err = net.Listen("tcp", address); err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		(&iscsitest.Target{Name: target, Content: make([]byte, 512)}).Serve(l)
	}()
	defer func() { l.Close(); <-served }()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestHeldLoginEnds(t *testing.T) {
	f := newFleet(t, streamer.DirectorConfig{Hold: 120 * time.Millisecond})
	start := time.Now()
	_, err := f.login(t1)
	var refused *iscsi.LoginError
	if !errors.As(err, &refused) || refused.Status != iscsi.StatusUnavailable || time.Since(start) < 120*time.Millisecond {
		t.Errorf("got %v after %v", err, time.Since(start))
	}
	conn, err := net.Dial("tcp", f.address)
	if err != nil {
		t.Fatal(err)
	}
	conn.Write(firstPDU(target))
	eventually(t, "the login is held", func() bool { return f.director.Stats().Holding == 1 })
	conn.Close()
	eventually(t, "the hang-up is seen", func() bool { return f.director.Stats().Drops[streamer.DropHungUp] == 1 })
}

func firstPDU(target string) []byte {
	keys := iscsi.Keys{{Name: "InitiatorName", Value: site.InitiatorName(t1)}, {Name: "TargetName", Value: target}}
	return iscsi.LoginRequest{Transit: true, Next: iscsi.StageOperational, Data: keys.Append(nil)}.PDU().Append(nil)
}

func TestStreamerThatRefusesOrHangsIsPassedOver(t *testing.T) {
	f := newFleet(t, streamer.DirectorConfig{DialTimeout: 50 * time.Millisecond})
	refusing, _ := f.add("s1")
	refusing.Refuse = iscsi.StatusNotFound
	hanging, err := net.Listen("tcp", "127.0.0.1:0") // the kernel takes the connection, nobody answers
	if err != nil {
		t.Fatal(err)
	}
	defer hanging.Close()
	f.announce("s2", hanging.Addr().String(), digest)
	f.add("s3")
	f.set("s3", func(s *site.Streamer) { s.Sessions = 50 }) // the last choice
	if _, name := f.mustLogin(t1); name != "s3" {
		t.Errorf("served by %s", name)
	}
}

func TestOtherDigestIsNeverPicked(t *testing.T) {
	f := newFleet(t, streamer.DirectorConfig{Hold: 60 * time.Millisecond})
	other, _ := f.add("s1")
	f.set("s1", func(s *site.Streamer) {
		s.Replicas = []site.Replica{{VDisk: "debian", Version: 1, Digest: "f" + digest[1:]}}
	})
	if _, err := f.login(t1); err == nil || other.Logins() != 0 {
		t.Errorf("login error %v, %d logins at the other digest", err, other.Logins())
	}
	if f.director.Stats().Logins[site.DigestDiffers] != 1 {
		t.Errorf("stats: %+v", f.director.Stats())
	}
}

func TestManyLoginsAtOnceSpreadEvenly(t *testing.T) {
	f := newFleet(t, streamer.DirectorConfig{})
	targets := make(map[string]*iscsitest.Target)
	for i := range 4 {
		name := fmt.Sprintf("s%d", i)
		targets[name], _ = f.add(name)
	}
	var all sync.WaitGroup
	for i := range 100 {
		mac := t1
		mac[5] = byte(i + 1)
		all.Go(func() {
			if _, err := f.login(mac); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for name, s := range targets {
		if s.Logins() != 25 {
			t.Errorf("%s has %d of 100 logins", name, s.Logins())
		}
	}
}

func TestSecondLoginReplacesFirst(t *testing.T) {
	f := newFleet(t, streamer.DirectorConfig{})
	f.add("s1")
	f.add("s2")
	first, _ := f.mustLogin(t1)
	second, _ := f.mustLogin(t1)
	if _, err := first.ReadBlocks(t.Context(), 0, 1); err == nil {
		t.Error("the first session still reads")
	}
	if _, err := second.ReadBlocks(t.Context(), 0, 1); err != nil {
		t.Error(err)
	}
	eventually(t, "one session is left", func() bool { return len(f.director.Sessions()) == 1 })
}

func TestDiscoveryListsTheDevicesTarget(t *testing.T) {
	f := newFleet(t, streamer.DirectorConfig{})
	cfg := f.config(t1)
	cfg.TargetName = ""
	s, err := iscsi.Dial(t.Context(), f.address, cfg)
	if err != nil {
		t.Fatal(err)
	}
	list, err := s.SendTargets(t.Context())
	if err != nil || len(list) != 1 || list[0].Name != target || !slices.Equal(list[0].Addresses, []string{f.address + ",1"}) {
		t.Errorf("got %v, %v", list, err)
	}
	if err := s.Logout(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestHostileInput(t *testing.T) {
	long := iscsi.LoginRequest{Data: make([]byte, 10000)}.PDU().Append(nil)
	for _, tt := range []struct {
		name string
		send []byte
		hang bool
		want streamer.Drop
	}{
		{"nothing", nil, false, streamer.DropHungUp},
		{"silence", nil, true, streamer.DropSlow},
		{"half a header", make([]byte, 20), true, streamer.DropSlow},
		{"another opcode", make([]byte, 48), false, streamer.DropMalformed},
		{"too long", long, false, streamer.DropOversized},
		{"no names", iscsi.LoginRequest{}.PDU().Append(nil), false, streamer.DropMalformed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := streamer.DirectorConfig{}
			if tt.hang {
				cfg.LoginTimeout = 50 * time.Millisecond
			}
			f := newFleet(t, cfg)
			conn, err := net.Dial("tcp", f.address)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.Write(tt.send)
			if !tt.hang {
				conn.(*net.TCPConn).CloseWrite()
			}
			eventually(t, "the drop is counted", func() bool { return f.director.Stats().Drops[tt.want] == 1 })
			if _, err := io.ReadAll(conn); err != nil && !strings.Contains(err.Error(), "reset") {
				t.Errorf("the connection stays: %v", err)
			}
		})
	}
}

func TestBoundOfLogins(t *testing.T) {
	f := newFleet(t, streamer.DirectorConfig{MaxLogins: 2})
	f.add("s1")
	for range 3 {
		if conn, err := net.Dial("tcp", f.address); err == nil { // the third may be reset before Dial returns
			defer conn.Close()
		}
	}
	eventually(t, "the third is dropped", func() bool { return f.director.Stats().Drops[streamer.DropTooMany] == 1 })
}

func TestStrands(t *testing.T) {
	f := newFleet(t, streamer.DirectorConfig{})
	f.add("s1")
	if got := streamer.Strands(f.view.Load(), "s1"); len(got) != 1 || got[0].VDisk != "debian" {
		t.Errorf("alone: %v", got)
	}
	f.add("s2")
	if got := streamer.Strands(f.view.Load(), "s1"); len(got) != 0 {
		t.Errorf("with a second: %v", got)
	}
}
