package fleet_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"everboot/appliance/web"
	"everboot/internal/lab"
	"everboot/internal/lab/fleet"
	"everboot/internal/lab/guest/vdisk"
)

// TestStrangerBootsAndIsRedirected powers a machine on that the site does not know: it is taken into the collection that takes strangers in, boots, and its iscsid is
// redirected. Its streamer is killed: it reads on, redirected to the other.
func TestStrangerBootsAndIsRedirected(t *testing.T) {
	const stranger = fleet.Targets + 5
	f := newFleet(t, fleet.Options{}, vdisk.Minimal)
	for _, name := range []string{"a", "b"} {
		file, err := os.OpenFile(f.Config(name), os.O_APPEND|os.O_WRONLY, 0)
		must(t, err)
		_, err = file.WriteString("\n[director]\nredirect = true\n")
		must(t, errors.Join(err, file.Close()))
	}
	start(t, f, "a", "b", "s1", "s2")
	ask := func(args ...string) string {
		t.Helper()
		out, err := f.Command("a", args...)
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return out
	}
	ask("collection", "set", "strangers", "--vdisk", "debian", "--auto-add=true")
	target, err := f.PowerOn(stranger, lab.BIOS)
	must(t, err)
	must(t, lab.Eventually(bootTime, "it is taken in", func() error {
		status, err := f.Status("a")
		if err != nil {
			return err
		}
		for mac, d := range status.View.Devices {
			if mac.String() == fleet.MAC(stranger) && d.Collection == "strangers" {
				return nil
			}
		}
		return fmt.Errorf("the devices are %v", status.View.Devices)
	}))
	target.Reset() // its first try was in vain, and its BIOS waits for a minute
	must(t, target.AwaitReading(bootTime))
	streams := func() (s web.DeviceStatus) {
		t.Helper()
		must(t, lab.Eventually(nodeTime, "it is redirected", func() error {
			owner, err := f.Owner()
			if err != nil {
				return err
			}
			out, err := f.Command(owner, "status", "--device", fleet.MAC(stranger), "--json")
			if err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			if err := json.Unmarshal([]byte(out), &s); err != nil {
				return err
			}
			if s.Last == nil || !s.Last.Redirected {
				return fmt.Errorf("its last session: %+v", s.Last)
			}
			return nil
		}))
		return s
	}
	first := streams().Last.Streamer
	time.Sleep(30 * time.Second) // one that is back sooner is forwarded
	watch(t, target, "its streamer killed", func() { f.Host[first].KillAll() })
	if second := streams().Last.Streamer; second != fleet.Other(first) {
		t.Errorf("it went from %s to %s", first, second)
	}
}
