package image

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/diskfs/go-diskfs/filesystem/fat12"
	"github.com/diskfs/go-diskfs/filesystem/iso9660"
)

var (
	testProgram  = Program{Script: "#!ipxe\n:start\necho here\ngoto start || goto start\n", About: "&version=1&address=198.18.0.51/24"}
	otherProgram = Program{Script: "#!ipxe\n:start\necho there\ngoto start || goto start\n", About: "&version=2&address=198.18.0.51/24"}
)

// fakeLoaders have of each program what Check looks at.
func fakeLoaders() Loaders {
	const version = "1.21.1+test"
	kernel := make([]byte, 4096)
	copy(kernel[linuxHeader:], "HdrS")
	binary.LittleEndian.PutUint16(kernel[linuxHeader+0xc:], 0x100)
	copy(kernel[0x300:], version)
	return Loaders{
		ISOLINUX: append([]byte("ISOLINUX 6.04 "), bytes.Repeat([]byte{0xb1}, 38<<10)...),
		MBR:      append([]byte("isolinux.bin missing or corrupt"), make([]byte, mbrSize-31)...),
		LDLinux:  append([]byte("\x7fELF\x01\x01 ldlinux.c32\x00"), bytes.Repeat([]byte{0xb2}, 100<<10)...),
		IPXEBIOS: append(kernel, bytes.Repeat([]byte{0xb3}, 300<<10)...),
		IPXEUEFI: []byte("MZ" + strings.Repeat("\xb4", 900<<10) + "\nipxe,1,iPXE,ipxe.efi," + version + ",https://ipxe.org\n"),
	}
}

func newMedium(t *testing.T, c MediumConfig) []byte {
	t.Helper()
	m, err := NewMedium(c)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := m.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestMediumIsTheSameForTheSameInput(t *testing.T) {
	c := MediumConfig{Program: testProgram, Loaders: fakeLoaders()}
	first := newMedium(t, c)
	t.Setenv("SOURCE_DATE_EPOCH", "1700000000") // go-diskfs reads it too: what counts is what the caller says
	if !bytes.Equal(first, newMedium(t, c)) {
		t.Error("two runs with the same input differ")
	}
	c.Time = time.Date(2024, 2, 29, 23, 59, 58, 0, time.FixedZone("", 3600))
	dated := newMedium(t, c)
	c.Time = c.Time.UTC()
	if bytes.Equal(first, dated) || !bytes.Equal(dated, newMedium(t, c)) {
		t.Error("the date is not in it, or the time zone is")
	}
}

// TestMediumHoldsWhatEachFirmwareLooksFor reads the medium as a CD and as a disk.
func TestMediumHoldsWhatEachFirmwareLooksFor(t *testing.T) {
	l := fakeLoaders()
	b := newMedium(t, MediumConfig{Program: testProgram, Loaders: l})
	if len(b) != MediumSize {
		t.Fatalf("%d bytes", len(b))
	}
	iso, err := iso9660.Read(&memory{data: b}, MediumSize, 0, isoBlock)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]byte{"/LDLINUX.C32": l.LDLinux, "/IPXE.KRN": l.IPXEBIOS, "/ISOLINUX.CFG": []byte(isolinuxConfig)} {
		f, err := iso.OpenFile(name, os.O_RDONLY)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(f); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, %v; want %d", name, len(got), err, len(want))
		}
	}
	fat, err := fat12.Read(&memory{data: b[fatAt : fatAt+fatSize]}, fatSize, 0, sectorSize)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := fat.ReadFile(uefiProgram); err != nil || !bytes.Equal(got, l.IPXEUEFI) {
		t.Errorf("%s: %d bytes, %v", uefiProgram, len(got), err)
	}
	got, err := fat.ReadFile(autoexec)
	if want, _ := testProgram.slot(); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s: %v: %.100q", autoexec, err, got)
	}
	at := binary.LittleEndian.Uint64(b[mbrSize:]) * sectorSize
	if !bytes.HasPrefix(b[at:], []byte("ISOLINUX")) || !bytes.HasPrefix(b, l.MBR) || b[510] != 0x55 || b[511] != 0xaa {
		t.Errorf("the boot sector looks for ISOLINUX at %d, where there is %.20q", at, b[at:])
	}
}

