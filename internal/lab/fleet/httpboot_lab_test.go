package fleet_test

import (
	"testing"
	"time"

	"everboot/internal/lab"
	"everboot/internal/lab/fleet"
	"everboot/internal/lab/guest/vdisk"
)

// TestUEFIHTTPBootOfMedium: a DHCP server that is not ours names a target's medium, and firmware that can do HTTP boot loads it into a RAM disk, starts it
// from there, and asks for its script.
func TestUEFIHTTPBootOfMedium(t *testing.T) {
	url := "http://" + fleet.VIP + "/bdm/" + fleet.MAC(1) + ".iso"
	f := newFleet(t, fleet.Options{Media: true, Router: []string{
		"--dhcp-vendorclass=set:http,HTTPClient", "--dhcp-option-force=tag:http,60,HTTPClient", "--dhcp-boot=tag:http," + url,
	}}, vdisk.Minimal)
	start(t, f, "a", "s1")
	// It would ask for PXE first, and wait.
	noPXE := []string{"-fw_cfg", "name=opt/org.tianocore/IPv4PXESupport,string=no", "-fw_cfg", "name=opt/org.tianocore/IPv6PXESupport,string=no"}
	target, err := f.PowerOnWith(1, lab.MachineConfig{Name: "t1", Firmware: lab.UEFI, Extra: noPXE})
	must(t, err)
	for _, shown := range []string{"URI: " + url, "asking http://" + fleet.VIP + " for the script of " + fleet.MAC(1)} {
		_, err = target.Expect(shown, bootTime)
		must(t, err)
		t.Logf("%q %s after power-on", shown, time.Since(target.Powered).Round(100*time.Millisecond))
	}
	must(t, lab.Eventually(nodeTime, "the appliance gives it its script", func() error {
		_, err := f.Serving("a", 1)
		return err
	}))
}
