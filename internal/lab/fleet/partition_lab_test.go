package fleet_test

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"everboot/internal/lab"
)

// foreignDisk is a disk image with three partitions of somebody else's, and a gap of 9 MiB behind the second; it returns their content's digests.
func foreignDisk(t *testing.T, h *lab.Host, path string) func() string {
	t.Helper()
	data := make([]byte, 64<<20)
	for i := range data {
		data[i] = byte(i * i >> 8)
	}
	must(t, os.WriteFile(path, data, 0o600))
	if out, err := h.Run(t.Context(), "sgdisk", "-o", "-n", "1:1M:+10M", "-n", "2:12M:+4M", "-t", "2:ef00", "-n", "3:26M:+30M", "-c", "3:data", path); err != nil {
		t.Fatal(err, out)
	}
	return func() string {
		now, err := os.ReadFile(path)
		must(t, err)
		entries := now[2*512 : 2*512+3*128]
		return fmt.Sprintf("%x %x %x %x %x", sha256.Sum256(now[:512]), sha256.Sum256(entries), sha256.Sum256(now[1<<20:11<<20]),
			sha256.Sum256(now[12<<20:16<<20]), sha256.Sum256(now[26<<20:56<<20]))
	}
}

// TestPartitionOnADisk puts a boot partition on a disk that has three others, as a person does, and UEFI starts from it.
func TestPartitionOnADisk(t *testing.T) {
	l := lab.ForTest(t)
	lab.Need(t, "sgdisk", "losetup", "fsck.fat", "qemu-system-x86_64")
	everboot, err := binary()
	must(t, err)
	h := l.Host("desk")
	path := filepath.Join(l.Dir(), "disk.img")
	digests := foreignDisk(t, h, path)
	before := digests()
	// run types a command with an answer, in a shell with a mount table of its own.
	run := func(format string, args ...any) (string, error) {
		return h.Run(t.Context(), "unshare", "-m", "sh", "-ec", fmt.Sprintf(format, args...))
	}
	write := fmt.Sprintf("%s image disk --partition --server 198.18.0.10 --address 198.18.0.51/24 --device", everboot)
	whole, err := os.ReadFile(path)
	must(t, err)
	for _, c := range []struct{ doing, command, want string }{
		{"dry run", write + " " + path + " --dry-run", "make partition 4 (everboot-bdm), 8 MiB at 16 MiB, in a gap"},
		{"wrong answer", "echo y | " + write + " " + path, "is left as it is: the answer was not yes"},
		{"no answer", write + " " + path + " </dev/null", "is left as it is: the answer was not yes"},
		{"mounted", fmt.Sprintf("d=$(losetup -f --show %s); trap 'losetup -d $d' EXIT; mkdir -p %[2]s; cp %[1]s %[2]s.img; %[3]s %[1]s --yes", path, filepath.Join(l.Dir(), "mnt"), write), "is in use as /dev/loop"},
		{"a mounted device", fmt.Sprintf("f=%s; truncate -s 64M $f; mke2fs -q -F $f; d=$(losetup -f --show $f); trap 'umount $d || :; losetup -d $d' EXIT; mount -t tmpfs none /mnt; mkdir /mnt/m; mount $d /mnt/m; %s $d --yes", filepath.Join(l.Dir(), "fs.img"), write), "is mounted at /mnt/m: unmount it first"},
		{"a machine that runs from it", fmt.Sprintf("qemu-system-x86_64 -S -display none -daemonize -pidfile %[1]s.pid -drive file=%[1]s,format=raw,if=virtio; trap 'kill $(cat %[1]s.pid)' EXIT; %[2]s %[1]s --yes", path, write), "is in use by a machine of QEMU"},
		{"no right", "chmod 711 " + l.Dir() + "; setpriv --reuid 65534 --clear-groups " + write + " " + path + " --yes", "may not be written by this user: run this as root"},
	} {
		out, err := run("%s", c.command)
		if c.doing != "dry run" && err == nil || !strings.Contains(out+fmt.Sprint(err), c.want) {
			t.Errorf("%s: %v\n%s\nwant %q", c.doing, err, out, c.want)
		}
	}
	now, err := os.ReadFile(path)
	must(t, err)
	if string(now) != string(whole) {
		t.Fatal("a refusal changed the disk")
	}
	for _, want := range []string{"make partition 4", "write partition 4"} {
		if out, err := run("echo yes | %s %s", write, path); err != nil || !strings.Contains(out, want) {
			t.Fatalf("%v: %s", err, out)
		}
	}
	if digests() != before {
		t.Error("a foreign partition, its entry or the boot sector was changed")
	}
	if out, err := run("sgdisk -v %s", path); err != nil || !strings.Contains(out, "No problems found") || strings.Contains(out, "aution") {
		t.Errorf("%v: %s", err, out)
	}
	if out, err := run("dd if=%s of=%[1]s.fat bs=1M skip=16 count=8 status=none; fsck.fat -n %[1]s.fat", path); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	m, err := l.Machine(lab.MachineConfig{Name: "t", Segment: l.Segment("lan"), Firmware: lab.UEFI, Disk: path, MemoryMB: 256})
	must(t, err)
	defer m.Stop()
	_, err = m.Expect("asking http://198.18.0.10 for the script of "+m.MAC().String(), bootTime)
	must(t, err)
}

// TestMediumOnAFullDisk: the one clear line, and nothing left behind.
func TestMediumOnAFullDisk(t *testing.T) {
	l := lab.ForTest(t)
	everboot, err := binary()
	must(t, err)
	out, err := l.Host("desk").Run(t.Context(), "unshare", "-m", "sh", "-c",
		"mount -t tmpfs -o size=4m none /mnt; "+everboot+" image iso --server 198.18.0.10 --output /mnt/boot.iso; echo exit $?; ls -A /mnt | wc -l")
	must(t, err)
	if want := "everboot: writing /mnt/boot.iso: no space left on device; nothing of it is left\nexit 1\n0"; strings.TrimSpace(out) != want {
		t.Errorf("%s\nwant\n%s", out, want)
	}
}
