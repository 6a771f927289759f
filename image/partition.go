package image

import (
	"bytes"
	"fmt"
	"io"
	"slices"
)

// PartitionSize is the size of a boot medium that is a partition, in bytes.
const PartitionSize = 8 << 20

// biosKernel is iPXE for BIOS in a partition, for the boot loader of the disk to start.
const biosKernel = "/ipxe.lkrn"

// Plan is what would be done to a disk to have a boot partition on it.
type Plan struct {
	// Start is where the partition begins, in bytes; Number what the operating system calls it, from 1.
	Start  int64
	Number int
	// Exists says that it is there already, and is written again; else it goes into a gap.
	Exists bool

	table *gptTable
	size  int64
}

// String says it in one line.
func (p Plan) String() string {
	what := "make partition %d (%s), 8 MiB at %d MiB, in a gap"
	if p.Exists {
		what = "write partition %d (%s), 8 MiB at %d MiB, which is a boot partition of everboot, again"
	}
	return fmt.Sprintf(what+"; nothing else is written", p.Number, mediumName, p.Start>>20)
}

// disk is what a partition is put on, or an image or a device that is changed in place.
type disk interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
}

// PlanPartition looks at a disk of size bytes and says what would be done: write the boot partition that is there again, or make one in a gap.
// It changes nothing. The error says why this disk is left alone.
func PlanPartition(d io.ReaderAt, size int64) (Plan, error) {
	t, err := readGPT(d, size)
	if err != nil {
		return Plan{}, err
	}
	for _, p := range t.partitions() {
		if p.name != mediumName {
			continue
		}
		if kind, _ := parseGUID(typeESP); p.kind != kind || p.end-p.start != PartitionSize || p.end > size {
			return Plan{}, fmt.Errorf("partition %d is called %s, but is not of the type and size of one: rename it, or remove it", p.index+1, p.name)
		}
		if slots, err := findSlots(io.NewSectionReader(d, p.start, PartitionSize), PartitionSize); err != nil || len(slots) == 0 {
			return Plan{}, fmt.Errorf("partition %d is called %s, but holds something else: rename it, or remove it", p.index+1, p.name)
		}
		return Plan{Start: p.start, Number: p.index + 1, Exists: true, table: t, size: size}, nil
	}
	start, found, largest := t.gap(PartitionSize)
	if !found {
		return Plan{}, fmt.Errorf("there is no free gap of 8 MiB; the largest has %d KiB: make a partition smaller first", largest>>10)
	}
	// On a copy: a plan changes nothing.
	index, err := t.add(gptPartition{
		kind: typeESP, id: guidOf("boot partition", string(t.header[56:72])), name: mediumName, start: start, size: PartitionSize,
	})
	return Plan{Start: start, Number: index + 1, table: t, size: size}, err
}

// Write does what the plan says. A partition that has these boot programs already is given its script in place. Else the partition's content comes first, and the
// table, which makes it one, last: when it fails before, the disk has what it had.
func (p Plan) Write(d disk, c MediumConfig) error {
	script, err := c.Program.slot()
	if err != nil {
		return err
	}
	if err := c.Loaders.Check(); err != nil {
		return err
	}
	if c.Time.Before(firstDay) {
		c.Time = firstDay
	}
	content := &memory{data: make([]byte, PartitionSize)}
	files := append(mediumFiles(c.Loaders, script), fatFile{biosKernel, c.Loaders.IPXEBIOS})
	if err := fillFAT(content, PartitionSize, c.Time, files); err != nil {
		return fmt.Errorf("making the file system: %w", err)
	}
	if p.Exists {
		there := section{d, p.Start}
		same, err := differOnlyInProgram(there, content)
		if err != nil {
			return err
		}
		if same { // in place, which a power failure cannot harm
			_, err := UpdateMedium(there, PartitionSize, c.Program)
			return err
		}
	}
	if _, err := d.WriteAt(content.data, p.Start); err != nil {
		return fmt.Errorf("writing the partition: %w", err)
	}
	if err := d.Sync(); err != nil {
		return fmt.Errorf("writing the partition: %w", err)
	}
	if p.Exists {
		return nil
	}
	return p.table.write(d, d.Sync)
}

// section is a part of a disk, from a byte on.
type section struct {
	disk
	start int64
}

// ReadAt implements io.ReaderAt.
func (s section) ReadAt(b []byte, at int64) (int, error) { return s.disk.ReadAt(b, s.start+at) }

// WriteAt implements io.WriterAt.
func (s section) WriteAt(b []byte, at int64) (int, error) { return s.disk.WriteAt(b, s.start+at) }

// differOnlyInProgram reports whether a boot partition has what it shall have everywhere but in its slot.
func differOnlyInProgram(there io.ReaderAt, want *memory) (bool, error) {
	now := make([]byte, PartitionSize)
	if _, err := there.ReadAt(now, 0); err != nil {
		return false, fmt.Errorf("reading the partition: %w", err)
	}
	has, err := findSlots(&memory{data: now}, PartitionSize)
	if err != nil {
		return false, err
	}
	wants, err := findSlots(want, PartitionSize)
	if err != nil || len(wants) != 1 || !slices.Equal(has, wants) {
		return false, err
	}
	at := wants[0]
	return bytes.Equal(now[:at], want.data[:at]) && bytes.Equal(now[at+slotSize:], want.data[at+slotSize:]), nil
}
