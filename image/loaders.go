package image

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// Loaders are the programs of others that a boot medium consists of, each as the bytes of its file.
type Loaders struct {
	ISOLINUX []byte // isolinux.bin: what a BIOS starts
	MBR      []byte // isohdpfx.bin: what a BIOS starts when the medium is a disk
	LDLinux  []byte // ldlinux.c32: ISOLINUX's other half
	IPXEBIOS []byte // ipxe.lkrn: what ISOLINUX starts
	IPXEUEFI []byte // ipxe.efi: what UEFI starts
}

// loaderDirs are where Debian's packages isolinux, syslinux-common and ipxe put them.
var loaderDirs = []string{"/usr/lib/ISOLINUX", "/usr/lib/syslinux/modules/bios", "/usr/lib/ipxe"}

// maxLoader bounds one of the programs: today's largest, ipxe.efi, has 1 MB.
const maxLoader = 4 << 20

// FindLoaders reads the programs from the first of the folders that has each, the given ones before Debian's, and checks that they fit together.
func FindLoaders(dirs []string) (Loaders, error) {
	var l Loaders
	dirs = append(append([]string{}, dirs...), loaderDirs...)
	for _, file := range []struct {
		name, hint string
		into       *[]byte
	}{
		{"isolinux.bin", "apt-get install isolinux", &l.ISOLINUX},
		{"isohdpfx.bin", "apt-get install isolinux", &l.MBR},
		{"ldlinux.c32", "apt-get install syslinux-common", &l.LDLinux},
		{"ipxe.lkrn", "install the package ipxe of Debian 13", &l.IPXEBIOS},
		{"ipxe.efi", "install the package ipxe of Debian 13", &l.IPXEUEFI},
	} {
		data, err := findLoader(dirs, file.name)
		if err != nil {
			return Loaders{}, err
		}
		if data == nil {
			return Loaders{}, fmt.Errorf("%s is in none of %s; %s, or name its folder with --files", file.name, strings.Join(dirs, ", "), file.hint)
		}
		*file.into = data
	}
	return l, l.Check()
}

// findLoader returns nil without an error when no folder has the file.
func findLoader(dirs []string, name string) ([]byte, error) {
	for _, dir := range dirs {
		path := filepath.Join(dir, name)
		info, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("looking at a boot program: %w", err)
		}
		if !info.Mode().IsRegular() || info.Size() > maxLoader {
			return nil, fmt.Errorf("%s is no boot program: it is no file, or larger than %d MiB", path, maxLoader>>20)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("reading a boot program: %w", err)
		}
		return data, nil
	}
	return nil, nil
}

const (
	// mbrSize is the code of isohdpfx.bin. The sector of isolinux.bin follows it, then the disk's signature and the partitions.
	mbrSize = 432
	// linuxHeader is where the signature of a Linux kernel stands (Linux, Documentation/arch/x86/boot.rst).
	linuxHeader = 0x202
)

// isolinuxPairs are isolinux.bin and ldlinux.c32 (SHA-256) of Debian 12 and 13. The latter does not say its version, and with the other's
// a machine stops in the middle of its boot.
var isolinuxPairs = map[string]string{
	"f3e2c1786564e148fb394e2321666ddccccedc18f7cf9db3e2416d45d13ea492": "26cbd44c3a3dacbf3971cfbc04db539da07767fa00797f505044e2f68dcfae89",
	"f946d69a8fba45cb8b007b4a96653791d753c701e694287e45ea614233152f1c": "04f7a2be02cf16f4216b52c3a9f5add8fae55ca1557d6561759201733fe856cc",
}

var (
	isolinuxVersion = regexp.MustCompile(`ISOLINUX ([0-9]+)\.[0-9]+`)
	// sbat is the line in which an UEFI program says what it is (shim, SBAT.md).
	sbat = regexp.MustCompile(`\nipxe,1,iPXE,[^,\n]*,([^,\n]+),`)
)

// Check returns an error that names the file that is not what it should be, or the two that do not fit together.
func (l Loaders) Check() error {
	v := isolinuxVersion.FindSubmatch(l.ISOLINUX)
	switch {
	case v == nil || len(l.ISOLINUX) < isoBlock || len(l.ISOLINUX) > 128<<10:
		return errors.New("isolinux.bin is not ISOLINUX: take it from Debian's package isolinux")
	case len(v[1]) == 1 && v[1][0] < '5':
		return fmt.Errorf("isolinux.bin is %s: version 5 or newer is needed, as in Debian's package isolinux", v[0])
	case len(l.MBR) != mbrSize || !bytes.Contains(l.MBR, []byte("isolinux.bin missing or corrupt")):
		return errors.New("isohdpfx.bin is not ISOLINUX's boot sector for disks: take it from Debian's package isolinux")
	case !bytes.HasPrefix(l.LDLinux, []byte("\x7fELF\x01\x01")) || !bytes.Contains(l.LDLinux, []byte("ldlinux.c32\x00")):
		return errors.New("ldlinux.c32 is not ISOLINUX's module for BIOS: take it from Debian's package syslinux-common, modules/bios")
	}
	if want, known := isolinuxPairs[digestOf(l.ISOLINUX)]; known && digestOf(l.LDLinux) != want {
		return fmt.Errorf("ldlinux.c32 is not the one of isolinux.bin (%s): take both from the same release of Debian", v[0])
	}
	return l.checkIPXE()
}

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func (l Loaders) checkIPXE() error {
	if len(l.IPXEBIOS) < linuxHeader+0x20 || string(l.IPXEBIOS[linuxHeader:linuxHeader+4]) != "HdrS" {
		return errors.New("ipxe.lkrn is not iPXE in the form of a Linux kernel: take it from Debian 13's package ipxe")
	}
	if !bytes.HasPrefix(l.IPXEUEFI, []byte("MZ")) {
		return errors.New("ipxe.efi is not a program of UEFI: take it from Debian 13's package ipxe")
	}
	m := sbat.FindSubmatch(l.IPXEUEFI)
	if m == nil {
		return errors.New("ipxe.efi is too old to run a script of its own, or not iPXE: take it from Debian 13's package ipxe")
	}
	// The header says, from its own start, where the version's text begins.
	at := int(binary.LittleEndian.Uint16(l.IPXEBIOS[linuxHeader+0xc:])) + 0x200
	version, _, ok := bytes.Cut(l.IPXEBIOS[min(at, len(l.IPXEBIOS)):], []byte{0})
	if !ok || !bytes.Equal(version, m[1]) {
		return fmt.Errorf("ipxe.lkrn (%.40q) and ipxe.efi (%.40q) are of different versions: take both from Debian 13's package ipxe", version, m[1])
	}
	return nil
}
