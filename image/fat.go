package image

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path"
	"time"

	"github.com/diskfs/go-diskfs/backend"
	"github.com/diskfs/go-diskfs/filesystem/fat12"
)

// fatFile is a file of a FAT file system. Its path begins with a slash.
type fatFile struct {
	path string
	data []byte
}

// uefiProgram is what UEFI starts from a disk that it does not know (UEFI 2.10 §3.5.1.1).
const uefiProgram = "/EFI/BOOT/BOOTX64.EFI"

// fillFAT makes a FAT12 file system of that size with these files. Equal files and dates give equal bytes.
func fillFAT(disk backend.Storage, size int64, date time.Time, files []fatFile) error {
	const reproducible = true
	fat, err := fat12.Create(disk, size, 0, sectorSize, "EVERBOOT", reproducible)
	if err != nil {
		return err
	}
	for _, file := range files {
		if dir := path.Dir(file.path); dir != "/" {
			if err := fat.Mkdir(dir); err != nil {
				return err
			}
		}
		f, err := fat.OpenFile(file.path, os.O_CREATE|os.O_RDWR)
		if err != nil {
			return err
		}
		if _, err := f.Write(file.data); err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	return mendFAT(disk, date)
}

// fatLayout is where the parts of a FAT12 file system are, in bytes.
type fatLayout struct{ tables, tableSize, count, root, rootSize, data, cluster int64 }

// layoutOf reads the boot sector.
func layoutOf(disk io.ReaderAt) (l fatLayout, err error) {
	b := make([]byte, sectorSize)
	if _, err := disk.ReadAt(b, 0); err != nil {
		return l, fmt.Errorf("reading the boot sector: %w", err)
	}
	le := binary.LittleEndian
	l.cluster = int64(b[13]) * sectorSize
	l.tables = int64(le.Uint16(b[14:])) * sectorSize
	l.count, l.tableSize = int64(b[16]), int64(le.Uint16(b[22:]))*sectorSize
	l.root = l.tables + l.count*l.tableSize
	l.rootSize = int64(le.Uint16(b[17:])) * fatEntry
	l.data = l.root + l.rootSize
	return l, nil
}

// mendFAT does what go-diskfs leaves undone. It takes cluster 2 for the root directory, as FAT32 has it; on FAT12 the root has a place of its own, and
// fsck.fat would find a cluster that nobody owns. And it dates what it makes with the clock.
func mendFAT(disk backend.Storage, date time.Time) error {
	w, err := disk.Writable()
	if err != nil {
		return err
	}
	l, err := layoutOf(w)
	if err != nil {
		return err
	}
	for i := range l.count {
		at := l.tables + i*l.tableSize + 3 // cluster 2: 12 bits from byte 3
		entry := make([]byte, 2)
		if _, err := w.ReadAt(entry, at); err != nil {
			return fmt.Errorf("reading the table: %w", err)
		}
		if _, err := w.WriteAt([]byte{0, entry[1] & 0xf0}, at); err != nil {
			return fmt.Errorf("writing the table: %w", err)
		}
	}
	return l.dateFolder(w, l.root, l.rootSize, date.UTC())
}

const (
	fatEntry    = 32
	fatLongName = 0x0f // in the place of the attributes: a part of a long name, which has no date
	fatFolder   = 0x10
)

// dateFolder dates every entry of a folder, and of the folders in it, each of which is one cluster.
func (l fatLayout) dateFolder(w backend.WritableFile, at, size int64, date time.Time) error {
	b := make([]byte, size)
	if _, err := w.ReadAt(b, at); err != nil {
		return fmt.Errorf("reading a folder: %w", err)
	}
	le := binary.LittleEndian
	day := uint16((date.Year()-1980)<<9 | int(date.Month())<<5 | date.Day())
	clock := uint16(date.Hour()<<11 | date.Minute()<<5 | date.Second()/2)
	for e := b; len(e) >= fatEntry && e[0] != 0; e = e[fatEntry:] {
		if e[11] == fatLongName {
			continue
		}
		e[13] = 0
		for _, field := range []struct {
			at    int
			value uint16
		}{{14, clock}, {16, day}, {18, day}, {22, clock}, {24, day}} {
			le.PutUint16(e[field.at:], field.value)
		}
		if first := int64(le.Uint16(e[26:])); e[11]&fatFolder != 0 && e[0] != '.' {
			if err := l.dateFolder(w, l.data+(first-2)*l.cluster, l.cluster, date); err != nil {
				return err
			}
		}
	}
	if _, err := w.WriteAt(b, at); err != nil {
		return fmt.Errorf("writing a folder: %w", err)
	}
	return nil
}
