package fleet_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
	"time"

	"everboot/appliance/web"
	"everboot/image"
	"everboot/internal/lab"
	"everboot/internal/lab/fleet"
	"everboot/internal/lab/guest/vdisk"
	"everboot/site"
)

// TestBootMediumToLogin starts the demo's Debian from a disk, with an address from a DHCP server that gives no boot options, until somebody can log in. Then the
// medium of the running target is given other login servers, by its collection: it writes them, says so, and asks them first when it starts again.
func TestBootMediumToLogin(t *testing.T) {
	const own = "198.18.0.2"
	unhurried(t)
	f := newFleet(t, fleet.Options{Media: true, Collection: "lab"}, vdisk.Full)
	start(t, f, "a", "s1")
	disk := filepath.Join(f.Lab.Dir(), "boot.img")
	command(t, f, "a", "image", "disk", "--output", disk) // the login servers are what the appliance says
	target, err := f.PowerOnWith(1, lab.MachineConfig{Name: "t1", Disk: disk})
	must(t, err)
	_, err = target.Expect("asking http://"+fleet.VIP+" for", bootTime)
	must(t, err)
	command(t, f, "a", "collection", "set", "lab")
	command(t, f, "a", "image", "rollout", "--collection", "lab", "--server", own, "--server", fleet.VIP)
	_, err = target.Expect("(?i)login: ", bootTime)
	must(t, err)
	var last []web.MediumReport
	err = lab.Eventually(bootTime, "the target has the first version, for which its own timer asks a minute after it started", func() error {
		s, err := f.Status("a")
		if err != nil {
			return err
		}
		last = s.Media
		current := func(m web.MediumReport) bool { return m.MAC.String() == fleet.MAC(1) && m.State == web.MediumCurrent }
		if !slices.ContainsFunc(last, func(m web.MediumReport) bool { return current(m) && m.Medium == "vda" }) || !slices.ContainsFunc(last, func(m web.MediumReport) bool { return current(m) && m.Medium == "vda-uefi" }) {
			return fmt.Errorf("the report is %+v", last)
		}
		return nil
	})
	must(t, err)
	if silent := slices.DeleteFunc(last, func(m web.MediumReport) bool { return m.State != web.MediumSilent }); len(silent) != fleet.Targets-1 {
		t.Errorf("%d devices of the collection are silent: %+v", len(silent), silent)
	}
	target.Reset()
	_, err = target.Expect("asking http://"+own+" for", bootTime)
	must(t, err)
}

// TestBootMedium starts targets over iSCSI from boot media, as CD, as disk and as USB stick, on BIOS and on UEFI, with an address of its own and with
// one from a DHCP server that gives no boot options; nobody serves TFTP. The media are made when the site has one appliance and one streamer. Then
// another of each comes, the first ones go, and the same media start from those. Each gets to a login prompt of the demo's Debian.
func TestBootMedium(t *testing.T) {
	unhurried(t)
	f := newFleet(t, fleet.Options{Media: true}, vdisk.Full)
	start(t, f, "a", "s1")
	dhcp := filepath.Join(f.Lab.Dir(), "dhcp.img")
	command(t, f, "a", "image", "disk", "--output", dhcp, "--server", fleet.VIP, "--server", "198.18.0.2")
	media := make([]string, fleet.Targets+1)
	for n := range fleet.Targets {
		media[n+1] = filepath.Join(f.Lab.Dir(), fmt.Sprintf("t%d.img", n+1))
		command(t, f, "a", "image", "iso", "--output", media[n+1], "--server", fleet.VIP, "--server", "198.18.0.2", "--site", "berlin",
			"--mac", fleet.MAC(n+1), "--address", fleet.Address(n+1)+"/24,198.18.0.1")
	}
	byURL(t, f, fleet.MAC(2))
	t.Run("first", func(t *testing.T) {
		bootMedium(t, f, 1, lab.MachineConfig{Name: "bios-cd-static", Firmware: lab.BIOS, ISO: media[1]})
		bootMedium(t, f, 2, lab.MachineConfig{Name: "bios-disk-dhcp", Firmware: lab.BIOS, Disk: dhcp})
		bootMedium(t, f, 3, lab.MachineConfig{Name: "uefi-usb-static", Firmware: lab.UEFI, USB: media[3]})
		bootMedium(t, f, 4, lab.MachineConfig{Name: "uefi-cd-dhcp", Firmware: lab.UEFI, ISO: dhcp})
	})
	f.Start("b")
	f.Start("s2")
	must(t, f.AwaitStreamers("b", 2, nodeTime))
	f.Host["a"].Die()
	f.Host["s1"].Die()
	must(t, lab.Eventually(nodeTime, "b owns the VIP", func() error {
		if !f.Host["b"].Has(fleet.VIP) {
			return errors.New("it does not")
		}
		return f.AwaitStreamers("b", 1, 0)
	}))
	t.Run("later", func(t *testing.T) {
		bootMedium(t, f, 1, lab.MachineConfig{Name: "bios-usb-dhcp", Firmware: lab.BIOS, USB: dhcp})
		bootMedium(t, f, 2, lab.MachineConfig{Name: "bios-disk-static", Firmware: lab.BIOS, Disk: media[2]})
		bootMedium(t, f, 3, lab.MachineConfig{Name: "uefi-disk-dhcp", Firmware: lab.UEFI, Disk: dhcp})
		bootMedium(t, f, 4, lab.MachineConfig{Name: "uefi-cd-static", Firmware: lab.UEFI, ISO: media[4]})
	})
}

