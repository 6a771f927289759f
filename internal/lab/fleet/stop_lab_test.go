package fleet_test

import (
	"fmt"
	"testing"
	"time"

	"everboot/internal/lab"
	"everboot/internal/lab/fleet"
	"everboot/internal/lab/guest/vdisk"
)

// TestAppliancesLeaveNothingBehind kills and stops appliances in every way, and looks what is left on their hosts.
func TestAppliancesLeaveNothingBehind(t *testing.T) {
	f := newFleet(t, fleet.Options{}, vdisk.Minimal)
	start(t, f, "a", "b")
	owner, err := f.Owner()
	must(t, err)
	other := fleet.Other(owner)
	gone := func(node string) error {
		return lab.Eventually(10*time.Second, node+" has neither VIP nor process", func() error {
			if f.Host[node].Has(fleet.VIP) {
				return fmt.Errorf("it has the VIP: %v", f.Host[node].Addresses())
			}
			if left := f.Processes(node); len(left) > 0 {
				return fmt.Errorf("it runs %v", left)
			}
			return nil
		})
	}
	owns := func(node string) {
		t.Helper()
		must(t, lab.Eventually(10*time.Second, node+" owns the VIP", func() error {
			if o, err := f.Owner(); err != nil || o != node {
				return fmt.Errorf("owner %q, %v", o, err)
			}
			return nil
		}))
	}

	t.Log("the guard and its worker are killed at once")
	f.Host[owner].KillAll()
	must(t, gone(owner))
	owns(other)

	t.Log("the guard alone is killed")
	f.Start(owner)
	must(t, f.AwaitStreamers(owner, 0, nodeTime))
	f.Process(other).Kill()
	must(t, gone(other))
	owns(owner)

	t.Log("the worker alone is killed: the guard starts another one")
	f.Start(other)
	must(t, f.AwaitStreamers(other, 0, nodeTime))
	must(t, f.KillWorker(owner))
	owns(other)
	must(t, f.AwaitStreamers(owner, 0, nodeTime))
	owns(other)

	t.Log("both are stopped")
	must(t, f.Process(other).Stop(15*time.Second))
	owns(owner)
	must(t, f.Process(owner).Stop(15*time.Second))
	must(t, gone(owner))
	must(t, gone(other))
}
