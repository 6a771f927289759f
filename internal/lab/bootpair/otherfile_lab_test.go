package bootpair_test

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"everboot/appliance/web"
	"everboot/internal/lab"
	"everboot/internal/lab/bootpair"
)

// TestLabOtherFileBeginsAnew: the owner of the floating address dies when its clients have its OACK and no block; who takes over has another file of
// that name and size. Its clients get that file whole.
func TestLabOtherFileBeginsAnew(t *testing.T) {
	lab.Need(t, "busybox", "curl", "nft")
	old, want := make([]byte, 300000), make([]byte, 300000)
	rand.Read(old)
	rand.Read(want)
	p, _ := started(t, old, "")
	owner, heir := together(t, p)
	p.LAN.Capture("other-file")
	otherFile(t, p, heir, want)
	deafen(t, p, owner, p.From[0].String())
	var group sync.WaitGroup
	for name, argv := range map[string][]string{
		"busybox": {"busybox", "tftp", "-g", "-b", "1428", "-r", bootpair.FileName, "-l", "OUT", bootpair.VIP},
		"curl":    {"curl", "-sSf", "-m", "60", "-o", "OUT", "tftp://" + bootpair.VIP + "/" + bootpair.FileName},
	} {
		out := filepath.Join(t.TempDir(), name)
		argv[slices.Index(argv, "OUT")] = out
		group.Go(func() {
			said, err := p.Client.Run(t.Context(), argv...)
			got, _ := os.ReadFile(out)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: %d bytes of %d, the old file's %t, %v: %s", name, len(got), len(want), bytes.Equal(got, old), err, said)
			}
		})
	}
	asked(t, p, owner, 2)
	p.Host[owner].KillAll()
	group.Wait()
	seen, err := p.LAN.TFTPSeen()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range seen {
		if s.File == bootpair.FileName && s.Err != nil {
			t.Errorf("%v: %v", s.Client, s.Err)
		}
	}
}

// TestLabFirmwareBeginsAnew: iPXE of 2019, QEMU's ROM, runs the longer script of who took over, for it had nothing of the other one.
func TestLabFirmwareBeginsAnew(t *testing.T) {
	lab.Need(t, "qemu-system-x86_64", "dnsmasq", "nft")
	script := func(says string, lines int) []byte {
		return []byte("#!ipxe\n" + strings.Repeat("# "+says+"\n", lines) + "echo It is " + says + "\nsleep 600\n")
	}
	p, _ := started(t, script("the old file", 200), "")
	owner, heir := together(t, p)
	otherFile(t, p, heir, script("the new file", 900))
	deafen(t, p, owner, "198.18.2.0/24")
	lab.Dnsmasq(p.Client, "--dhcp-range=198.18.2.100,198.18.2.199,255.254.0.0", "--dhcp-boot="+bootpair.FileName+",,"+bootpair.VIP)
	m, err := p.Lab.Machine(lab.MachineConfig{Name: "target", Segment: p.LAN, Firmware: lab.BIOS, DiskMB: 1})
	if err != nil {
		t.Fatal(err)
	}
	asked(t, p, owner, 1)
	p.Host[owner].KillAll()
	if _, err := m.Expect("It is the new file", time.Minute); err != nil {
		t.Fatal(err)
	}
	m.Stop()
	s, err := p.Status(heir)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(s.Past, func(past web.Transfer) bool {
		return past.File == bootpair.FileName && past.Resumed == 1 && past.Result == "complete"
	}) {
		t.Errorf("it asked again, instead of going on: %+v", s.Past)
	}
}

// asked waits until an appliance has so many requests for the file; its peer is told within the time that it takes to say so.
func asked(t *testing.T, p *bootpair.Pair, name string, clients int) {
	t.Helper()
	if err := lab.Eventually(time.Minute, "clients ask for the file", func() error {
		s, err := p.Status(name)
		if err != nil {
			return err
		}
		n := 0
		for _, tr := range s.Transfers {
			if tr.File == bootpair.FileName {
				n++
			}
		}
		if n != clients {
			return fmt.Errorf("transfers: %+v", s.Transfers)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// otherFile gives an appliance another content of the file.
func otherFile(t *testing.T, p *bootpair.Pair, name string, content []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(p.Lab.Dir(), name, "boot", bootpair.FileName), content, 0o644); err != nil {
		t.Fatal(err)
	}
}

// deafen keeps TFTP's ACKs of some clients from an appliance: they come no further than its OACK.
func deafen(t *testing.T, p *bootpair.Pair, name, clients string) {
	t.Helper()
	for _, rule := range []string{
		"add table ip acks", "add chain ip acks in { type filter hook input priority 0; }", "add rule ip acks in ip saddr " + clients + " udp dport 69 @th,64,16 4 drop",
	} {
		if out, err := p.Host[name].Run(t.Context(), "nft", rule); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
}
