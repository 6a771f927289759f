package image

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"strings"
	"testing"

	"github.com/diskfs/go-diskfs/filesystem/fat12"
)

// Sync makes a disk in memory what a partition is put on.
func (m *memory) Sync() error { return nil }

// foreignDisk is a disk of 64 MiB with three partitions of somebody else's and a gap of that many MiB behind the second.
func foreignDisk(t *testing.T, gap int64) *memory {
	t.Helper()
	const size = 64 << 20
	d := &memory{data: bytes.Repeat([]byte{0x5a}, size)}
	parts := []gptPartition{
		{kind: typeLinux, id: guidOf("1"), name: "one", start: alignment, size: 10 << 20},
		{kind: typeESP, id: guidOf("2"), name: "two", start: 11 << 20, size: 5 << 20},
		{kind: typeLinux, id: guidOf("3"), name: "three", start: (16 + gap) << 20, size: (64-16-gap-1)<<20 - 17<<10},
	}
	head, tail, err := gptTables(guidOf("foreign"), size, parts)
	if err != nil {
		t.Fatal(err)
	}
	copy(d.data, head)
	copy(d.data[size-len(tail):], tail)
	return d
}

func mediumConfig(p Program) MediumConfig {
	return MediumConfig{Program: p, Loaders: fakeLoaders()}
}

func TestPartitionTouchesNothingElse(t *testing.T) {
	d := foreignDisk(t, 9)
	before := bytes.Clone(d.data)
	plan, err := PlanPartition(d, int64(len(d.data)))
	if err != nil || plan.Exists || plan.Number != 4 || plan.Start != 16<<20 {
		t.Fatalf("%+v, %v", plan, err)
	}
	if !bytes.Equal(d.data, before) {
		t.Fatal("the plan changed the disk")
	}
	if err := plan.Write(d, mediumConfig(testProgram)); err != nil {
		t.Fatal(err)
	}
	for i := range d.data {
		at := int64(i)
		table := at >= sectorSize && at < 34*sectorSize || at >= int64(len(d.data))-33*sectorSize
		ours := at >= plan.Start && at < plan.Start+PartitionSize
		if d.data[i] != before[i] && !table && !ours {
			t.Fatalf("byte %d was changed", i)
		}
	}
	now, err := readGPT(d, int64(len(d.data)))
	if err != nil || len(now.partitions()) != 4 {
		t.Fatalf("%v, %v", now, err)
	}
	fat, err := fat12.Read(&memory{data: d.data[plan.Start : plan.Start+PartitionSize]}, PartitionSize, 0, sectorSize)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := fat.ReadFile(biosKernel); err != nil || !bytes.Equal(got, fakeLoaders().IPXEBIOS) {
		t.Errorf("%s: %d bytes, %v", biosKernel, len(got), err)
	}

	again, err := PlanPartition(d, int64(len(d.data)))
	if err != nil || !again.Exists || again.Start != plan.Start || again.Number != 4 {
		t.Fatalf("the second time: %+v, %v", again, err)
	}
	// The same boot programs: what fails in the middle leaves the old script.
	if err := again.Write(&dying{d, 3}, mediumConfig(otherProgram)); !errors.Is(err, errPower) {
		t.Fatal(err)
	}
	slots, err := findSlots(d, int64(len(d.data)))
	if err != nil || len(slots) != 1 || runs(t, d.data[slots[0]:slots[0]+slotSize]) != "here here" {
		t.Fatalf("slots at %v, %v", slots, err)
	}
	if err := again.Write(d, mediumConfig(otherProgram)); err != nil || runs(t, d.data[slots[0]:slots[0]+slotSize]) != "there there" {
		t.Fatal(err)
	}
	newer := mediumConfig(otherProgram)
	newer.Loaders.IPXEUEFI = append(newer.Loaders.IPXEUEFI, "newer"...)
	if err := again.Write(d, newer); err != nil || !bytes.Contains(d.data, []byte("\nnewer")) {
		t.Fatalf("newer boot programs are not written: %v", err)
	}
	for _, changed := range []bool{true, false} {
		if got, err := UpdateMedium(d, int64(len(d.data)), testProgram); err != nil || got != changed {
			t.Errorf("%v, %v", got, err)
		}
	}
}

