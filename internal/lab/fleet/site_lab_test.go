package fleet_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"everboot/internal/lab"
	"everboot/internal/lab/fleet"
	"everboot/internal/lab/guest/vdisk"
)

// TestReplicaWithAnotherDigestIsNeverPicked damages one streamer's replica: the version's digest is pinned by the others.
func TestReplicaWithAnotherDigestIsNeverPicked(t *testing.T) {
	f := newFleet(t, fleet.Options{Damaged: "s2"}, vdisk.Minimal)
	start(t, f, "a", "b", "s1")
	must(t, f.AwaitBoots("a", 1, nodeTime))
	f.Start("s2")
	must(t, f.AwaitStreamers("a", 2, nodeTime))
	must(t, lab.Eventually(nodeTime, "status warns of s2", func() bool {
		out, err := f.Command("a", "status")
		return err == nil && strings.Contains(out, "streamer s2: its replica of debian version 1 differs")
	}))
	must(t, f.AwaitBoots("a", 1, nodeTime))

	f.Host["s1"].KillAll()
	must(t, lab.Eventually(10*time.Second, "the target boots from nowhere rather than from s2", func() bool {
		out, err := f.Command("a", "explain", fleet.MAC(1))
		return err == nil && strings.Contains(out, "no boot file") && strings.Contains(out, "s1: down") && strings.Contains(out, "s2: holds ")
	}))
}

// TestNoHealthyStreamerMeansNoBootFile asks as a PXE ROM does, before and after the last streamer dies.
func TestNoHealthyStreamerMeansNoBootFile(t *testing.T) {
	f := newFleet(t, fleet.Options{}, vdisk.Minimal)
	start(t, f, "a", "b", "s1")
	client := f.Lab.Host("client")
	mac := client.Join(f.LAN).MAC().String()
	for _, node := range []string{"a", "b"} {
		if out, err := f.Command(node, "device", "set", mac, "--name", "t9", "--address", "198.18.0.59", "--vdisk", "debian"); err != nil {
			t.Fatal(err, out)
		}
		must(t, lab.Eventually(nodeTime, node+" lets it boot", func() bool {
			out, err := f.Command(node, "explain", "t9")
			return err == nil && strings.Contains(out, "boots debian version 1")
		}))
	}
	ask := func() lab.Lease {
		t.Helper()
		lease, err := lab.Udhcpc(client, "eth0", "-V", "PXEClient:Arch:00000:UNDI:002001", "-x", "0x5d:0000", "-O", "tftp", "-O", "bootfile")
		must(t, err)
		return lease
	}
	lease := ask()
	if lease["ip"] != "198.18.0.59" || lease["bootfile"] != "undionly.kpxe" || lease["tftp"] != fleet.VIP || lease["siaddr"] != fleet.VIP {
		t.Errorf("with a streamer: %v", lease)
	}
	strangerIsTakenIn(t, f)
	deadTFTPIsNotNamed(t, f, ask)

	f.Host["s1"].KillAll()
	for _, node := range []string{"a", "b"} {
		must(t, lab.Eventually(10*time.Second, node+" says why", func() bool {
			out, err := f.Command(node, "explain", "198.18.0.59")
			why, last, _ := strings.Cut(out, "\n")
			return err == nil && strings.Contains(why, "(t9) gets 198.18.0.59 and no boot file: ") && strings.Contains(why, "[no-healthy-streamer]") &&
				strings.Contains(why, "s1: down") && strings.HasPrefix(last, "DHCP's last word on it over IPv4, at ")
		}))
	}
	lease = ask()
	if lease["ip"] != "198.18.0.59" || lease["bootfile"] != "" || lease["boot_file"] != "" || lease["tftp"] != "" {
		t.Errorf("without a streamer: %v; want the address and nothing to boot", lease)
	}
}

