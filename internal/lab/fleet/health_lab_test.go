package fleet_test

import (
	"fmt"
	"testing"
	"time"

	"everboot/internal/lab"
	"everboot/internal/lab/fleet"
	"everboot/internal/lab/guest/vdisk"
)

// TestSickApplianceGivesTheVIPAway drops all TFTP requests on the owner, whose process lives on: the other appliance takes the VIP though it
// must not preempt, and answers name TFTP at the VIP again. Alone, a sick appliance keeps the VIP.
func TestSickApplianceGivesTheVIPAway(t *testing.T) {
	f := newFleet(t, fleet.Options{}, vdisk.Minimal)
	start(t, f, "a", "b", "s1")
	must(t, f.AwaitBoots("a", 1, nodeTime))
	owner, err := f.Owner()
	must(t, err)
	other := fleet.Other(owner)
	for _, args := range [][]string{
		{"nft", "add", "table", "inet", "sick"},
		{"nft", "add", "chain", "inet", "sick", "in", "{ type filter hook input priority 0 ; }"},
		{"nft", "add", "rule", "inet", "sick", "in", "udp", "dport", "69", "drop"},
	} {
		if out, err := f.Host[owner].Run(t.Context(), args...); err != nil {
			t.Fatal(err, out)
		}
	}
	owns := func(node string) func() error {
		return func() error {
			if o, err := f.Owner(); err != nil || o != node {
				return fmt.Errorf("owner %q, %v", o, err)
			}
			return nil
		}
	}
	must(t, lab.Eventually(20*time.Second, other+" takes the VIP", owns(other)))
	must(t, f.AwaitBoots(other, 1, 10*time.Second))
	must(t, f.AwaitBoots(owner, 1, 10*time.Second))

	f.Host[other].Die()
	must(t, lab.Eventually(10*time.Second, "the sick one serves when it is alone", func() error {
		if !f.Host[owner].Has(fleet.VIP) {
			return fmt.Errorf("%s does not have the VIP", owner)
		}
		return nil
	}))
}
