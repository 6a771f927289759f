package consul_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"everboot/internal/lab"
	"everboot/internal/lab/consulagent"
	"everboot/site"
	"everboot/site/consul"
)

func TestMain(m *testing.M) { os.Exit(lab.TestMain(m)) }

const (
	timeout = 20 * time.Second
	mac1    = "52:54:00:00:00:01"
)

func streamer(name string) site.Streamer {
	return site.Streamer{
		Name: name, Site: "berlin", Addresses: []netip.AddrPort{netip.MustParseAddrPort("198.18.0.21:3260")}, Power: 1, State: site.Active,
		Replicas: []site.Replica{{VDisk: "debian", Version: 1, Digest: site.Digest(strings.Repeat("ab", 32)), Size: 1 << 30}},
	}
}

// told is one call of changed.
type told struct {
	content site.Content
	about   site.Registry
	at      time.Time
}

// watcher is a registry that runs, and what it told.
type watcher struct {
	*consul.Registry
	t *testing.T

	mu   sync.Mutex
	told []told
}

func logger(t *testing.T) *slog.Logger { return slog.New(slog.NewTextHandler(t.Output(), nil)) }

func config(t *testing.T, a *consulagent.Agent) consul.Config {
	return consul.Config{Address: a.Address, Site: "berlin", Dial: a.Host.Dial, Log: logger(t)}
}

func watch(t *testing.T, a *consulagent.Agent) *watcher {
	t.Helper()
	return watchWith(t, config(t, a))
}

func watchWith(t *testing.T, cfg consul.Config) *watcher {
	t.Helper()
	r, err := consul.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	w := &watcher{Registry: r, t: t}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- r.Run(ctx, func(c site.Content, about site.Registry) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.told = append(w.told, told{c, about, time.Now()})
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return w
}

func (w *watcher) last() told {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.told) == 0 {
		return told{}
	}
	return w.told[len(w.told)-1]
}

// all returns all that was told.
func (w *watcher) all() []told {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.told)
}

// wait waits until what was told last is as wanted and returns it.
func (w *watcher) wait(what string, good func(told) bool) told {
	w.t.Helper()
	var got told
	if err := lab.Eventually(timeout, what, func() bool { got = w.last(); return good(got) }); err != nil {
		w.t.Fatalf("%v; told last: %+v", err, w.last())
	}
	return got
}

func (w *watcher) put(kind site.Kind, key, value string) {
	w.t.Helper()
	if err := w.Put(w.t.Context(), kind, key, []byte(value)); err != nil {
		w.t.Fatal(err)
	}
}

// client is Consul's own client, for what everboot does not do.
func client(t *testing.T, a *consulagent.Agent) *api.Client {
	t.Helper()
	http := a.Host.HTTP()
	t.Cleanup(http.CloseIdleConnections)
	c, err := api.NewClient(&api.Config{Address: a.Address, Scheme: "http", HttpClient: http})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func registrar(t *testing.T, a *consulagent.Agent) *consul.Registrar {
	t.Helper()
	r, err := consul.NewRegistrar(consul.RegistrarConfig{Config: config(t, a), SessionTTL: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

func streamers(want string) func(told) bool {
	return func(got told) bool {
		var list []string
		for _, s := range got.content.Streamers {
			list = append(list, fmt.Sprintf("%s=%s/%d", s.Name, s.State, s.Sessions))
		}
		return got.about.Reachable && strings.Join(list, " ") == want
	}
}

// announceAlways announces streamer s1 three times a second, as an agent would, until the test ends. What it returns says when that last worked.
func announceAlways(t *testing.T, a *consulagent.Agent) func() time.Time {
	t.Helper()
	cfg := config(t, a)
	r, err := consul.NewRegistrar(consul.RegistrarConfig{Config: cfg})
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var last time.Time
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			if _, err := r.Announce(ctx, streamer("s1")); err == nil {
				mu.Lock()
				last = time.Now()
				mu.Unlock()
			}
			select {
			case <-time.After(300 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-done; r.Close() })
	return func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return last
	}
}