// unhurried skips a test that takes minutes.
func unhurried(t *testing.T) {
	t.Helper()
	if os.Getenv("EVERBOOT_UNHURRIED") == "" {
		t.Skip("takes minutes: make test-media (EVERBOOT_UNHURRIED=1)")
	}
}

// bootMedium starts the n-th target beside the others until somebody can log in.
func bootMedium(t *testing.T, f *fleet.Fleet, n int, c lab.MachineConfig) {
	t.Run(c.Name, func(t *testing.T) {
		t.Parallel()
		target, err := f.PowerOnWith(n, c)
		must(t, err)
		defer target.Stop()
		_, err = target.Expect("(?i)login: ", 4*bootTime)
		must(t, err)
		t.Logf("shows its login prompt %s after power-on", time.Since(target.Powered).Round(100*time.Millisecond))
	})
}

// byURL looks at what the appliance serves to a hypervisor: a medium for that target, which can be read in pieces.
func byURL(t *testing.T, f *fleet.Fleet, mac string) {
	t.Helper()
	out, err := f.Host["router"].Run(t.Context(), "sh", "-c", "curl -sSf http://"+fleet.VIP+"/bdm/"+mac+".iso | wc -c; curl -sSf -r 1048576-7340031 http://"+
		fleet.VIP+"/bdm/"+mac+".iso | grep -a -c 'iseq .{net.{nic}/mac} "+mac+" '")
	if err != nil || out != "8388608\n1\n" {
		t.Errorf("%v: %s", err, out)
	}
}

func command(t *testing.T, f *fleet.Fleet, node string, args ...string) {
	t.Helper()
	if out, err := f.Command(node, args...); err != nil {
		t.Fatalf("everboot %v: %v\n%s", args, err, out)
	}
}

// TestMediumAsksLoginServersInTurn: the first of three is silent, the second refuses, the third answers, at most 5 s later than if it were alone. The answer
// tells of another, which is asked first from then on; it refuses, and the medium's own are asked again.
func TestMediumAsksLoginServersInTurn(t *testing.T) {
	const silent, closed, good = "198.18.0.5", "198.18.0.6", "198.18.0.7"
	l := lab.ForTest(t)
	lab.Need(t, "qemu-system-x86_64")
	lan := l.Segment("lan")
	l.Host("closed").Join(lan, closed+"/24")
	server := l.Host("server")
	server.Join(lan, good+"/24")
	listener, err := server.Listen("tcp", good+":80")
	must(t, err)
	web := &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "#!ipxe\n%secho SCRIPT at ${netX/ip} for %s %s\nexit 0\n", site.TellHosts([]string{closed + ":8080"}), r.URL.Query().Get("site"), r.URL.Query().Get("key"))
	})}
	served := make(chan error, 1)
	go func() { served <- web.Serve(listener) }()
	defer func() { web.Close(); <-served }()

	path := writeMedium(t, l, "boot.img", site.Bootstrap{
		Hosts: []string{silent, closed, good}, Site: "berlin", Key: "a-key-of-our-own", Address: netip.MustParsePrefix("198.18.0.51/24"),
	})
	m, err := l.Machine(lab.MachineConfig{Name: "t", Segment: lan, ISO: path, MemoryMB: 256})
	must(t, err)
	defer m.Stop()
	_, err = m.Expect("asking http://"+silent, bootTime)
	must(t, err)
	asked := time.Now()
	_, err = m.Expect("SCRIPT at 198.18.0.51 for berlin a-key-of-our-own\n", bootTime)
	must(t, err)
	if late := time.Since(asked); late > 5*time.Second {
		t.Errorf("the third login server answered %s after the first was asked", late)
	} else {
		t.Logf("the third login server answered %s after the first was asked", late.Round(10*time.Millisecond))
	}
	for _, next := range []string{closed + ":8080", silent, closed, good} {
		_, err = m.Expect("asking http://"+next+" for", bootTime)
		must(t, err)
	}
}

