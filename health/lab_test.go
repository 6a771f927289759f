package health_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"everboot/health"
	"everboot/internal/lab"
	"everboot/site"
)

func TestMain(m *testing.M) { os.Exit(lab.TestMain(m)) }

const patience = 20 * time.Second

// startTgtd exports one disk of zeros on 198.18.0.21:3260.
func startTgtd(t *testing.T, h *lab.Host) (tgtd *lab.Process, tgtadm func(args string) (string, error)) {
	t.Helper()
	lab.Need(t, "tgtd", "tgtadm")
	dir := t.TempDir()
	env, disk := "TGT_IPC_SOCKET="+dir+"/ipc", filepath.Join(dir, "disk")
	if err := os.WriteFile(disk, make([]byte, 1<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	tgtd = h.StartWith(lab.Settings{Env: []string{env}}, "tgtd", "tgtd", "-f", "--iscsi", "portal=198.18.0.21:3260")
	tgtadm = func(args string) (string, error) {
		return h.Run(t.Context(), append([]string{"env", env, "tgtadm", "--lld", "iscsi"}, strings.Fields(args)...)...)
	}
	err := lab.Eventually(patience, "tgtd answers", func() error { _, err := tgtadm("--op show --mode sys"); return err })
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range []string{
		"--op new --mode target --tid 1 -T " + iqn, "--op new --mode logicalunit --tid 1 --lun 1 -b " + disk, "--op bind --mode target --tid 1 -I ALL",
	} {
		if _, err := tgtadm(args); err != nil {
			t.Fatal(err)
		}
	}
	return tgtd, tgtadm
}

// TestTgtdKilled: a SIGKILLed tgtd is down within milliseconds although it is probed once a second only; a silent host after its time-out; and both are
// up again when they are back.
func TestTgtdKilled(t *testing.T) {
	l := lab.ForTest(t)
	lan := l.Segment("lan")
	a, s1 := l.Host("a"), l.Host("s1")
	a.Join(lan, "198.18.0.2/24")
	cable := s1.Join(lan, "198.18.0.21/24")
	tgtd, tgtadm := startTgtd(t, s1)

	p := health.NewISCSI(health.ISCSIConfig{
		Node: "a", Addresses: []netip.AddrPort{netip.MustParseAddrPort("198.18.0.21:3260")}, Targets: []string{iqn}, Dial: a.Dial,
	})
	told := make(chan site.Check, 100)
	r := health.New(health.Config{Report: func(_ string, c site.Check) { told <- c }}, slog.New(slog.NewTextHandler(t.Output(), nil)))
	err := r.Set([]health.Check{{Name: "streamer s1", Interval: time.Second, Timeout: 500 * time.Millisecond, Rise: 1, Fall: 2, Probe: p.Probe, Watch: p.Watch, Close: p.Close}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	await := func(h site.Health) time.Duration {
		t.Helper()
		start, late := time.Now(), time.After(patience)
		for {
			select {
			case c := <-told:
				if c.Health == h {
					return time.Since(start)
				}
			case <-late:
				t.Fatalf("not %s after %v: %+v", h, patience, r.Status())
			}
		}
	}
	await(site.Up)
	if out, err := tgtadm("--op show --mode target"); err != nil || !strings.Contains(out, "Initiator: "+health.InitiatorName("a")) {
		t.Errorf("tgtd does not name the probe's session: %v\n%s", err, out)
	}
	time.Sleep(1500 * time.Millisecond) // somewhere in an interval, with a session that has been used twice
	tgtd.Kill()
	took := await(site.Down)
	t.Logf("SIGKILL noticed after %v", took)
	if took > 700*time.Millisecond { // the next probe but one would notice it, too
		t.Errorf("SIGKILL noticed after %v", took)
	}
	startTgtd(t, s1)
	await(site.Up)
	cable.Silence(true)
	took = await(site.Down)
	t.Logf("silence noticed after %v", took)
	if took > 3*time.Second {
		t.Errorf("silence noticed after %v", took)
	}
	cable.Silence(false)
	await(site.Up)
	fmt.Fprintln(t.Output(), health.Format(health.Tree(r.Status())))
}

// TestLabForeignTarget: a real target that takes writes, or is another disk than our streamers have, is none to send a device to.
func TestLabForeignTarget(t *testing.T) {
	l := lab.ForTest(t)
	lan := l.Segment("lan")
	a, s1 := l.Host("a"), l.Host("s1")
	a.Join(lan, "198.18.0.2/24")
	s1.Join(lan, "198.18.0.21/24")
	_, tgtadm := startTgtd(t, s1)
	probe := func(size int64) error {
		p := health.NewISCSI(health.ISCSIConfig{
			Node: "a", Addresses: []netip.AddrPort{netip.MustParseAddrPort("198.18.0.21:3260")}, Targets: []string{iqn}, Dial: a.Dial,
			Foreign: map[string]int64{iqn: size},
		})
		defer p.Close()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		return p.Probe(ctx)
	}
	if err := probe(1 << 20); err == nil || !strings.Contains(err.Error(), "can be written to") {
		t.Errorf("one that takes writes: %v", err)
	}
	if _, err := tgtadm("--op update --mode logicalunit --tid 1 --lun 1 --params readonly=1"); err != nil {
		t.Fatal(err)
	}
	if err := probe(1 << 20); err != nil {
		t.Error(err)
	}
	if err := probe(2 << 20); err == nil || !strings.Contains(err.Error(), "another disk") {
		t.Errorf("one of another size: %v", err)
	}
}
