package health_test

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"everboot/health"
	"everboot/internal/iscsi"
	"everboot/internal/iscsi/iscsitest"

	"go.uber.org/goleak"
)

const iqn = "iqn.2026-11.internal.everboot:berlin:debian:1:0123456789abcdef"

// streamer serves a target on loopback. kill ends it as SIGKILL would.
func streamer(t *testing.T, target *iscsitest.Target) (address netip.AddrPort, kill func()) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { target.Serve(l); close(done) }()
	kill = func() {
		l.Close()
		target.Kill()
		<-done
	}
	t.Cleanup(kill)
	return l.Addr().(*net.TCPAddr).AddrPort(), kill
}

func newTarget() *iscsitest.Target { return &iscsitest.Target{Name: iqn, Content: make([]byte, 4096)} }

func TestISCSIKeepsItsSession(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	target := newTarget()
	address, kill := streamer(t, target)
	p := health.NewISCSI(health.ISCSIConfig{Node: "a", Addresses: []netip.AddrPort{address}, Targets: []string{iqn}})
	defer kill()
	defer p.Close()
	for range 50 {
		if err := p.Probe(t.Context()); err != nil {
			t.Fatal(err)
		}
		idle, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		if err := p.Watch(idle); err != nil {
			t.Fatal(err)
		}
		cancel()
	}
	if n := target.Logins(); n != 1 {
		t.Errorf("%d logins for 50 probes", n)
	}
}

// TestISCSIWatch: the death of an idle session is noticed at once, and the probe that follows fails at once.
func TestISCSIWatch(t *testing.T) {
	target := newTarget()
	address, kill := streamer(t, target)
	p := health.NewISCSI(health.ISCSIConfig{Node: "a", Addresses: []netip.AddrPort{address}, Targets: []string{iqn}})
	defer p.Close()
	if err := p.Watch(t.Context()); err != nil {
		t.Errorf("watched without a session: %v", err)
	}
	if err := p.Probe(t.Context()); err != nil {
		t.Fatal(err)
	}
	seen := make(chan error)
	go func() { seen <- p.Watch(t.Context()) }()
	kill()
	start := time.Now()
	select {
	case err := <-seen:
		if err == nil {
			t.Error("not noticed")
		}
	case <-time.After(5 * time.Second):
		t.Fatal("not noticed")
	}
	if err := p.Probe(t.Context()); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Error(err)
	}
	if took := time.Since(start); took > time.Second {
		t.Errorf("noticed after %v", took)
	}
}