// TestMediumWithAnotherScriptIsLikeOneMadeOfIt, in pieces of whatever size.
func TestMediumWithAnotherScriptIsLikeOneMadeOfIt(t *testing.T) {
	m, err := NewMedium(MediumConfig{Program: testProgram, Loaders: fakeLoaders()})
	if err != nil {
		t.Fatal(err)
	}
	want := newMedium(t, MediumConfig{Program: otherProgram, Loaders: fakeLoaders()})
	for _, piece := range []int{7919, 1 << 20, MediumSize + 1} {
		r, err := m.With(otherProgram)
		if err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		if _, err := io.CopyBuffer(struct{ io.Writer }{&got}, struct{ io.Reader }{r}, make([]byte, piece)); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Bytes(), want) {
			t.Errorf("in pieces of %d it differs", piece)
		}
	}
	if _, err := m.With(Program{}); err == nil {
		t.Error("an empty script is taken")
	}
}

func TestMediumRefusesAScriptThatDoesNotFit(t *testing.T) {
	for script, want := range map[string]string{
		"echo": "does not begin with #!ipxe",
		"#!ipxe\n" + strings.Repeat("x", slotSize): "name fewer login servers",
		"#!ipxe\n" + strings.Repeat("\n", 3*1<<20): "name fewer login servers",
	} {
		if _, err := NewMedium(MediumConfig{Program: Program{Script: script}, Loaders: fakeLoaders()}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20q: %v", script, err)
		}
	}
}

func TestLoadersThatDoNotFitTogetherAreRefused(t *testing.T) {
	if err := fakeLoaders().Check(); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*Loaders){
		"isolinux.bin is not ISOLINUX":  func(l *Loaders) { l.ISOLINUX = l.LDLinux },
		"isolinux.bin is ISOLINUX 4.02": func(l *Loaders) { l.ISOLINUX = bytes.Replace(l.ISOLINUX, []byte("6.04"), []byte("4.02"), 1) },
		"isohdpfx.bin is not":           func(l *Loaders) { l.MBR = l.MBR[:400] },
		"ldlinux.c32 is not ISOLINUX's": func(l *Loaders) { l.LDLinux = []byte("\x7fELF\x02\x01 ldlinux.c32\x00") },
		"ipxe.lkrn is not":              func(l *Loaders) { l.IPXEBIOS = l.IPXEUEFI },
		"ipxe.efi is not a program":     func(l *Loaders) { l.IPXEUEFI = l.IPXEBIOS },
		"ipxe.efi is too old":           func(l *Loaders) { l.IPXEUEFI = []byte("MZ") },
		"are of different versions":     func(l *Loaders) { copy(l.IPXEBIOS[0x300:], "1.0.0+old") },
		`ipxe.lkrn ("\xb3\xb3`:          func(l *Loaders) { binary.LittleEndian.PutUint16(l.IPXEBIOS[linuxHeader+0xc:], 0xfdff) },
	} {
		l := fakeLoaders()
		change(&l)
		if err := l.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestFindLoadersNamesWhatIsMissing(t *testing.T) {
	dir := t.TempDir()
	if _, err := findLoader([]string{dir}, "isolinux.bin"); err != nil {
		t.Error(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "isolinux.bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := FindLoaders([]string{dir}); err == nil || !strings.Contains(err.Error(), "is no boot program") {
		t.Errorf("a folder: %v", err)
	}
}

// full is a file on a disk that is full after some bytes.
type full struct{ data []byte }

func (f full) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(f.data)
	return int64(n), errors.Join(err, errors.New("no space left on device"))
}

func TestWriteFileLeavesTheOldFileWhenItFails(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "boot.img")
	if err := os.WriteFile(path, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(path, full{[]byte("new")}); err == nil || !strings.Contains(err.Error(), "nothing of it is left") {
		t.Error(err)
	}
	if got, _ := os.ReadFile(path); string(got) != "old" {
		t.Errorf("%q", got)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
	if err := WriteFile(os.DevNull, full{}); err == nil || !strings.Contains(err.Error(), "is no file") {
		t.Errorf("a device: %v", err)
	}
}
