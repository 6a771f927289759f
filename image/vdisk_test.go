package image

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestValidateNamesWhatIsWrong(t *testing.T) {
	tests := []struct {
		name   string
		change func(*VDiskConfig)
		want   string // part of the error; "" means none
	}{
		{"as little as possible", func(*VDiskConfig) {}, ""},
		{"everything", func(c *VDiskConfig) {
			c.Suite, c.Mirror, c.Packages = "trixie", "http://mirror.example/debian", []string{"g++", "libc6.1"}
			c.Units, c.Files = []string{"a@b.service"}, map[string]string{"/etc/x": "x"}
			c.Partitions = []Partition{{Name: "data", Size: 1}}
		}, ""},
		{"no output", func(c *VDiskConfig) { c.Output = "" }, "output folder"},
		{"suite", func(c *VDiskConfig) { c.Suite = "12; rm" }, `"12; rm"`},
		{"mirror", func(c *VDiskConfig) { c.Mirror = "deb.debian.org" }, "deb.debian.org"},
		{"package", func(c *VDiskConfig) { c.Packages = []string{"a b"} }, `"a b"`},
		{"unit", func(c *VDiskConfig) { c.Units = []string{"$(x).service"} }, `$(x)`},
		{"relative file", func(c *VDiskConfig) { c.Files = map[string]string{"etc/x": "x"} }, `"etc/x"`},
		{"file outside", func(c *VDiskConfig) { c.Text = map[string]string{"/../x": ""} }, `"/../x"`},
		{"second root", func(c *VDiskConfig) { c.Partitions = []Partition{{Name: rootLabel, Size: 1}} }, rootLabel},
		{"partition twice", func(c *VDiskConfig) { c.Partitions = []Partition{{Name: "a", Size: 1}, {Name: "a", Size: 1}} }, "twice"},
		{"empty partition", func(c *VDiskConfig) { c.Partitions = []Partition{{Name: "a"}} }, `"a"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := VDiskConfig{Output: "out"}
			tt.change(&c)
			err := c.Validate()
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Validate = %v, want %q in it", err, tt.want)
			}
		})
	}
}

func TestStampChangesWithEveryInput(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("one")
	base := func() VDiskConfig {
		return VDiskConfig{Output: "out", Packages: []string{"a"}, Files: map[string]string{"/f": file}, Partitions: []Partition{{Name: "p", Size: 1}}}
	}
	stamp := func(c VDiskConfig) string {
		s, err := VDiskStamp(c)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	first := stamp(base())
	if again := base(); stamp(again) != first {
		t.Error("equal inputs have two stamps")
	}
	if elsewhere := (func() VDiskConfig { c := base(); c.Output, c.Suite = "other", DefaultSuite; return c })(); stamp(elsewhere) != first {
		t.Error("the output folder, or a default that is spelt out, changes the stamp")
	}
	changes := map[string]func(*VDiskConfig){
		"suite":     func(c *VDiskConfig) { c.Suite = "trixie" },
		"packages":  func(c *VDiskConfig) { c.Packages = []string{"a", "b"} },
		"a unit":    func(c *VDiskConfig) { c.Units = []string{"a"} },
		"text":      func(c *VDiskConfig) { c.Text = map[string]string{"/t": ""} },
		"the demo":  func(c *VDiskConfig) { c.Demo = true },
		"size":      func(c *VDiskConfig) { c.Partitions[0].Size = 2 },
		"version":   func(c *VDiskConfig) { c.Partitions[0].Version = "2" },
		"content":   func(*VDiskConfig) { write("two") },
		"file name": func(c *VDiskConfig) { c.Files = map[string]string{"/g": file} },
	}
	for name, change := range changes {
		c := base()
		change(&c)
		if stamp(c) == first {
			t.Errorf("a change of %s leaves the stamp as it was", name)
		}
		write("one")
	}
	if _, err := VDiskStamp(VDiskConfig{Files: map[string]string{"/f": "/does/not/exist"}}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file gives %v", err)
	}
}

func TestPickMirrors(t *testing.T) {
	const own = "Debian|bookworm|main|http://mirror.example/debian/\nDebian|bookworm|contrib|http://contrib.example/\n" +
		"Debian-Security|bookworm-security|main|http://mirror.example/debian-security/\n"
	tests := []struct{ name, targets, suite, mirror, security string }{
		{"its own suite", own, "bookworm", "http://mirror.example/debian", "http://mirror.example/debian-security"},
		{"another suite of the same mirror", own, "trixie", "http://mirror.example/debian", "http://mirror.example/debian-security"},
		{"the suite's mirror is best", own + "Debian|trixie|main|http://trixie.example/\n", "trixie", "http://trixie.example", "http://mirror.example/debian-security"},
		{"no security archive", "Debian|bookworm|main|http://mirror.example/debian/\n", "bookworm", "http://mirror.example/debian", ""},
		{"not Debian", "Ubuntu|noble|main|http://ubuntu.example/\n", "bookworm", defaultMirror, defaultSecurity},
		{"nothing", "", "bookworm", defaultMirror, defaultSecurity},
		{"nonsense", "|\n|||\nDebian\n", "bookworm", defaultMirror, defaultSecurity},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if mirror, security := pickMirrors(tt.targets, tt.suite); mirror != tt.mirror || security != tt.security {
				t.Errorf("pickMirrors = %q, %q", mirror, security)
			}
		})
	}
}

func TestFollowPassesOnWhatAPersonWantsToKnow(t *testing.T) {
	const messages = "I: automatically chosen mode: root\nI: running apt-get update...\ndone\n 10%\r 20%\rdone\n" +
		"I: installing remaining packages inside the chroot...\nI: running --customize-hook in shell: sh -c 'x'\neverboot: making the file system\nE: it broke"
	var got []string
	last := follow(strings.NewReader(messages), func(line string) { got = append(got, line) }, func(string) bool { return false })
	want := []string{"running apt-get update", "installing remaining packages inside the chroot", "making the file system"}
	if !slices.Equal(got, want) {
		t.Errorf("progress is %q", got)
	}
	if last[len(last)-1] != "E: it broke" {
		t.Errorf("the last lines are %q", last)
	}
}

func TestScriptsAreShell(t *testing.T) {
	err := fs.WalkDir(pieces, "vdisk", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		if out, err := exec.Command("sh", "-n", path).CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", path, err, out)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := len(initramfsFiles()); got != len(initramfsPieces)+1 {
		t.Errorf("%d files for the initramfs", got)
	}
}

func TestDefaultCmdlineIsWhatTheScriptsRead(t *testing.T) {
	for _, word := range []string{"root=LABEL=everboot-root", "ro", "everboot.iscsi=ibft", "everboot.write=ram"} {
		if !slices.Contains(strings.Fields(DefaultCmdline), word) {
			t.Errorf("%q is missing", word)
		}
	}
}

func TestExt4Size(t *testing.T) {
	superblock := make([]byte, 1024)
	le := binary.LittleEndian
	le.PutUint32(superblock[4:], 1000)
	le.PutUint32(superblock[0x18:], 2)
	if _, err := ext4Size(superblock); err == nil {
		t.Error("a superblock without magic passes")
	}
	le.PutUint16(superblock[0x38:], 0xef53)
	if size, err := ext4Size(superblock); err != nil || size != 1000*4096 {
		t.Errorf("ext4Size = %d, %v", size, err)
	}
	le.PutUint32(superblock[0x60:], 0x80)
	le.PutUint32(superblock[0x150:], 1)
	if size, err := ext4Size(superblock); err != nil || size != (1<<32+1000)*4096 {
		t.Errorf("ext4Size with 64 bits = %d, %v", size, err)
	}
	le.PutUint32(superblock[0x18:], 40)
	if _, err := ext4Size(superblock); err == nil {
		t.Error("blocks of 2^50 bytes pass")
	}
}

func TestProduceLeavesNothingHalfMade(t *testing.T) {
	parent := t.TempDir()
	output := filepath.Join(parent, "vdisk")
	files := func() (names []string) {
		entries, err := os.ReadDir(parent)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return names
	}
	build := func(text string, err error) error {
		return produce(output, "stamp of "+text, func(dir string) error {
			if err := os.WriteFile(filepath.Join(dir, DiskFile), []byte(text), 0o644); err != nil {
				return err
			}
			return err
		})
	}
	broken := errors.New("broken")
	if err := build("a", broken); !errors.Is(err, broken) || len(files()) != 0 {
		t.Errorf("after an error %q is there; %v", files(), err)
	}
	for _, text := range []string{"b", "c"} {
		if err := build(text, nil); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(output, DiskFile))
		if err != nil || string(got) != text || !slices.Equal(files(), []string{"vdisk"}) {
			t.Errorf("%q, %v; %q", got, err, files())
		}
	}
	if err := build("d", broken); err == nil || !slices.Equal(files(), []string{"vdisk"}) {
		t.Errorf("an error took the older vDisk away: %q", files())
	}
}

func TestProduceKeepsItsHandsOffOtherFolders(t *testing.T) {
	home := t.TempDir()
	if err := os.WriteFile(filepath.Join(home, "thesis.txt"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	err := produce(home, "stamp", func(string) error { return nil })
	if err == nil || !strings.Contains(err.Error(), home) {
		t.Errorf("produce = %v", err)
	}
	if _, err := os.Stat(filepath.Join(home, "thesis.txt")); err != nil {
		t.Error(err)
	}
}

func TestEnsureBuildsOnceForAllWhoAsk(t *testing.T) {
	output := filepath.Join(t.TempDir(), "cache", "vdisk")
	built := 0 // guarded by the lock of ensure
	ask := func(stamp string) error {
		return ensure(t.Context(), output, stamp, func() error {
			return produce(output, stamp, func(string) error { built++; return nil })
		})
	}
	killed := filepath.Join(filepath.Dir(output), temporaryPrefix(output)+"1")
	if err := os.MkdirAll(killed, 0o755); err != nil {
		t.Fatal(err)
	}
	errs := make(chan error)
	for range 4 {
		go func() { errs <- ask("one") }()
	}
	for range 4 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if built != 1 {
		t.Errorf("built %d times", built)
	}
	if _, err := os.Stat(killed); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what a killed build left is still there: %v", err)
	}
	if err := ask("two"); err != nil || built != 2 {
		t.Errorf("a new stamp: built %d times, %v", built, err)
	}
}

func TestMinimalVDiskHasTheProgramInIt(t *testing.T) {
	full := t.TempDir()
	for _, name := range []string{KernelFile, InitrdFile} {
		if err := os.WriteFile(filepath.Join(full, name), []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	program := filepath.Join(full, "program")
	if err := os.WriteFile(program, []byte("a static program"), 0o755); err != nil {
		t.Fatal(err)
	}
	output := filepath.Join(t.TempDir(), "minimal")
	c := MinimalConfig{Output: output, From: full, Init: program, Partitions: []Partition{{Name: "test", Size: 1 << 20,
		Write: func(w io.Writer) error { _, err := io.WriteString(w, "content"); return err }}}}
	if err := EnsureMinimal(t.Context(), c); err != nil {
		if strings.Contains(err.Error(), "e2fsprogs") {
			t.Skip(err)
		}
		t.Fatal(err)
	}
	disk, err := os.ReadFile(filepath.Join(output, DiskFile))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(disk), "a static program") || !strings.Contains(string(disk), "content") {
		t.Error("the disk lacks the program or the partition")
	}
	for _, name := range []string{KernelFile, InitrdFile} {
		if got, err := os.ReadFile(filepath.Join(output, name)); err != nil || string(got) != name {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if err := BuildMinimal(t.Context(), MinimalConfig{}); err == nil {
		t.Error("an empty configuration passes")
	}
}

func TestACancelledBuildLeavesNothing(t *testing.T) {
	if _, err := exec.LookPath("mmdebstrap"); err != nil {
		t.Skip("mmdebstrap is missing: run internal/lab/deps.sh")
	}
	parent := t.TempDir()
	mirror, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer mirror.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	// The mirror never answers, so that the build is cut in the middle.
	t.Setenv("http_proxy", "")
	err = BuildVDisk(ctx, VDiskConfig{Output: filepath.Join(parent, "vdisk"), Mirror: "http://" + mirror.Addr().String() + "/debian"})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("BuildVDisk = %v", err)
	}
	left, err := os.ReadDir(parent)
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
