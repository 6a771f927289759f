package streamer_test

import (
	"context"
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
	stop     context.CancelFunc
	end      func() // stop, and wait for it
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
	f.stop = cancel
	done := make(chan error, 1)
	go func() { done <- f.director.Run(ctx) }()
	f.end = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(f.end)
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