func TestPartitionIsRefused(t *testing.T) {
	const size = 64 << 20
	for want, change := range map[string]func(d *memory){
		"no free gap of 8 MiB; the largest has 7168 KiB":                      func(*memory) {},
		"no partition table":                                                  func(d *memory) { clear(d.data) },
		"a GPT is needed":                                                     func(d *memory) { clear(d.data[512:]) },
		"its MBR has partitions of its own":                                   func(d *memory) { d.data[446+4] = 0x83 },    // made an MBR disk later
		"its MBR has partitions of its own beside":                            func(d *memory) { d.data[446+16+4] = 0x0c }, // hybrid
		"no MBR that says so":                                                 func(d *memory) { clear(d.data[:512]) },
		"broken (checksum of the header)":                                     func(d *memory) { d.data[512+60]++ },
		"broken (checksum)":                                                   func(d *memory) { d.data[1024+60]++ },
		"the backup: its partition table is":                                  func(d *memory) { d.data[size-512+60]++ },
		"broken (it lies where partitions may)":                               func(d *memory) { reseal(d, 40, 0) },
		"broken (its backup lies where partitions may)":                       func(d *memory) { reseal(d, 48, size/sectorSize-2) },
		"partition 2 is called everboot-bdm, but is not of the type and size": func(d *memory) { rename(t, d, 1) },
	} {
		d := foreignDisk(t, 7)
		change(d)
		before := bytes.Clone(d.data)
		if _, err := PlanPartition(d, size); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
		if !bytes.Equal(d.data, before) {
			t.Errorf("%s: the disk was changed", want)
		}
	}
}

// reseal puts a sector into a field of the first header, and makes its checksum right.
func reseal(d *memory, field int, sector uint64) {
	header := d.data[sectorSize : 2*sectorSize]
	binary.LittleEndian.PutUint64(header[field:], sector)
	clear(header[16:20])
	binary.LittleEndian.PutUint32(header[16:], crc32.ChecksumIEEE(header[:92]))
}

// rename gives an entry the name of ours.
func rename(t *testing.T, d *memory, index int) {
	t.Helper()
	table, err := readGPT(d, int64(len(d.data)))
	if err != nil {
		t.Fatal(err)
	}
	name := table.entries[index*gptEntrySize+56 : (index+1)*gptEntrySize]
	clear(name)
	for i, c := range mediumName {
		binary.LittleEndian.PutUint16(name[2*i:], uint16(c))
	}
	if err := table.write(d, d.Sync); err != nil {
		t.Fatal(err)
	}
}

// failing is a disk that fails at the n-th write.
type failing struct {
	*memory
	left int
}

var errDisk = errors.New("input/output error")

func (f *failing) WriteAt(b []byte, at int64) (int, error) {
	if f.left--; f.left < 0 {
		return 0, errDisk
	}
	return f.memory.WriteAt(b, at)
}

// TestPartitionThatFailsLeavesATable: whichever write fails, one copy of the table is whole, and the foreign partitions are in it.
func TestPartitionThatFailsLeavesATable(t *testing.T) {
	for n := range 5 {
		d := &failing{foreignDisk(t, 9), n}
		plan, err := PlanPartition(d, int64(len(d.data)))
		if err != nil {
			t.Fatal(err)
		}
		if err := plan.Write(d, mediumConfig(testProgram)); !errors.Is(err, errDisk) {
			t.Fatalf("write %d: %v", n, err)
		}
		header := func(at int64) error {
			_, err := parseGPT(d, int64(len(d.data)), d.data[at:at+sectorSize], uint64(at/sectorSize))
			return err
		}
		if first, backup := header(sectorSize), header(int64(len(d.data))-sectorSize); first != nil && backup != nil {
			t.Errorf("write %d: %v, %v", n, first, backup)
		}
	}
}

// FuzzReadGPT: a disk of anybody's must not be able to do more than to be refused.
func FuzzReadGPT(f *testing.F) {
	f.Add([]byte("EFI PART"), uint16(512))
	f.Fuzz(func(t *testing.T, patch []byte, at uint16) {
		d := foreignDisk(t, 9)
		copy(d.data[at:], patch)
		table, err := readGPT(d, int64(len(d.data)))
		if err == nil {
			table.gap(PartitionSize)
		}
	})
}

func TestMountOfFindsDiskAndPartitions(t *testing.T) {
	const info = "36 35 8:17 / /mnt rw shared:1 - ext4 /dev/sdb1 rw\n37 35 259:2 / /boot/efi rw - vfat /dev/nvme0n1p2 rw\n38 35 7:10 / /loop rw - ext4 /dev/loop10 rw\nnonsense\n"
	for device, want := range map[string]string{
		"/dev/sdb": "/mnt", "/dev/sdb1": "/mnt", "/dev/sdc": "", "/dev/sd": "", "/dev/nvme0n1": "/boot/efi", "/dev/nvme0n": "", "/dev/loop1": "", "/dev/loop10": "/loop",
	} {
		if _, at := mountOf(strings.NewReader(info), device); at != want {
			t.Errorf("%s: %q, want %q", device, at, want)
		}
	}
}

func TestTrustNeedsAnAuthority(t *testing.T) {
	l := fakeLoaders()
	for _, text := range []string{"", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"} {
		if err := l.Trust([]byte(text)); err == nil {
			t.Errorf("%q is trusted", text)
		}
	}
}
