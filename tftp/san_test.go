package tftp_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"everboot/internal/lab"
	"everboot/site"
)

// bootSector is x86 code that prints a line by INT 10h and halts: the smallest boot loader on a vDisk.
func bootSector(line string) []byte {
	b := []byte{
		0x31, 0xc0, 0x8e, 0xd8, // xor ax, ax; mov ds, ax
		0xbe, 0x18, 0x7c, //       mov si, 0x7c18: the text
		0xac, 0x84, 0xc0, 0x74, 0x09, // lodsb; test al, al; jz to hlt
		0xb4, 0x0e, 0xbb, 0x07, 0x00, 0xcd, 0x10, 0xeb, 0xf2, // mov ah, 14; mov bx, 7; int 0x10; jmp to lodsb
		0xf4, 0xeb, 0xfd, // hlt; jmp to hlt
	}
	b = append(append(b, line...), "\r\n\x00"...)
	b = append(b, make([]byte, 510-len(b))...)
	return append(b, 0x55, 0xaa)
}

// TestMachineBootsFromSAN lets machines log in at a real iSCSI target at the boot address, as scripts of both kinds say. iPXE itself
// stands for the kernel: on BIOS ipxe.lkrn, which runs its initrd as a script; on UEFI ipxe.efi, which greets.
func TestMachineBootsFromSAN(t *testing.T) {
	for _, c := range []struct {
		name           string
		firmware       lab.Firmware
		kernel, initrd string
		want           []string
	}{
		{"boot loader BIOS", lab.BIOS, "", "", []string{"the boot sector of the vDisk runs"}},
		{"kernel BIOS", lab.BIOS, "ipxe.lkrn", "words.ipxe", []string{"ipxe.lkrn.*ok", "words.ipxe.*ok", "the initrd was handed over"}},
		{"kernel UEFI", lab.UEFI, "ipxe.efi", "words.ipxe", []string{"ipxe.efi.*ok", "words.ipxe.*ok", "iPXE initialising devices"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBed(t)
			lab.Need(t, "qemu-system-x86_64", "dnsmasq", "tgtd", "tgtadm")
			d := b.view.VDisks["debian"]
			d.Kernel, d.Initrd = c.kernel, c.initrd
			b.view.VDisks["debian"] = d
			b.publish(t)
			words := []byte("#!ipxe\n:again\necho the initrd was handed over\nsleep 1\ngoto again\n")
			if err := os.WriteFile(filepath.Join(b.dir, "root", "words.ipxe"), words, 0o644); err != nil {
				t.Fatal(err)
			}
			b.start(t)
			b.export(t, site.NameTarget("berlin", "debian", 1, digest).IQN(), bootSector("the boot sector of the vDisk runs"))
			b.dnsmasq()
			m, err := b.lab.Machine(lab.MachineConfig{Name: "target", Segment: b.lan, Firmware: c.firmware, MAC: t1.String()})
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range append([]string{"t1 boots debian version 1", "Registered SAN device 0x80|Booting from SAN device 0x80"}, c.want...) {
				if _, err := m.Expect(want, 2*time.Minute); err != nil {
					t.Fatal(err)
				}
			}
			if c.kernel != "" {
				b.expect(t, "event http 52:54:00:00:00:01 "+c.kernel)
			}
		})
	}
}

// export serves a disk by tgtd at the boot address.
func (b *bed) export(t *testing.T, iqn string, sector []byte) {
	t.Helper()
	disk := filepath.Join(b.dir, "disk")
	// iPXE of 2019 reads the boot sector by cylinder, head and sector, and so wants a disk of at least one cylinder (8 MB).
	if err := errors.Join(os.WriteFile(disk, sector, 0o644), os.Truncate(disk, 64<<20)); err != nil {
		t.Fatal(err)
	}
	env := "TGT_IPC_SOCKET=" + b.dir + "/ipc"
	b.server.StartWith(lab.Settings{Env: []string{env}}, "tgtd", "tgtd", "-f", "--iscsi", "portal=198.18.0.10:3260")
	tgtadm := func(args string) error {
		_, err := b.server.Run(t.Context(), append([]string{"env", env, "tgtadm", "--lld", "iscsi"}, strings.Fields(args)...)...)
		return err
	}
	if err := lab.Eventually(20*time.Second, "tgtd answers", func() error { return tgtadm("--op show --mode sys") }); err != nil {
		t.Fatal(err)
	}
	for _, args := range []string{
		"--op new --mode target --tid 1 -T " + iqn, "--op new --mode logicalunit --tid 1 --lun 1 -b " + disk,
		"--op update --mode logicalunit --tid 1 --lun 1 --params readonly=1", "--op bind --mode target --tid 1 -I ALL",
	} {
		if err := tgtadm(args); err != nil {
			t.Fatal(err)
		}
	}
}
