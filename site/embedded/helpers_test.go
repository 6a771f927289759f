package embedded

import (
	"context"
	"net/netip"
	"strings"
	"testing"

	"everboot/site"
)

func device(mac, name string) site.Device {
	m, err := site.ParseMAC(mac)
	if err != nil {
		panic(err)
	}
	return site.Device{MAC: m, Name: name}
}

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
}

// start runs a registry until the test ends and returns what it tells.
func start(t testing.TB, cfg Config) (*Registry, <-chan told) {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	cfg.Site = "berlin"
	r, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	changes, done := make(chan told, 1000), make(chan error, 1)
	go func() {
		done <- r.Run(ctx, func(c site.Content, about site.Registry) { changes <- told{c, about} })
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		close(changes)
	})
	<-r.Ready()
	return r, changes
}

// drain reads changes that nobody looks at.
func drain(changes <-chan told) {
	for range changes {
	}
}

func names(streamers []site.Streamer) string {
	var list []string
	for _, s := range streamers {
		list = append(list, s.Name+"="+string(s.State))
	}
	return strings.Join(list, " ")
}
