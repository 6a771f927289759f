package fleet_test

import (
	"testing"
	"time"

	"everboot/internal/lab"
	"everboot/internal/lab/consulagent"
	"everboot/internal/lab/fleet"
	"everboot/internal/lab/guest/vdisk"
)

// TestBootBIOSEmbedded is the main job: a real Debian boots to multi-user.target, its streamer is killed, then the appliance
// that owns the VIP, and it reads on; the next target boots.
func TestBootBIOSEmbedded(t *testing.T) {
	f := newFleet(t, fleet.Options{}, vdisk.Full)
	start(t, f, "a", "b", "s1", "s2")
	target := boot(t, f, 1, lab.BIOS)
	must(t, target.AwaitMultiuser(bootTime))

	owner, err := f.Owner()
	must(t, err)
	killStreamer(t, f, target, owner)

	stall := watch(t, target, "the worker of appliance "+owner, func() { must(t, f.KillWorker(owner)) })
	t.Logf("the worker of appliance %s killed: longest stall %s", owner, stall.Longest)
	must(t, f.AwaitStreamers(owner, 1, nodeTime))
	owner, err = f.Owner()
	must(t, err)
	stall = watch(t, target, "appliance "+owner, func() { f.Host[owner].KillAll() })
	t.Logf("guard and worker of appliance %s killed at once: longest stall %s", owner, stall.Longest)
	boot(t, f, 2, lab.BIOS)
	stall = watch(t, target, "nothing", func() {})
	t.Logf("with two machines at work: longest stall %s", stall.Longest)
}

// TestBootUEFIEmbedded boots over OVMF, and kills the streamer.
func TestBootUEFIEmbedded(t *testing.T) {
	f := newFleet(t, fleet.Options{}, vdisk.Minimal)
	start(t, f, "a", "b", "s1", "s2")
	target := boot(t, f, 1, lab.UEFI)
	owner, err := f.Owner()
	must(t, err)
	killStreamer(t, f, target, owner)
}

// TestBootBIOSConsul boots with the site in a real Consul of three servers; then Consul goes, and targets boot still, also through an
// appliance that was started without it.
func TestBootBIOSConsul(t *testing.T) {
	f, agents := newConsulFleet(t)
	boot(t, f, 1, lab.BIOS)
	for _, agent := range agents {
		agent.Kill()
	}
	must(t, lab.Eventually(20*time.Second, "the appliances say that Consul is gone", func() bool {
		s, err := f.Status("a")
		return err == nil && !s.View.Registry.Reachable && len(s.Warnings) > 0
	}))
	boot(t, f, 2, lab.BIOS)

	for _, node := range []string{"a", "b"} {
		f.Host[node].KillAll()
		f.Start(node)
	}
	for _, node := range []string{"a", "b"} {
		must(t, f.AwaitStreamers(node, 2, nodeTime))
		s, err := f.Status(node)
		must(t, err)
		if !s.View.FromDisk || s.View.Registry.Reachable {
			t.Errorf("appliance %s: from disk %v, registry reachable %v", node, s.View.FromDisk, s.View.Registry.Reachable)
		}
	}
	boot(t, f, 3, lab.BIOS)
}

// TestBootUEFIConsul boots over OVMF with the site in Consul, and kills the streamer.
func TestBootUEFIConsul(t *testing.T) {
	f, _ := newConsulFleet(t)
	target := boot(t, f, 1, lab.UEFI)
	owner, err := f.Owner()
	must(t, err)
	killStreamer(t, f, target, owner)
}

func newConsulFleet(t *testing.T) (*fleet.Fleet, []*consulagent.Agent) {
	t.Helper()
	f := newFleet(t, fleet.Options{Consul: true}, vdisk.Minimal)
	agents := consulagent.Cluster(t, f.Host["c1"], f.Host["c2"], f.Host["c3"])
	start(t, f, "a", "b", "s1", "s2")
	must(t, f.Populate("a"))
	must(t, f.AwaitBoots("a", 1, nodeTime))
	must(t, f.AwaitBoots("b", fleet.Targets, nodeTime))
	return f, agents
}

// boot powers a target on and waits until it reads its vDisk.
func boot(t *testing.T, f *fleet.Fleet, n int, firmware lab.Firmware) *fleet.Target {
	t.Helper()
	target, err := f.PowerOn(n, firmware)
	must(t, err)
	must(t, target.AwaitReading(bootTime))
	t.Logf("target %d (%s) reads %s after power-on", n, firmware, time.Since(target.Powered).Round(100*time.Millisecond))
	return target
}

// maxStall is what a guest may see of its streamer's death. The test machine's two cores carry the whole site and an emulated
// machine, so a single figure is noisy: the best of some deaths must hold it.
const (
	maxStall = 200 * time.Millisecond
	deaths   = 3
)

// killStreamer kills the streamer that serves a target until the stall is short enough, at most deaths times, and starts it again each time.
func killStreamer(t *testing.T, f *fleet.Fleet, target *fleet.Target, owner string) {
	t.Helper()
	var stalls []time.Duration
	for range deaths {
		serving, err := f.Serving(owner, target.N)
		must(t, err)
		s := watch(t, target, "streamer "+serving, func() { f.Host[serving].KillAll() })
		t.Logf("streamer %s killed: longest stall %s", serving, s.Longest)
		if s.Longest <= maxStall {
			return
		}
		stalls = append(stalls, s.Longest)
		f.Start(serving)
		must(t, f.AwaitStreamers(owner, 2, nodeTime))
	}
	t.Errorf("stalls of %v; want one of at most %s", stalls, maxStall)
}

// watch takes something away and looks that the guest reads on without an error.
func watch(t *testing.T, target *fleet.Target, what string, fail func()) fleet.Stall {
	t.Helper()
	s, err := target.Watch(fail, 4*time.Second)
	must(t, err)
	if s.Errors > 0 || s.Mismatches > 0 {
		t.Fatalf("after the death of %s: %d I/O errors, %d reads with wrong content", what, s.Errors, s.Mismatches)
	}
	return s
}
