package image

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/diskfs/go-diskfs/backend/file"
)

// The boot loader is GRUB: for targets that start from the vDisk itself (iPXE's sanboot) rather than from a kernel over
// HTTP. BIOS runs boot.img in the first sector, which loads core.img from the BIOS boot partition; UEFI runs
// \EFI\BOOT\BOOTX64.EFI in the EFI system partition. Both read /boot/grub/grub.cfg on the root.
const (
	loaderBoot = "boot.img"
	loaderCore = "core.img"
	loaderEFI  = "bootx64.efi"
	espFile    = "esp.fat"

	biosBootSize = 1 << 20
	espSize      = 4 << 20

	biosBootName = "everboot-bios"
	espName      = "everboot-efi"
)

var loaderFiles = []string{loaderBoot, loaderCore, loaderEFI}

const (
	// bootCodeSize is how much of the first sector is code; the disk signature and the partition table follow.
	bootCodeSize = 440
	// bootKernelSector is where boot.img keeps the sector of core.img (GRUB, grub/i386/pc/boot.h: GRUB_BOOT_MACHINE_KERNEL_SECTOR).
	bootKernelSector = 0x5c
	// coreBlocklist is where the first sector of core.img keeps where the others are: 64 bits of sector, 16 of count,
	// 16 of segment (the same: GRUB_BOOT_MACHINE_LIST_SIZE from the sector's end).
	coreBlocklist = sectorSize - 12
)

var errLoader = errors.New("this is not GRUB's boot code")

// embedGRUB returns the first bytes of the disk and the content of the BIOS boot partition, which starts at start.
func embedGRUB(boot, core []byte, start int64) (code, partition []byte, err error) {
	if len(boot) != sectorSize || boot[510] != 0x55 || boot[511] != 0xaa {
		return nil, nil, fmt.Errorf("%w: %s", errLoader, loaderBoot)
	}
	if len(core) <= sectorSize || len(core) > biosBootSize {
		return nil, nil, fmt.Errorf("%w: %s of %d bytes", errLoader, loaderCore, len(core))
	}
	le := binary.LittleEndian
	code, partition = bytes.Clone(boot[:bootCodeSize]), bytes.Clone(core)
	sectors := (len(core) - 1) / sectorSize // but the first
	if have := int(le.Uint16(core[coreBlocklist+8:])); have != sectors {
		return nil, nil, fmt.Errorf("%w: %s says that it has %d sectors, and has %d", errLoader, loaderCore, have+1, sectors+1)
	}
	le.PutUint64(code[bootKernelSector:], uint64(start/sectorSize))
	le.PutUint64(partition[coreBlocklist:], uint64(start/sectorSize+1))
	return code, partition, nil
}

// loaderParts returns the two partitions of the loader, which come first on the disk, and the boot code. The loader's files
// stand in dir.
func loaderParts(dir string) (parts []filled, code []byte, err error) {
	boot, err := os.ReadFile(filepath.Join(dir, loaderBoot))
	if err != nil {
		return nil, nil, err
	}
	core, err := os.ReadFile(filepath.Join(dir, loaderCore))
	if err != nil {
		return nil, nil, err
	}
	efi, err := os.ReadFile(filepath.Join(dir, loaderEFI))
	if err != nil {
		return nil, nil, err
	}
	code, partition, err := embedGRUB(boot, core, alignment)
	if err != nil {
		return nil, nil, err
	}
	esp := filepath.Join(dir, espFile)
	if err := writeESP(esp, efi); err != nil {
		return nil, nil, fmt.Errorf("making the EFI system partition: %w", err)
	}
	return []filled{
		{gptPartition{kind: typeBIOSBoot, name: biosBootName, size: biosBootSize},
			func(w io.Writer) error { _, err := w.Write(partition); return err }},
		{gptPartition{kind: typeESP, name: espName, size: espSize},
			func(w io.Writer) error { return copyFile(w, esp) }},
	}, code, nil
}

// writeESP writes the file system that UEFI starts the loader from.
func writeESP(path string, efi []byte) error {
	disk, err := file.CreateFromPath(path, espSize)
	if err != nil {
		return err
	}
	defer disk.Close()
	return fillFAT(disk, espSize, firstDay, []fatFile{{uefiProgram, efi}})
}
