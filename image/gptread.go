package image

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"unicode/utf16"
)

// gptTable is the partition table of a disk as it stands there, both copies checked.
type gptTable struct {
	header  []byte // of the first copy, one sector
	entries []byte
	// first and last usable byte, the latter exclusive; where the entries of the first copy and the backup's header and entries are
	first, last                      int64
	entriesAt, backupAt, backupTable int64
	entrySize                        int
}

// readGPT reads the partition table of a disk of size bytes. The error says why a disk is not touched.
func readGPT(disk io.ReaderAt, size int64) (*gptTable, error) {
	sectors := make([]byte, 2*sectorSize)
	if _, err := disk.ReadAt(sectors, 0); err != nil {
		return nil, fmt.Errorf("reading the partition table: %w", err)
	}
	header := sectors[sectorSize:]
	if string(header[:8]) != "EFI PART" {
		if sectors[510] == 0x55 && sectors[511] == 0xaa {
			return nil, errors.New("its partition table is an MBR, or it has a file system without any: a GPT is needed")
		}
		return nil, errors.New("it has no partition table; make a GPT first, or write a whole medium: everboot image disk --output FILE")
	}
	if err := checkProtective(sectors[:sectorSize]); err != nil {
		return nil, err
	}
	t, err := parseGPT(disk, size, header, 1)
	if err != nil {
		return nil, err
	}
	backup := make([]byte, sectorSize)
	if _, err := disk.ReadAt(backup, t.backupAt); err != nil {
		return nil, fmt.Errorf("reading the backup of the partition table: %w", err)
	}
	b, err := parseGPT(disk, size, backup, uint64(t.backupAt/sectorSize))
	if err != nil {
		return nil, fmt.Errorf("the backup: %w", err)
	}
	if !bytes.Equal(b.entries, t.entries) {
		return nil, errors.New("its two partition tables differ: mend them first, with gdisk, say")
	}
	t.backupTable = b.entriesAt
	table := roundUp(int64(len(t.entries)), sectorSize)
	if t.entriesAt < 2*sectorSize || t.entriesAt+table > t.first {
		return nil, broken("it lies where partitions may")
	}
	if t.last > t.backupTable || t.backupTable+table > t.backupAt {
		return nil, broken("its backup lies where partitions may")
	}
	return t, nil
}

const (
	mbrTable, mbrEntrySize, mbrEntries = 446, 16, 4
	mbrProtective                      = 0xee
)

// checkProtective refuses a disk whose MBR says more than that there is a GPT (UEFI 2.10 §5.2.3): of a disk that was partitioned as MBR later both copies of
// the old GPT may be whole still, and all systems go by the MBR.
func checkProtective(sector []byte) error {
	protective := 0
	for i := range mbrEntries {
		switch entry := sector[mbrTable+i*mbrEntrySize:]; entry[4] {
		case mbrProtective:
			protective++
		case 0:
		default:
			return errors.New("its MBR has partitions of its own beside a GPT, of which one may be old: make sure which is true, and make the other go, with gdisk, say")
		}
	}
	if sector[510] != 0x55 || sector[511] != 0xaa || protective != 1 {
		return errors.New("it has a GPT, but no MBR that says so: the GPT may be old; mend the MBR first, with gdisk, say")
	}
	return nil
}

func broken(what string) error {
	return fmt.Errorf("its partition table is broken (%s): mend it first, with gdisk, say", what)
}

// parseGPT checks one copy (UEFI 2.10 §5.3.2).
func parseGPT(disk io.ReaderAt, size int64, header []byte, own uint64) (*gptTable, error) {
	le := binary.LittleEndian
	headerSize := le.Uint32(header[12:])
	if string(header[:8]) != "EFI PART" || headerSize < 92 || headerSize > sectorSize || le.Uint64(header[24:]) != own {
		return nil, broken("header")
	}
	sum := bytes.Clone(header[:headerSize])
	le.PutUint32(sum[16:], 0)
	if crc32.ChecksumIEEE(sum) != le.Uint32(header[16:]) {
		return nil, broken("checksum of the header")
	}
	count, entrySize := le.Uint32(header[80:]), le.Uint32(header[84:])
	if count == 0 || count > 1024 || entrySize < gptEntrySize || entrySize > 4096 || entrySize%8 != 0 {
		return nil, broken("size of the table")
	}
	const maxSector = 1 << 53 // whatever is larger is no sector, and would not fit when it is made bytes
	sectors := make([]int64, 0, 4)
	for _, field := range []int{32, 40, 48, 72} {
		n := le.Uint64(header[field:])
		if n >= maxSector || int64(n) >= size/sectorSize {
			return nil, broken("it is larger than the disk")
		}
		sectors = append(sectors, int64(n)*sectorSize)
	}
	t := &gptTable{
		header: bytes.Clone(header), entries: make([]byte, count*entrySize), entrySize: int(entrySize),
		backupAt: sectors[0], first: sectors[1], last: sectors[2] + sectorSize, entriesAt: sectors[3],
	}
	if _, err := disk.ReadAt(t.entries, t.entriesAt); err != nil {
		return nil, fmt.Errorf("reading the partition table: %w", err)
	}
	if crc32.ChecksumIEEE(t.entries) != le.Uint32(header[88:]) {
		return nil, broken("checksum")
	}
	return t, nil
}