// TestISCSIBrokenReplica: one replica that is missing does not make the streamer down, and is told of.
func TestISCSIBrokenReplica(t *testing.T) {
	address, _ := streamer(t, newTarget())
	missing := strings.Replace(iqn, "debian", "gone", 1)
	p := health.NewISCSI(health.ISCSIConfig{Node: "a", Addresses: []netip.AddrPort{address}, Targets: []string{missing, iqn}})
	defer p.Close()
	for range 40 { // more than once around
		if err := p.Probe(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if b := p.Broken(); len(b) != 1 || !strings.Contains(b[missing], "0x0203") {
		t.Errorf("broken: %v", b)
	}
	all := health.NewISCSI(health.ISCSIConfig{Node: "a", Addresses: []netip.AddrPort{address}, Targets: []string{missing, missing + "2"}})
	defer all.Close()
	if err := all.Probe(t.Context()); err == nil {
		t.Error("a streamer without one readable replica is up")
	}
}

// TestISCSIPortals: the second portal is tried within the time of one probe, even if the first is a black hole.
func TestISCSIPortals(t *testing.T) {
	target := newTarget()
	address, _ := streamer(t, target)
	hole := netip.MustParseAddrPort("127.0.0.1:1")
	dial := func(ctx context.Context, network, to string) (net.Conn, error) {
		if to == hole.String() {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return (&net.Dialer{}).DialContext(ctx, network, to)
	}
	p := health.NewISCSI(health.ISCSIConfig{Node: "a", Addresses: []netip.AddrPort{hole, address}, Targets: []string{iqn}, Dial: dial})
	defer p.Close()
	for range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		if err := p.Probe(ctx); err != nil {
			t.Error(err)
		}
		cancel()
	}
	none := health.NewISCSI(health.ISCSIConfig{Node: "a"})
	if err := none.Probe(t.Context()); err == nil || !strings.Contains(err.Error(), "no address") {
		t.Error(err)
	}
}

// TestISCSIWithoutReplicas: a streamer that exports nothing is alive if it answers a discovery session.
func TestISCSIWithoutReplicas(t *testing.T) {
	target := newTarget()
	address, _ := streamer(t, target)
	p := health.NewISCSI(health.ISCSIConfig{Node: "a", Addresses: []netip.AddrPort{address}})
	defer p.Close()
	for range 3 {
		if err := p.Probe(t.Context()); err != nil {
			t.Error(err)
		}
	}
	target.Refuse = iscsi.StatusUnavailable
	other := health.NewISCSI(health.ISCSIConfig{Node: "b", Addresses: []netip.AddrPort{address}})
	if err := other.Probe(t.Context()); err == nil {
		t.Error("a streamer that refuses is up")
	}
}

func TestISCSIInitiatorName(t *testing.T) {
	if got := health.InitiatorName("a"); got != "iqn.2026-11.internal.everboot:probe:a" {
		t.Error(got)
	}
}

// TestISCSIForeign: what an operator says of a NAS is believed as far as it can be seen: a LUN that takes writes, or is another size, would give targets
// another disk than they had.
func TestISCSIForeign(t *testing.T) {
	for name, c := range map[string]struct {
		target *iscsitest.Target
		size   int64
		want   string // in the error; empty: it is up
	}{
		"as said":          {newTarget(), 4096, ""},
		"size not known":   {newTarget(), 0, ""},
		"another size":     {newTarget(), 8192, "has 4096 bytes, and the replicas of our streamers 8192"},
		"takes writes":     {&iscsitest.Target{Name: iqn, Content: make([]byte, 4096), Writable: true}, 4096, "can be written to"},
		"not there at all": {&iscsitest.Target{Name: iqn + "2"}, 0, "0x0203"},
	} {
		t.Run(name, func(t *testing.T) {
			address, _ := streamer(t, c.target)
			p := health.NewISCSI(health.ISCSIConfig{
				Node: "a", Addresses: []netip.AddrPort{address}, Targets: []string{iqn}, Foreign: map[string]int64{iqn: c.size},
			})
			defer p.Close()
			for range 2 { // it is no better the second time
				if err := p.Probe(t.Context()); c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
					t.Errorf("probe: %v, want %q", err, c.want)
				}
			}
		})
	}
}

// TestISCSIForeignBehindAnother: the first replica that is well does not hide that the second is not what it must be.
func TestISCSIForeignBehindAnother(t *testing.T) {
	second := strings.Replace(iqn, "debian", "writable", 1)
	first, _ := streamer(t, newTarget())
	wrong, _ := streamer(t, &iscsitest.Target{Name: second, Content: make([]byte, 4096), Writable: true})
	dials := 0
	p := health.NewISCSI(health.ISCSIConfig{
		Node: "a", Addresses: []netip.AddrPort{first}, Targets: []string{iqn, second}, Foreign: map[string]int64{iqn: 0, second: 0},
		Dial: func(ctx context.Context, network, to string) (net.Conn, error) {
			if dials++; dials > 1 { // a target of these tests has one name
				to = wrong.String()
			}
			return new(net.Dialer).DialContext(ctx, network, to)
		},
	})
	defer p.Close()
	if err := p.Probe(t.Context()); err == nil || !strings.Contains(err.Error(), second+" can be written to") {
		t.Errorf("probe: %v", err)
	}
}
