package bootpair_test

import (
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"os"
	"testing"
	"time"

	"everboot/internal/lab"
	"everboot/internal/lab/bootpair"
)

// TestLabFirmwareGoesOn: OVMF's PXE reads its program while guard and worker of the floating address's owner die. It asks for the file once,
// gets every byte of it from the other appliance, and the program runs.
func TestLabFirmwareGoesOn(t *testing.T) {
	const program = "/usr/lib/ipxe/snponly.efi"
	lab.Need(t, "qemu-system-x86_64", "dnsmasq", "dumpcap")
	lab.NeedFile(t, program)
	want, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	// What follows a program in its file is read and not looked at. It is so long that the middle cannot be missed.
	more := make([]byte, 48<<20)
	rand.Read(more)
	want = append(want, more...)
	p, _ := started(t, want, "")
	owner, heir := together(t, p)
	lab.Dnsmasq(p.Client, "--dhcp-range=198.18.2.100,198.18.2.199,255.254.0.0", "--dhcp-userclass=set:ipxe,iPXE",
		"--dhcp-boot=tag:!ipxe,"+bootpair.FileName+",,"+bootpair.VIP)
	p.LAN.Capture("lan")
	m, err := p.Lab.Machine(lab.MachineConfig{Name: "target", Segment: p.LAN, Firmware: lab.UEFI})
	if err != nil {
		t.Fatal(err)
	}
	inMiddle(t, p, owner)
	p.Host[owner].KillAll()
	if _, err := m.Expect(`Open Source Network Boot Firmware`, 3*time.Minute); err != nil {
		t.Fatal(err)
	}
	m.Stop()
	seen, err := p.LAN.TFTPSeen()
	if err != nil {
		t.Fatal(err)
	}
	whole := 0
	for _, s := range seen {
		if s.File != bootpair.FileName { // the appliances look at each other, and iPXE asks for more
			continue
		}
		t.Logf("%v asked %v for %q: %d bytes of %d, %v", s.Client, s.Server, s.File, len(s.Content), len(want), s.Err)
		switch {
		case len(s.Content) == 0: // the question for the size
		case s.Err != nil || sha256.Sum256(s.Content) != sha256.Sum256(want):
			t.Errorf("%v was sent something else: %d bytes, equal up to %d, %v", s.Client, len(s.Content), common(s.Content, want), s.Err)
		default:
			whole++
		}
	}
	if whole != 1 {
		t.Errorf("the file was read %d times, want once", whole)
	}
	s, err := p.Status(heir)
	if err != nil {
		t.Fatal(err)
	}
	for _, past := range s.Past {
		if past.File == bootpair.FileName && past.Resumed > 0 && past.Result == "complete" {
			return
		}
	}
	t.Errorf("%s led no transfer to its end: %+v", heir, s.Past)
}

// inMiddle waits until firmware has a tenth of the file, and fails if it has all but a tenth already.
func inMiddle(t *testing.T, p *bootpair.Pair, owner string) {
	t.Helper()
	err := lab.Eventually(3*time.Minute, "firmware reads the file", func() error {
		s, err := p.Status(owner)
		if err != nil {
			return err
		}
		for _, tr := range s.Transfers {
			if tr.Bytes > tr.Size/10 {
				if tr.Bytes > tr.Size-tr.Size/10 {
					t.Fatalf("too late: the client has %d bytes of %d", tr.Bytes, tr.Size)
				}
				t.Logf("the client has %d bytes of %d", tr.Bytes, tr.Size)
				return nil
			}
		}
		return fmt.Errorf("transfers: %+v", s.Transfers)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// common returns how many bytes two contents begin with alike.
func common(a, b []byte) int {
	n := 0
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return n
}
