package fleet_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"everboot/internal/lab"
	"everboot/internal/lab/fleet"
	"everboot/internal/lab/guest/vdisk"
)

const (
	envImage = "EVERBOOT_IMAGE" // the raw VM image
	// nodeBoot is for a Debian with cloud-init on one emulated processor of a busy machine; it takes 2 minutes on one that is not.
	nodeBoot = 12 * time.Minute
	// nodeAnswers is for what such a machine does once it runs.
	nodeAnswers = 4 * time.Minute
)

// reports is what each node prints of itself, for the test to read: what tells it from others, what listens to whom, and what systemd and dpkg think of the package.
const reports = ` - |
   {
     echo "REPORT machine $(cat /etc/machine-id)"
     echo "REPORT ssh $(ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub | cut -d' ' -f2)"
     echo "REPORT rules $(nft list ruleset | grep -c 'dport.*accept')"
     echo "REPORT root $(df --output=size -BM / | tail -1)"
     for unit in everboot-appliance everboot-streamer; do systemd-analyze security --no-pager $unit | sed -n "s/.*Overall exposure level for/REPORT exposure/p"; done
     echo "REPORT package $(dpkg --verify everboot | grep -v ' /usr/share/doc/' || echo whole)"
     echo "REPORT unit $(systemctl is-active everboot-appliance) $(systemctl show -P User everboot-appliance)"
     echo "REPORT failed $(systemctl --failed --no-legend --plain | cut -d' ' -f1 | xargs)"
     echo "REPORT end"
   } >/dev/console 2>&1
`

// node starts a machine of the image, with a config drive.
func node(t *testing.T, f *fleet.Fleet, name, address string, commands ...string) *lab.Machine {
	t.Helper()
	lab.Need(t, "xorriso")
	dir := filepath.Join(f.Lab.Dir(), "seed-"+name)
	must(t, os.MkdirAll(dir, 0o755))
	user := "#cloud-config\nruncmd:\n"
	for _, c := range commands {
		user += " - " + c + "\n"
	}
	for file, text := range map[string]string{
		"user-data":      user + reports,
		"meta-data":      "instance-id: " + name + "\nlocal-hostname: " + name + "\n",
		"network-config": "version: 2\nethernets:\n  eth0:\n    addresses: [" + address + "/24]\n",
	} {
		must(t, os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644))
	}
	seed := dir + ".iso"
	out, err := f.Host["router"].Run(t.Context(), "xorriso", "-as", "genisoimage", "-quiet", "-output", seed, "-V", "cidata", "-J", "-r", dir)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	firmware := map[string]lab.Firmware{"a": lab.BIOS, "b": lab.UEFI}[name]
	m, err := f.Lab.Machine(lab.MachineConfig{
		Name: "node-" + name, Segment: f.LAN, Firmware: firmware, MemoryMB: 1024, Disk: os.Getenv(envImage),
		Extra: []string{"-drive", "if=none,id=seed,format=raw,readonly=on,file=" + seed, "-device", "virtio-blk-pci,drive=seed"},
	})
	must(t, err)
	return m
}

// hear reads a node's report of itself.
func hear(t *testing.T, m *lab.Machine) map[string]string {
	t.Helper()
	must(t, lab.Eventually(nodeBoot, "the node reports", func() error {
		if !strings.Contains(m.Console(), "REPORT end") {
			return fmt.Errorf("its console ends with:\n%s", m.Console()[max(0, len(m.Console())-1500):])
		}
		return nil
	}))
	all := map[string]string{}
	for _, match := range regexp.MustCompile(`REPORT (\w+) ?(.*)\n`).FindAllStringSubmatch(m.Console(), -1) {
		all[match[1]] += strings.TrimSpace(match[2]) + "\n"
	}
	return all
}

var exposureLevel = regexp.MustCompile(`: ([0-9.]+)`)

// judge looks at what a node says of itself.
func judge(t *testing.T, name string, report map[string]string) {
	t.Helper()
	t.Logf("%s: %v", name, report)
	if report["package"] != "whole\n" || report["unit"] != "active everboot\n" || report["failed"] != "\n" {
		t.Errorf("%s: package %q, unit %q, failed units %q", name, report["package"], report["unit"], report["failed"])
	}
	levels := exposureLevel.FindAllStringSubmatch(report["exposure"], -1)
	if len(levels) != 2 {
		t.Errorf("%s: exposure %q", name, report["exposure"])
	}
	for _, l := range levels {
		if level, err := strconv.ParseFloat(l[1], 64); err != nil || level >= 3 {
			t.Errorf("%s: exposure %s; want less than 3.0", name, l[1])
		}
	}
}