// span is a part of a disk in bytes, the end exclusive.
type span struct{ start, end int64 }

// partition is one entry in use.
type partition struct {
	span
	index int
	kind  guid
	name  string
}

// partitions returns the entries in use, by their place on the disk.
func (t *gptTable) partitions() []partition {
	var list []partition
	le := binary.LittleEndian
	for i := range len(t.entries) / t.entrySize {
		e := t.entries[i*t.entrySize:]
		p := partition{index: i, kind: guid(e[:16])}
		if p.kind == (guid{}) {
			continue
		}
		const maxSector = 1 << 53
		p.span = span{int64(min(le.Uint64(e[32:]), maxSector)) * sectorSize, int64(min(le.Uint64(e[40:]), maxSector)+1) * sectorSize}
		var units []uint16
		for u := e[56:gptEntrySize]; len(u) >= 2 && (u[0] != 0 || u[1] != 0); u = u[2:] {
			units = append(units, le.Uint16(u))
		}
		p.name = string(utf16.Decode(units))
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b partition) int { return int(min(1, max(-1, a.start-b.start))) })
	return list
}

// gap returns the first place for size bytes that no partition has, aligned, and the size of the largest gap.
func (t *gptTable) gap(size int64) (start int64, found bool, largest int64) {
	at := roundUp(t.first, alignment)
	look := func(end int64) {
		if end > at {
			largest = max(largest, end-at)
		}
		if !found && end-at >= size {
			start, found = at, true
		}
	}
	for _, p := range t.partitions() {
		look(p.start)
		at = max(at, roundUp(p.end, alignment))
	}
	look(t.last)
	return start, found, largest
}

// add puts a partition into a free entry, and returns the table with it, as both copies stand on the disk.
func (t *gptTable) add(p gptPartition) (index int, err error) {
	for i := range len(t.entries) / t.entrySize {
		e := t.entries[i*t.entrySize : i*t.entrySize+gptEntrySize]
		if !allZero(e[:16]) {
			continue
		}
		clear(e)
		return i, p.put(e)
	}
	return 0, errors.New("its partition table has no free entry")
}

// write writes both copies, the backup first: at any moment one of them is whole.
func (t *gptTable) write(disk io.WriterAt, sync func() error) error {
	le := binary.LittleEndian
	header := bytes.Clone(t.header)
	for _, copyAt := range []struct{ own, other, entries int64 }{
		{t.backupAt, sectorSize, t.backupTable}, {sectorSize, t.backupAt, t.entriesAt},
	} {
		le.PutUint64(header[24:], uint64(copyAt.own/sectorSize))
		le.PutUint64(header[32:], uint64(copyAt.other/sectorSize))
		le.PutUint64(header[72:], uint64(copyAt.entries/sectorSize))
		le.PutUint32(header[88:], crc32.ChecksumIEEE(t.entries))
		le.PutUint32(header[16:], 0)
		le.PutUint32(header[16:], crc32.ChecksumIEEE(header[:le.Uint32(header[12:])]))
		if _, err := disk.WriteAt(t.entries, copyAt.entries); err != nil {
			return fmt.Errorf("writing the partition table: %w", err)
		}
		if _, err := disk.WriteAt(header, copyAt.own); err != nil {
			return fmt.Errorf("writing the partition table: %w", err)
		}
		if err := sync(); err != nil {
			return fmt.Errorf("writing the partition table: %w", err)
		}
	}
	return nil
}
