package fleet_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"everboot/internal/lab"
	"everboot/internal/lab/fleet"
	"everboot/internal/lab/guest/vdisk"
)

func TestMain(m *testing.M) { os.Exit(lab.TestMain(m)) }

const (
	bootTime = 10 * time.Minute // of an emulated machine, or of three that boot each other, on two busy cores; alone it takes half a minute
	nodeTime = 60 * time.Second
)

// binary builds everboot as it is released, once a run.
var binary = sync.OnceValues(func() (string, error) {
	cache, err := vdisk.Cache()
	if err != nil {
		return "", err
	}
	out := filepath.Join(cache, "everboot-under-test")
	cmd := exec.Command("go", "build", "-o", out, "everboot/cmd/everboot")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building everboot: %w\n%s", err, text)
	}
	return out, nil
})

// newFleet returns a site whose nodes do not run yet.
func newFleet(t *testing.T, o fleet.Options, kind func(context.Context, string, func(string)) (string, error)) *fleet.Fleet {
	t.Helper()
	l := lab.ForTest(t)
	lab.Need(t, "tgtd", "qemu-system-x86_64", "dnsmasq", "mmdebstrap")
	var err error
	if o.Binary, err = binary(); err != nil {
		t.Fatal(err)
	}
	cache, err := vdisk.Cache()
	if err != nil {
		t.Fatal(err)
	}
	if o.VDisk, err = kind(t.Context(), cache, func(line string) { t.Log(line) }); err != nil {
		t.Fatal(err)
	}
	f, err := fleet.New(l, o)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// start starts nodes and waits until both appliances find every streamer that was started.
func start(t *testing.T, f *fleet.Fleet, nodes ...string) {
	t.Helper()
	streamers := 0
	for _, n := range nodes {
		f.Start(n)
		if strings.HasPrefix(n, "s") {
			streamers++
		}
	}
	for _, n := range nodes {
		if n != "a" && n != "b" {
			continue
		}
		must(t, f.AwaitStreamers(n, streamers, nodeTime))
	}
	must(t, lab.Eventually(nodeTime, "one appliance owns the VIP", func() error { _, err := f.Owner(); return err }))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