// TestApplianceImage makes a site of two machines of the VM image: the first by BIOS with init, the second by UEFI with the line that the first printed on its console.
// A target boots through them; the machine that owns the floating address is switched off; the target reads on, and the next one boots.
func TestApplianceImage(t *testing.T) {
	nodeImage(t)
	f := newFleet(t, fleet.Options{Machines: true}, vdisk.Full)
	begun := time.Now()
	machines := map[string]*lab.Machine{}
	machines["a"] = node(t, f, "a", "198.18.0.2",
		"everboot init --alone --node a --site berlin --interface eth0 --vip 198.18.0.10/24 --subnet 198.18.0.0/24 --range 198.18.0.100-198.18.0.199 --router 198.18.0.1",
		"systemctl enable --now everboot-appliance", "systemctl start --no-block everboot-invite", `echo "TOKEN $(cat /etc/everboot/api.token)" >/dev/console`)
	match, err := machines["a"].Expect(`everboot join (eb1\.[-\w]+)\r?\n`, nodeBoot)
	must(t, err)
	t.Logf("a prints its line %s after power-on", time.Since(begun).Round(time.Second))
	line := match[1]
	reportA := hear(t, machines["a"])
	if match = regexp.MustCompile(`TOKEN (\S+)`).FindStringSubmatch(machines["a"].Console()); match == nil {
		t.Fatal("a did not print its token")
	}
	must(t, os.WriteFile(f.Token(), []byte(match[1]+"\n"), 0o600))
	judge(t, "a", reportA)

	begun = time.Now()
	machines["b"] = node(t, f, "b", "198.18.0.3", "everboot join --node b --interface eth0 "+line, "systemctl enable --now everboot-appliance")
	reportB := hear(t, machines["b"])
	t.Logf("b has joined %s after power-on", time.Since(begun).Round(time.Second))
	judge(t, "b", reportB)
	for _, what := range []string{"machine", "ssh"} {
		if reportA[what] == reportB[what] || len(reportA[what]) < 30 {
			t.Errorf("%s: a has %q, b has %q; want each its own", what, reportA[what], reportB[what])
		}
	}

	activeNode(t, f) // a is started anew to know b; both answer then
	f.Start("s1")
	f.Start("s2")
	must(t, lab.Eventually(nodeAnswers, "the site is written down", func() error { return populate(f) }))
	for name := range machines {
		must(t, f.AwaitStreamers(name, 2, nodeAnswers))
		must(t, f.AwaitBoots(name, 2, nodeAnswers))
	}
	owner := activeNode(t, f)
	target := boot(t, f, 1, lab.BIOS)

	stall := watch(t, target, "machine "+owner, machines[owner].Stop)
	t.Logf("machine %s switched off: longest stall %s", owner, stall.Longest)
	boot(t, f, 2, lab.BIOS)
}

// populate writes down that two targets start the boot loader of their vDisk: the nodes have no files of it.
func populate(f *fleet.Fleet) error {
	commands := [][]string{{"vdisk", "set", "debian"}}
	for n := 1; n <= 2; n++ {
		commands = append(commands, []string{"device", "set", fleet.MAC(n), "--name", fmt.Sprintf("t%d", n), "--address", fleet.Address(n), "--vdisk", "debian"})
	}
	for _, args := range commands {
		if out, err := f.Command("a", args...); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
	}
	return nil
}

// activeNode returns the machine that owns the floating address, while the other knows that it does not.
func activeNode(t *testing.T, f *fleet.Fleet) (owner string) {
	t.Helper()
	must(t, lab.Eventually(nodeAnswers, "one machine owns the VIP", func() error {
		states := map[string]string{}
		for _, name := range []string{"a", "b"} {
			s, err := f.Status(name)
			if err != nil {
				return err
			}
			if len(s.Peers) != 1 || !s.Peers[0].Alive {
				return fmt.Errorf("%s does not see its peer: %+v", name, s.Peers)
			}
			states[s.VIP.State] = name
		}
		if owner = states["active"]; owner == "" || states["backup"] == "" {
			return fmt.Errorf("%v", states)
		}
		return nil
	}))
	return owner
}