// TestMediumInAVLAN: what a medium for a VLAN sends is tagged, from the first frame on. (The kernels that the lab runs on may have no VLANs: nobody answers.)
func TestMediumInAVLAN(t *testing.T) {
	l := lab.ForTest(t)
	lab.Need(t, "qemu-system-x86_64", "dumpcap", "tshark")
	lan := l.Segment("lan")
	lan.Capture("lan")
	path := writeMedium(t, l, "boot.img", site.Bootstrap{Hosts: []string{fleet.VIP}, VLAN: 7, Address: netip.MustParsePrefix("198.18.0.51/24")})
	m, err := l.Machine(lab.MachineConfig{Name: "t", Segment: lan, ISO: path, MemoryMB: 256})
	must(t, err)
	defer m.Stop()
	_, err = m.Expect("asking http://"+fleet.VIP, bootTime)
	must(t, err)
	must(t, lab.Eventually(nodeTime, "it asks for the login server in VLAN 7", func() error {
		list, err := lan.Decoded("vlan.id == 7 && arp.src.proto_ipv4 == 198.18.0.51 && arp.dst.proto_ipv4 == "+fleet.VIP, "eth.src")
		if err == nil && len(list) == 0 {
			err = errors.New("it has not")
		}
		return err
	}))
	plain, err := lan.Decoded("!vlan && arp")
	must(t, err)
	if len(plain) > 0 {
		t.Errorf("it also asks outside of the VLAN: %q", plain)
	}
}

// writeMedium writes a medium with Debian's loaders.
func writeMedium(t *testing.T, l *lab.Lab, name string, b site.Bootstrap) string {
	t.Helper()
	loaders, err := image.FindLoaders(nil)
	must(t, err)
	m, err := image.NewMedium(image.MediumConfig{Program: image.Program{Script: b.Script(), About: b.About()}, Loaders: loaders})
	must(t, err)
	path := filepath.Join(l.Dir(), name)
	must(t, image.WriteFile(path, m))
	return path
}

// TestLabMediumIsWhatOthersExpect has the foreign tools look at it.
func TestLabMediumIsWhatOthersExpect(t *testing.T) {
	l := lab.ForTest(t)
	lab.Need(t, "xorriso", "sgdisk", "fsck.fat")
	path := writeMedium(t, l, "boot.img", site.Bootstrap{Hosts: []string{fleet.VIP}})
	fat := filepath.Join(l.Dir(), "fat.img")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(fat, data[1<<20:7<<20], 0o600); err != nil {
		t.Fatal(err)
	}
	h := l.Host("tools")
	for _, c := range []struct {
		want, never string
		argv        []string
	}{
		{"BIOS  y   none(.|\n)*UEFI  y   none(.|\n)*boot-info-table isohybrid-suitable", "(WARNING|FAILURE|SORRY)", []string{"xorriso", "-indev", path, "-report_el_torito", "plain"}},
		{"No problems found", "(?i)(caution|warning|problem:)", []string{"sgdisk", "-v", path}},
		{"files, .* clusters", "(?i)(differ|reclaim|dirty|unused|error)", []string{"fsck.fat", "-n", fat}},
	} {
		out, err := h.Run(t.Context(), c.argv...)
		if err != nil || !regexp.MustCompile(c.want).MatchString(out) || regexp.MustCompile(c.never).MatchString(out) {
			t.Errorf("%v: %v\n%s", c.argv, err, out)
		}
	}
}
