package everboot

import (
	"os"
	"os/exec"
	"testing"
)

// TestCoredhcpPlugin builds a stock coredhcp with our plugin and runs the tests of that module, those of the lab too if ours run.
func TestCoredhcpPlugin(t *testing.T) {
	c := exec.Command("go", "test", "-count=1", "./...")
	c.Dir = "coredhcp"
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("%v: %v\n%s", c, err, out)
	}
}
