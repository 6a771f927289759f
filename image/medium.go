package image

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/diskfs/go-diskfs/filesystem/iso9660"
)

const (
	// MediumSize is the size of a boot medium in bytes.
	MediumSize = 8 << 20
	// isoBlock is the unit of ISO 9660.
	isoBlock = 2048
	// fatAt and fatSize are the file system for UEFI: the second boot image of the CD, and the only partition of the disk. What BIOS needs
	// lies before it, and the backup of the partition table behind it.
	fatAt   = alignment
	fatSize = 6 << 20

	isolinuxName = "ISOLINUX.BIN"
	efiName      = "EFI.IMG"
	scriptName   = "BOOT.IPX"
	// autoexec is what ipxe.efi runs by itself from the volume that it was started from.
	autoexec = "/autoexec.ipxe"
)

// isolinuxConfig starts iPXE with the script as its initial RAM disk, which iPXE runs.
const isolinuxConfig = `DEFAULT everboot
PROMPT 0
LABEL everboot
  LINUX IPXE.KRN
  INITRD ` + scriptName + "\n"

// firstDay is the date in a medium that nobody gives another: FAT knows none that is earlier.
var firstDay = time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)

// MediumConfig says what a boot medium carries. Equal configurations give equal bytes.
type MediumConfig struct {
	Program Program
	Loaders Loaders
	Time    time.Time // the date that stands in it; zero: 1 January 1980
}

// Medium is a boot medium: one image that starts as CD, as disk and as USB stick, on BIOS and on UEFI, and runs its script.
//
// It is an ISO 9660 file system with two boot images (El Torito 1.0): ISOLINUX for BIOS, a FAT file system for UEFI. Its first 32 KiB, which
// ISO 9660 leaves to others, hold ISOLINUX's boot sector for disks and a partition table, whose one partition is the same FAT. Each of the two
// file systems has a copy of the script, as plain text in a slot of fixed size.
type Medium struct {
	data   []byte
	slots  []int64
	digest string
}

// NewMedium makes a boot medium in memory, in some 20 ms. It needs a temporary folder.
func NewMedium(c MediumConfig) (*Medium, error) {
	if err := c.Loaders.Check(); err != nil {
		return nil, err
	}
	script, err := c.Program.slot()
	if err != nil {
		return nil, err
	}
	if c.Time.Before(firstDay) {
		c.Time = firstDay
	}
	m := &Medium{data: make([]byte, MediumSize)}
	at, err := writeISO(&memory{data: m.data}, c, script)
	if err != nil {
		return nil, fmt.Errorf("making the CD's file system: %w", err)
	}
	if err := fillFAT(&memory{data: m.data[fatAt : fatAt+fatSize]}, fatSize, c.Time, mediumFiles(c.Loaders, script)); err != nil {
		return nil, fmt.Errorf("making the file system for UEFI: %w", err)
	}
	if err := writeMBR(m.data, c.Loaders.MBR, at); err != nil {
		return nil, err
	}
	if m.slots, err = findSlots(&memory{data: m.data}, MediumSize); err != nil || len(m.slots) != 2 {
		return nil, fmt.Errorf("the medium has its script at %v, not twice (%w)", m.slots, errors.Join(errNoMedium, err))
	}
	m.digest = digestOf(m.data)
	return m, nil
}

// mediumFiles are what UEFI needs.
func mediumFiles(l Loaders, script []byte) []fatFile {
	return []fatFile{{autoexec, script}, {uefiProgram, l.IPXEUEFI}}
}

// writeISO writes the file system of the CD, without the image for UEFI, and returns the block of ISOLINUX.
func writeISO(disk *memory, c MediumConfig, script []byte) (isolinux uint32, err error) {
	dir, err := os.MkdirTemp("", "everboot-medium-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	for _, f := range []struct {
		name string
		data []byte
	}{
		{isolinuxName, c.Loaders.ISOLINUX}, {"LDLINUX.C32", c.Loaders.LDLinux}, {"IPXE.KRN", c.Loaders.IPXEBIOS},
		{"ISOLINUX.CFG", []byte(isolinuxConfig)}, {scriptName, script}, {efiName, make([]byte, isoBlock)},
	} {
		if err := os.WriteFile(filepath.Join(dir, f.name), f.data, 0o600); err != nil {
			return 0, err
		}
	}
	iso, err := iso9660.Create(disk, fatAt, 0, isoBlock, dir)
	if err != nil {
		return 0, err
	}
	// Neither Joliet nor Rock Ridge: the former puts the boot record where no BIOS looks, the latter makes ISOLINUX tell capitals from others.
	err = iso.Finalize(iso9660.FinalizeOptions{VolumeIdentifier: "EVERBOOT", ElTorito: &iso9660.ElTorito{
		HideBootCatalog: true,
		Entries: []*iso9660.ElToritoEntry{
			{Platform: iso9660.BIOS, BootFile: isolinuxName, BootTable: true},
			{Platform: iso9660.EFI, BootFile: efiName, HideBootFile: true},
		},
	}})
	if err != nil {
		return 0, err
	}
	return finishISO(disk.data, c.Time)
}

// WriteTo implements io.WriterTo.
func (m *Medium) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(m.data)
	return int64(n), err
}

// Digest returns the SHA-256 of the medium in hexadecimal digits.
func (m *Medium) Digest() string { return m.digest }
