package vip_test

import (
	"context"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"everboot/internal/lab"
	"everboot/vip"
)

const (
	floating = "198.18.0.10"
	interval = 100 * time.Millisecond
	// busy is what a loaded test machine may add to any time that is measured.
	busy = 500 * time.Millisecond
	// patience is for what must happen, at whatever time.
	patience = 15 * time.Second
	// lifetime is the longest time for which an address was to outlive everybody who could remove it: the lifetime of 3 s, and
	// the 0.26 s by which Linux was seen to be late.
	lifetime = 3*time.Second + 260*time.Millisecond
)

// site is a segment with two hosts for routers, and a client.
type site struct {
	*lab.Lab
	t         *testing.T
	seg       *lab.Segment
	a, b, c   *lab.Host
	cableA    *lab.Cable
	cableB    *lab.Cable
	processes int
	// connections is the file in which workers find the connections of the address.
	connections string
}

func newSite(t *testing.T) *site {
	l := lab.ForTest(t)
	s := &site{Lab: l, t: t, connections: filepath.Join(t.TempDir(), "connections"), seg: l.Segment("lan"), a: l.Host("a"), b: l.Host("b"), c: l.Host("c")}
	s.cableA = s.a.Join(s.seg, "198.18.0.2/24")
	s.cableB = s.b.Join(s.seg, "198.18.0.3/24")
	s.c.Join(s.seg, "198.18.0.4/24")
	return s
}

func config(priority int) vip.Config {
	return vip.Config{
		Interface: "eth0", Addresses: []netip.Prefix{netip.MustParsePrefix(floating + "/24")},
		VRID: 51, Priority: priority, AdvertInterval: interval,
	}
}

// start runs this test binary in a role on the host.
func (s *site) start(h *lab.Host, role string, cfg vip.Config) *lab.Process {
	s.t.Helper()
	self, err := os.Executable()
	if err != nil {
		s.t.Fatal(err)
	}
	text, err := json.Marshal(cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	s.processes++
	name := role + strconv.Itoa(s.processes)
	return h.StartWith(lab.Settings{Env: []string{envRole + "=" + role, envConfig + "=" + string(text), envConnections + "=" + s.connections}}, name, self)
}

func (s *site) expect(p *lab.Process, pattern string) []string {
	s.t.Helper()
	match, err := p.Expect(pattern, patience)
	if err != nil {
		s.t.Fatal(err)
	}
	return match
}

// within waits until f is true and returns how long that took. It fails the test after the limit and busy.
func (s *site) within(limit time.Duration, what string, f func() bool) time.Duration {
	s.t.Helper()
	began := time.Now()
	if err := lab.Eventually(limit+busy, what, f); err != nil {
		s.t.Fatal(err)
	}
	took := time.Since(began)
	s.t.Logf("%s: after %s", what, took.Round(time.Millisecond))
	return took
}

func (s *site) run(h *lab.Host, argv ...string) string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	out, err := h.Run(ctx, argv...)
	if err != nil {
		s.t.Fatalf("%s: %v", argv, err)
	}
	return out
}

func (s *site) signal(pid string, sig syscall.Signal) {
	s.t.Helper()
	n, err := strconv.Atoi(pid)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := syscall.Kill(n, sig); err != nil {
		s.t.Fatal(err)
	}
}

func has(h *lab.Host) func() bool   { return func() bool { return h.Has(floating) } }
func not(f func() bool) func() bool { return func() bool { return !f() } }

// expectOneOwner holds for two seconds that exactly this host has the address.
func (s *site) expectOneOwner(owner, other *lab.Host) {
	s.t.Helper()
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if !owner.Has(floating) || other.Has(floating) {
			s.t.Fatalf("%s has the address: %t; %s has it: %t", owner.Name(), owner.Has(floating), other.Name(), other.Has(floating))
		}
	}
}

// clientSendsTo holds that what the client sends to the address goes to that end of a cable. The client is not made to ask: but
// for the first time it is the gratuitous ARP that tells it.
func (s *site) clientSendsTo(c *lab.Cable) {
	s.t.Helper()
	conn, err := s.c.Dial(s.t.Context(), "udp", floating+":9")
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("hello")); err != nil {
		s.t.Fatal(err)
	}
	s.within(0, "the client sends to "+c.MAC().String(), func() bool {
		return strings.Contains(s.run(s.c, "ip", "neigh", "show", floating), c.MAC().String())
	})
}