// deadTFTPIsNotNamed closes port 69 of both appliances, as it is when a server's process has died, and opens it again.
func deadTFTPIsNotNamed(t *testing.T, f *fleet.Fleet, ask func() lab.Lease) {
	t.Helper()
	onBoth := func(rules string) {
		t.Helper()
		path := filepath.Join(t.TempDir(), "rules.nft")
		must(t, os.WriteFile(path, []byte(rules), 0o600))
		for _, node := range []string{"a", "b"} {
			if out, err := f.Host[node].Run(t.Context(), "nft", "-f", path); err != nil {
				t.Fatal(err, out)
			}
		}
	}
	onBoth("table inet dead { chain in { type filter hook input priority 0; udp dport 69 reject with icmpx type port-unreachable; }; }\n")
	died := time.Now()
	var asked time.Duration // after the death, for the first time without hearing of the server
	lease := ask()
	for lease["bootfile"] != "" && asked < 10*time.Second {
		asked = time.Since(died)
		lease = ask()
	}
	t.Logf("who asked %s after its death heard nothing of the dead TFTP server", asked.Round(time.Millisecond))
	if asked > 1100*time.Millisecond || lease["tftp"] != "" || lease["ip"] != "198.18.0.59" {
		t.Errorf("asked %s after TFTP died: %v; want the address and nothing to boot after a second", asked, lease)
	}
	if out, err := f.Command("a", "explain", "198.18.0.59"); err != nil || !strings.Contains(out, "[tftp-down]") {
		t.Errorf("explain: %v, %s", err, out)
	}
	onBoth("delete table inet dead\n")
	must(t, lab.Eventually(nodeTime, "TFTP is named again", func() bool { return ask()["bootfile"] == "undionly.kpxe" }))
}

// strangerIsTakenIn has a collection take in who asks, and asks as the ROM of a machine that nobody knows.
func strangerIsTakenIn(t *testing.T, f *fleet.Fleet) {
	t.Helper()
	stranger := f.Lab.Host("stranger")
	mac := stranger.Join(f.LAN).MAC().String()
	if out, err := f.Command("a", "collection", "set", "room1", "--vdisk", "debian", "--auto-add", "true"); err != nil {
		t.Fatal(err, out)
	}
	must(t, lab.Eventually(nodeTime, "it is told where to boot from", func() error {
		lease, err := lab.Udhcpc(stranger, "eth0", "-V", "PXEClient:Arch:00000:UNDI:002001", "-x", "0x5d:0000")
		if err == nil && lease["bootfile"] != "undionly.kpxe" {
			err = fmt.Errorf("it got %v", lease)
		}
		return err
	}))
	for _, node := range []string{"a", "b"} { // each shows what happened, whoever answered
		must(t, lab.Eventually(nodeTime, node+" knows its boot", func() error {
			out, err := f.Command(node, "status", "--device", mac)
			for _, want := range []string{"next boot  debian version 1", " discover ", " added "} {
				if err == nil && !strings.Contains(out, want) {
					err = fmt.Errorf("%q is not in: %s", want, out)
				}
			}
			return err
		}))
	}
}

// TestDrainMovesTargetsAndResumeTakesThemBack drains from one appliance and looks at the other.
func TestDrainMovesTargetsAndResumeTakesThemBack(t *testing.T) {
	f := newFleet(t, fleet.Options{}, vdisk.Minimal)
	start(t, f, "a", "b", "s1", "s2")
	target := boot(t, f, 1, lab.BIOS)
	owner, err := f.Owner()
	must(t, err)
	from, err := f.Serving(owner, 1)
	must(t, err)
	s := watch(t, target, "a drain", func() {
		if out, err := f.Command(fleet.Other(owner), "streamer", "drain", from); err != nil {
			t.Error(err, out)
		}
		must(t, lab.Eventually(20*time.Second, "the target moves", func() bool {
			now, err := f.Serving(owner, 1)
			return err == nil && now == fleet.Other(from)
		}))
	})
	t.Logf("drained: longest stall %s", s.Longest)
	if out, err := f.Command(owner, "streamer", "resume", from); err != nil {
		t.Fatal(err, out)
	}
	must(t, lab.Eventually(20*time.Second, "it takes logins again", func() bool {
		status, err := f.Status(fleet.Other(owner))
		return err == nil && status.View.Streamers[from].State == "active"
	}))
	if out, err := f.Command(owner, "streamer", "drain", "s9"); err == nil || !strings.Contains(out, `there is no streamer "s9"; the site has: s1, s2`) {
		t.Errorf("draining a stranger: %v, %q", err, out)
	}
}
