package fleet_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"everboot/image"
	"everboot/internal/iscsi"
	"everboot/internal/lab"
	"everboot/internal/lab/fleet"
	"everboot/site"
)

// noBoot is a vDisk that nobody boots from.
func noBoot(t *testing.T) func(context.Context, string, func(string)) (string, error) {
	return func(context.Context, string, func(string)) (string, error) {
		dir := t.TempDir()
		for _, name := range []string{image.DiskFile, image.KernelFile, image.InitrdFile} {
			if err := os.WriteFile(filepath.Join(dir, name), make([]byte, 1<<20), 0o644); err != nil {
				return "", err
			}
		}
		return dir, nil
	}
}

// TestSilentStreamersAddressIsTakenOver: who talks to a streamer directly, as redirected targets do, is told by an appliance that it is gone, long before its own
// time-outs. The streamer has its address back as soon as it is heard again.
func TestSilentStreamersAddressIsTakenOver(t *testing.T) {
	const portal = "198.18.0.121:3260"
	f := newFleet(t, fleet.Options{Floating: true}, noBoot(t))
	start(t, f, "a", "b", "s1", "s2")
	client := f.Lab.Host("client")
	client.Join(f.LAN, "198.18.0.60/24")
	mac := site.MAC{0x52, 0x54, 0, 0, 0, 9}
	login := func(target string) (*iscsi.Session, error) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		return iscsi.Dial(ctx, portal, iscsi.Config{InitiatorName: site.InitiatorName(mac), TargetName: target, Dial: client.Dial})
	}
	var discovery *iscsi.Session
	must(t, lab.Eventually(nodeTime, "s1 serves at its address", func() (err error) {
		discovery, err = login("")
		return err
	}))
	targets, err := discovery.SendTargets(t.Context())
	must(t, err)
	discovery.Close()
	if len(targets) != 1 {
		t.Fatalf("targets %v", targets)
	}
	for range 2 { // it is back for good, and goes again
		var session *iscsi.Session
		must(t, lab.Eventually(nodeTime, "s1 serves at its address", func() (err error) {
			session, err = login(targets[0].Name)
			return err
		}))
		_, err = session.ReadBlocks(t.Context(), 0, 8)
		must(t, err)
		cable := f.Host["s1"].Cables()[0]
		cable.Silence(true)
		began := time.Now()
		_, err = session.ReadBlocks(t.Context(), 8, 8)
		took := time.Since(began)
		t.Logf("the client was told after %v", took)
		if !errors.Is(err, syscall.ECONNRESET) || took > 3500*time.Millisecond { // it asks again after 0.2, 0.6, 1.4 and 3 s
			t.Errorf("after %v: %v", took, err)
		}
		session.Close()
		must(t, lab.Eventually(nodeTime, "the status says who stands in", func() error {
			for _, name := range []string{"a", "b"} {
				if out, err := f.Command(name, "status"); err == nil && strings.Contains(out, "streamer s1 is not heard at its floating address 198.18.0.121") {
					return nil
				}
			}
			return errors.New("nobody does")
		}))
		time.Sleep(3 * time.Second) // the appliance has it for a while
		cable.Silence(false)
	}
}
