package dhcp_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"everboot/internal/lab"
	"everboot/site"
)

// TestLabMachines: real firmware takes our offer and loads what it names from the boot address, up to the bootstrap. The BIOS machine's
// network card has iPXE for a PXE ROM, and so gets the bootstrap at once; UEFI loads iPXE first. The machine that can
// do nothing but HTTP boot gets iPXE's URL.
func TestLabMachines(t *testing.T) {
	for name, c := range map[string]struct {
		firmware lab.Firmware
		extra    []string
		files    string // by TFTP
	}{
		"BIOS":      {lab.BIOS, nil, "bootstrap.ipxe"},
		"UEFI":      {lab.UEFI, nil, "snponly.efi bootstrap.ipxe"},
		"UEFI HTTP": {lab.UEFI, without("IPv4PXESupport", "IPv6PXESupport"), "bootstrap.ipxe"},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNetwork(t)
			// The boot address is on b, where nobody serves DHCP: nothing comes from there but files.
			n.b.Join(n.lan, "198.18.0.10/24")
			if n.ra = name == "BIOS"; !n.ra { // our own do as well
				lab.RouterAdvertiser(n.b)
			}
			root := bootRoot(t)
			lab.Dnsmasq(n.b, "--enable-tftp", "--tftp-root="+root, "--tftp-single-port")
			n.b.Start("httpd", "busybox", "httpd", "-f", "-p", "198.18.0.10:80", "-h", root)
			mac := net.HardwareAddr{0x52, 0x54, 0, 0, 0, 1}
			n.device(mac, "198.18.0.51")
			n.serve(n.a, "198.18.0.2", "198.18.0.3")
			m, err := n.lab.Machine(lab.MachineConfig{Name: "t1", Segment: n.lan, MAC: mac.String(), Firmware: c.firmware, Extra: c.extra})
			if err != nil {
				t.Fatal(err)
			}
			if c.extra != nil {
				if _, err := m.Expect(`URI: http://198\.18\.0\.10/snponly\.efi`, 4*time.Minute); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := m.Expect(`BOOTSTRAP at 198\.18\.0\.51 from 198\.18\.0\.10`, 3*time.Minute); err != nil {
				t.Fatal(err)
			}
			files, err := n.lan.Decoded("tftp.opcode == 1 && ip.dst == 198.18.0.10", "tftp.source_file")
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range strings.Fields(c.files) {
				if !slices.Contains(files, want) {
					t.Errorf("asked for %q by TFTP, never for %s", files, want)
				}
			}
			n.clean()
		})
	}
}

// TestLabAdvertisementsSaveTime: iPXE waits for a router advertisement before it goes on, solicits seven times, and gives up after 13 s. Where we advertise
// it goes on before it has given up. What is counted is what it sends, which a busy host makes later and not less; the log says how long each boot takes.
func TestLabAdvertisementsSaveTime(t *testing.T) {
	solicited := make(map[bool]int)
	for _, ra := range []bool{false, true} {
		t.Run(fmt.Sprintf("ra = %t", ra), func(t *testing.T) {
			n := newNetwork(t)
			n.b.Join(n.lan, "198.18.0.10/24")
			n.ra = ra
			lab.Dnsmasq(n.b, "--enable-tftp", "--tftp-root="+bootRoot(t), "--tftp-single-port")
			mac := net.HardwareAddr{0x52, 0x54, 0, 0, 0, 1}
			n.device(mac, "198.18.0.51")
			n.serve(n.a, "198.18.0.2", "198.18.0.3")
			on := time.Now()
			m, err := n.lab.Machine(lab.MachineConfig{Name: "t1", Segment: n.lan, MAC: mac.String(), Firmware: lab.BIOS})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := m.Expect(`BOOTSTRAP at 198\.18\.0\.51`, 3*time.Minute); err != nil {
				t.Fatal(err)
			}
			t.Logf("%.1f s from power-on to the bootstrap", time.Since(on).Seconds())
			sent, err := n.lan.Decoded(fmt.Sprintf("icmpv6.type == 133 && eth.src == %s", mac))
			if err != nil {
				t.Fatal(err)
			}
			solicited[ra] = len(sent)
			n.clean()
		})
	}
	if len(solicited) == 2 && (solicited[false] < 2 || solicited[true] >= solicited[false]) {
		t.Errorf("%d solicitations with advertisements, %d without them", solicited[true], solicited[false])
	}
}

// TestLabProxyMachines: BIOS, UEFI and a UEFI that can do nothing but HTTP boot take their address from dnsmasq, and from our proxy where to
// boot from. All three boot at once.
func TestLabProxyMachines(t *testing.T) {
	n := newNetwork(t)
	n.b.Join(n.lan, "198.18.0.10/24")
	lab.RouterAdvertiser(n.b)
	root := bootRoot(t)
	lab.Dnsmasq(n.b, "--enable-tftp", "--tftp-root="+root, "--tftp-single-port", "--dhcp-range=198.18.0.100,198.18.0.150,255.255.255.0,1h")
	n.b.Start("httpd", "busybox", "httpd", "-f", "-p", "198.18.0.10:80", "-h", root)
	machines := []lab.MachineConfig{
		{Name: "bios", Firmware: lab.BIOS},
		{Name: "uefi", Firmware: lab.UEFI},
		{Name: "http", Firmware: lab.UEFI, Extra: without("IPv4PXESupport", "IPv6PXESupport")},
	}
	for i := range machines {
		mac := net.HardwareAddr{0x52, 0x54, 0, 0, 0, byte(i + 1)}
		machines[i].Segment, machines[i].MAC = n.lan, mac.String()
		n.device(mac, "")
	}
	p := n.launchProxy(n.a, n.config(n.a, "198.18.0.2", "198.18.0.3"))
	expect(t, p, "ready")
	var started []*lab.Machine
	for _, c := range machines {
		m, err := n.lab.Machine(c)
		if err != nil {
			t.Fatal(err)
		}
		started = append(started, m)
	}
	// Where the script itself came from, not ${next-server}: with two answers that is the one of the settings which changed last, and
	// one more router advertisement makes it the other server's own siaddr.
	for i, m := range started {
		want := []string{`tftp://198\.18\.0\.10/bootstrap\.ipxe\.\.\. ok`, `BOOTSTRAP at 198\.18\.0\.1[0-5]\d`}
		if machines[i].Extra != nil {
			want = append([]string{`URI: http://198\.18\.0\.10/snponly\.efi`}, want...)
		}
		for _, w := range want {
			if _, err := m.Expect(w, 4*time.Minute); err != nil {
				t.Fatalf("%s: %v", machines[i].Name, err)
			}
		}
	}
	n.wellFormed()
}

// without returns arguments of QEMU that take network protocols away from OVMF.
func without(support ...string) (args []string) {
	for _, s := range support {
		args = append(args, "-fw_cfg", "name=opt/org.tianocore/"+s+",string=no")
	}
	return args
}

// bootRoot is a folder with iPXE for UEFI and a bootstrap that says who it is.
func bootRoot(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	lab.NeedFile(t, "/usr/lib/ipxe/"+site.FileX64)
	b, err := os.ReadFile("/usr/lib/ipxe/" + site.FileX64)
	if err != nil {
		t.Fatal(err)
	}
	script := "#!ipxe\necho BOOTSTRAP at ${net0/ip} from ${next-server}\nsleep 600\n"
	for name, text := range map[string][]byte{site.FileX64: b, site.FileBootstrap: []byte(script)} {
		if err := os.WriteFile(filepath.Join(root, name), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}
