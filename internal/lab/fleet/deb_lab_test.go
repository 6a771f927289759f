package fleet_test

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"everboot/internal/lab"
	"everboot/internal/lab/guest/vdisk"
)

// TestPackage installs the Debian package, runs both programs as the units' user with the units' capabilities, kills them, flushes, and purges: nothing is left.
// And systemd finds both units well locked up.
func TestPackage(t *testing.T) {
	lab.ForTest(t)
	lab.Need(t, "dpkg", "setpriv", "unshare", "systemd-analyze", "tgtd")
	build, err := vdisk.Cache()
	must(t, err)
	root := filepath.Dir(build)
	if out, err := exec.CommandContext(t.Context(), "make", "-C", root, "deb", "DEB_ARCHES=amd64").CombinedOutput(); err != nil {
		t.Fatalf("making the package: %v (without a network `make deb` must have run once)\n%s", err, out)
	}
	debs, err := filepath.Glob(filepath.Join(build, "everboot_*_amd64.deb"))
	must(t, err)
	if len(debs) != 1 {
		t.Fatalf("packages: %v", debs)
	}
	out, err := exec.CommandContext(t.Context(), filepath.Join(root, "packaging", "try.sh"), debs[0]).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "nothing left") {
		t.Errorf("%v\n%s", err, out)
	}
	exposure := regexp.MustCompile(`Overall exposure level for \S+: ([0-9.]+)`)
	for _, unit := range []string{"appliance", "streamer"} {
		out, err := exec.CommandContext(t.Context(), "systemd-analyze", "security", "--offline=yes", "--no-pager",
			filepath.Join(root, "packaging", "everboot-"+unit+".service")).CombinedOutput()
		m := exposure.FindSubmatch(out)
		if m == nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if level, err := strconv.ParseFloat(string(m[1]), 64); err != nil || level >= 3 {
			t.Errorf("%s: exposure %s; want less than 3.0", unit, m[1])
		}
	}
}
