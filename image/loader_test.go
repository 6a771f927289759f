package image

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem/fat12"
)

// fakeGRUB returns a boot.img and a core.img of that many bytes.
func fakeGRUB(size int) (boot, core []byte) {
	boot = bytes.Repeat([]byte{0xb0}, sectorSize)
	boot[510], boot[511] = 0x55, 0xaa
	core = bytes.Repeat([]byte{0xc0}, size)
	binary.LittleEndian.PutUint16(core[coreBlocklist+8:], uint16((size-1)/sectorSize))
	return boot, core
}

func TestEmbedGRUBTellsEachPartWhereTheNextIs(t *testing.T) {
	boot, core := fakeGRUB(3*sectorSize + 1)
	code, partition, err := embedGRUB(boot, core, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	if at := binary.LittleEndian.Uint64(code[bootKernelSector:]); at != 2048 {
		t.Errorf("the boot sector loads sector %d", at)
	}
	if at := binary.LittleEndian.Uint64(partition[coreBlocklist:]); at != 2049 {
		t.Errorf("the first sector of core.img loads from sector %d", at)
	}
	if len(code) != bootCodeSize || len(partition) != len(core) {
		t.Errorf("%d bytes of code, a partition of %d", len(code), len(partition))
	}
	if boot[bootKernelSector] != 0xb0 || core[coreBlocklist] != 0xc0 {
		t.Error("the inputs were changed")
	}
}

func TestEmbedGRUBRefusesWhatIsNotGRUB(t *testing.T) {
	boot, core := fakeGRUB(4096)
	wrongCount := bytes.Clone(core)
	wrongCount[coreBlocklist+8]++
	tests := []struct {
		name       string
		boot, core []byte
	}{
		{"no boot code", nil, core},
		{"boot code without signature", make([]byte, sectorSize), core},
		{"no core", boot, nil},
		{"a core of one sector", boot, core[:sectorSize]},
		{"a core that was cut", boot, core[:2048]},
		{"a core with a wrong count", boot, wrongCount},
		{"a core that does not fit", boot, make([]byte, biosBootSize+1)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, _, err := embedGRUB(tt.boot, tt.core, 1<<20); !errors.Is(err, errLoader) {
				t.Errorf("embedGRUB: %v", err)
			}
		})
	}
}

func TestLoaderPartsHoldTheLoader(t *testing.T) {
	dir := t.TempDir()
	boot, core := fakeGRUB(100_000)
	efi := bytes.Repeat([]byte("efi program "), 50_000)
	for name, text := range map[string][]byte{loaderBoot: boot, loaderCore: core, loaderEFI: efi} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	parts, code, err := loaderParts(dir)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, DiskFile)
	if err := writeDisk(path, "seed", code, parts); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(raw[:bootCodeSize], code) || raw[450] != 0xee || raw[510] != 0x55 {
		t.Error("the first sector is not boot code and a protective partition table")
	}
	if !bytes.Equal(raw[1<<20+sectorSize:1<<20+len(core)], core[sectorSize:]) {
		t.Error("core.img is not in the first partition")
	}
	disk, err := file.OpenFromPath(path, true)
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	fat, err := fat12.Read(disk, espSize, 2<<20, sectorSize)
	if err != nil {
		t.Fatal(err)
	}
	got, err := fat.ReadFile("/EFI/BOOT/BOOTX64.EFI")
	if err != nil || !bytes.Equal(got, efi) {
		t.Errorf("the EFI program has %d bytes, want %d: %v", len(got), len(efi), err)
	}
}
