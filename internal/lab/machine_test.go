package lab_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"everboot/internal/lab"
)

const ipxeDir = "/usr/lib/ipxe/"

// bootFiles is a folder with a bootstrap of iPXE and a script that says a word.
func bootFiles(t *testing.T, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range names {
		lab.NeedFile(t, ipxeDir+name)
		data, err := os.ReadFile(ipxeDir + name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	script := "#!ipxe\necho the word is ${platform}-everboot\nshell\n"
	if err := os.WriteFile(filepath.Join(dir, "boot.ipxe"), []byte(script), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestMachineBootsOverBIOS(t *testing.T) { boot(t, lab.BIOS, "undionly.kpxe", "pcbios") }
func TestMachineBootsOverUEFI(t *testing.T) { boot(t, lab.UEFI, "snponly.efi", "efi") }

// boot lets a machine get address, bootstrap and script from dnsmasq, and types a command at the end.
func boot(t *testing.T, firmware lab.Firmware, bootstrap, platform string) {
	l := lab.ForTest(t)
	lab.Need(t, "qemu-system-x86_64", "dnsmasq")
	lan := l.Segment("lan")
	server := l.Host("server")
	server.Join(lan, "198.18.0.2/24", "2001:db8::2/64")
	lab.Dnsmasq(server, "--enable-tftp", "--tftp-root="+bootFiles(t, bootstrap), "--dhcp-range=198.18.0.100,198.18.0.199",
		"--dhcp-userclass=set:ipxe,iPXE", "--dhcp-boot=tag:!ipxe,"+bootstrap, "--dhcp-boot=tag:ipxe,boot.ipxe")
	lab.RouterAdvertiser(server)
	start := time.Now()
	m, err := l.Machine(lab.MachineConfig{Name: "target", Segment: lan, Firmware: firmware, DiskMB: 1})
	if err != nil {
		t.Fatal(err)
	}
	heard := make(chan time.Time, 1)
	m.Lines(func(at time.Time, line string) {
		if strings.HasPrefix(line, "the word is") {
			select {
			case heard <- at:
			default:
			}
		}
	})
	if _, err := m.Expect("^the word is "+platform+"-everboot\n", 2*time.Minute); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s: script after %v", firmware, (<-heard).Sub(start).Round(time.Millisecond))
	if _, err := m.Expect("^iPXE> $", timeout); err != nil {
		t.Fatal(err)
	}
	if err := m.Send("echo mac ${net0/mac} ip ${net0/ip}\r"); err != nil {
		t.Fatal(err)
	}
	match, err := m.Expect(`^mac ([0-9a-f:]{17}) ip ([0-9.]+)\n`, timeout)
	if err != nil {
		t.Fatal(err)
	}
	if match[1] != m.MAC().String() {
		t.Errorf("the machine's MAC is %s, want %s", match[1], m.MAC())
	}
	for _, cut := range []bool{false, true} {
		if cut {
			m.Cable().Cut()
		}
		if err := ping(server, match[2]); (err != nil) != cut {
			t.Errorf("ping with cable cut=%t: %v", cut, err)
		}
	}
	m.Stop()
	if m.Process().Running() {
		t.Error("QEMU survived the loss of power")
	}
}

func TestMachineStartsAKernelAndResets(t *testing.T) {
	l := lab.ForTest(t)
	lab.NeedFile(t, ipxeDir+"ipxe.lkrn")
	script := filepath.Join(bootFiles(t), "boot.ipxe")
	m, err := l.Machine(lab.MachineConfig{Name: "target", Segment: l.Segment("lan"), NIC: "e1000", Kernel: ipxeDir + "ipxe.lkrn", Initrd: script})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := m.Expect("^the word is pcbios-everboot\n", time.Minute); err != nil {
			t.Fatal(err)
		}
		m.Reset()
	}
	if _, err := l.Machine(lab.MachineConfig{Name: "bad", Segment: l.Segment("other"), Extra: []string{"-no-such-option"}}); err == nil ||
		!strings.Contains(err.Error(), "no-such-option") {
		t.Errorf("QEMU's complaint does not show: %v", err)
	}
}
