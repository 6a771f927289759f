package image

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
)

//go:embed vdisk
var pieces embed.FS

const (
	// DefaultCmdline is the kernel's command line of a vDisk. docs/target.md explains the words.
	DefaultCmdline = "root=LABEL=" + rootLabel + " ro everboot.iscsi=ibft everboot.write=ram quiet console=tty0 console=ttyS0"
	// DefaultSuite is the Debian that a vDisk is made of.
	DefaultSuite = "bookworm"

	// DiskFile, KernelFile and InitrdFile are what stands in the output folder of a build.
	DiskFile   = "disk.raw"
	KernelFile = "vmlinuz"
	InitrdFile = "initrd.img"
	// stampFile holds the stamp of the inputs.
	stampFile = "stamp"

	rootLabel = "everboot-root"
)

// basePackages are what a vDisk cannot do without. The initramfs wants busybox for its shell, and zstd as it is
// both smaller and faster to unpack than gzip.
var basePackages = []string{
	"linux-image-cloud-amd64", "systemd-sysv", "udev", "dbus", "kmod", "iproute2", "open-iscsi", "initramfs-tools", "busybox", "zstd",
}

// VDiskConfig says what vDisk to make.
type VDiskConfig struct {
	// Output is the folder that gets DiskFile, KernelFile and InitrdFile. It appears as a whole. One that an earlier build
	// made is replaced as a whole; any other folder must be empty.
	Output string
	// Suite is the Debian release; empty means DefaultSuite.
	Suite string
	// Mirror is where packages come from; empty means the mirror that this machine's apt uses, with its security archive.
	Mirror string
	// Packages are installed beside the base.
	Packages []string
	// Files are copied into the image: absolute path in the image to path on this machine. The mode is kept, the owner is root.
	Files map[string]string
	// Text is the same for small files that stand on no disk: absolute path in the image to content.
	Text map[string]string
	// Units are systemd units that are enabled; they come with Packages, Files or Text.
	Units []string
	// Partitions come behind the root.
	Partitions []Partition
	// Demo logs root in on the serial console without a password. Anybody at that console owns the target.
	Demo bool
	// Progress gets a line now and then; nil means silence.
	Progress func(string)
}

var (
	suiteRule   = regexp.MustCompile(`^[a-z]+$`)
	packageRule = regexp.MustCompile(`^[a-z0-9][a-z0-9.+-]+$`)
	unitRule    = regexp.MustCompile(`^[A-Za-z0-9@_.:-]+\.(service|timer|socket|path|mount|target)$`)
)

// Validate returns an error that names what is wrong, or nil.
func (c VDiskConfig) Validate() error {
	if c.Output == "" {
		return errors.New("the vDisk's output folder is missing")
	}
	if c.Suite != "" && !suiteRule.MatchString(c.Suite) {
		return fmt.Errorf("suite %q is not the name of a Debian release, such as %s", c.Suite, DefaultSuite)
	}
	if c.Mirror != "" && !strings.HasPrefix(c.Mirror, "http://") && !strings.HasPrefix(c.Mirror, "https://") {
		return fmt.Errorf("mirror %q is not a URL, such as http://deb.debian.org/debian", c.Mirror)
	}
	for _, name := range c.Packages {
		if !packageRule.MatchString(name) {
			return fmt.Errorf("%q is not the name of a Debian package", name)
		}
	}
	for _, name := range c.Units {
		if !unitRule.MatchString(name) {
			return fmt.Errorf("%q is not the name of a systemd unit", name)
		}
	}
	for dest := range maps.Keys(c.Files) {
		if err := checkDestination(dest); err != nil {
			return err
		}
	}
	for dest := range maps.Keys(c.Text) {
		if err := checkDestination(dest); err != nil {
			return err
		}
	}
	return validatePartitions(c.Partitions)
}

func checkDestination(dest string) error {
	if !filepath.IsAbs(dest) || filepath.Clean(dest) != dest || dest == "/" {
		return fmt.Errorf("file %q in the image: want an absolute, clean path", dest)
	}
	return nil
}

func validatePartitions(partitions []Partition) error {
	for i, p := range partitions {
		if p.Name == "" || p.Size <= 0 || len(p.Name) > 36 {
			return fmt.Errorf("partition %q of %d bytes: want a name of up to 36 letters, and a size", p.Name, p.Size)
		}
		if slices.Contains([]string{rootLabel, biosBootName, espName}, p.Name) {
			return fmt.Errorf("partition %q has the name of one that every vDisk has", p.Name)
		}
		if slices.ContainsFunc(partitions[:i], func(q Partition) bool { return q.Name == p.Name }) {
			return fmt.Errorf("partition %q is there twice", p.Name)
		}
	}
	return nil
}

func (c VDiskConfig) withDefaults() VDiskConfig {
	if c.Suite == "" {
		c.Suite = DefaultSuite
	}
	if c.Progress == nil {
		c.Progress = func(string) {}
	}
	return c
}

// VDiskStamp returns a digest of all that a build depends on, but for the packages' versions: the configuration, the
// files that it names and the pieces of everboot. It changes when the vDisk must be made again.
func VDiskStamp(c VDiskConfig) (string, error) {
	c = c.withDefaults()
	sum := sha256.New()
	say(sum, "vdisk", c.Suite, fmt.Sprint(c.Demo))
	say(sum, c.Packages...)
	say(sum, c.Units...)
	for _, p := range c.Partitions {
		say(sum, "partition", p.Name, fmt.Sprint(p.Size), p.Version)
	}
	for _, dest := range slices.Sorted(maps.Keys(c.Text)) {
		say(sum, "text", dest, c.Text[dest])
	}
	for _, dest := range slices.Sorted(maps.Keys(c.Files)) {
		say(sum, "file", dest)
		if err := sayFile(sum, c.Files[dest]); err != nil {
			return "", err
		}
	}
	err := fs.WalkDir(pieces, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := pieces.ReadFile(path)
		say(sum, "piece", path, string(text))
		return err
	})
	return hex.EncodeToString(sum.Sum(nil)), err
}

// say adds words to a digest so that no two lists give the same input.
func say(sum hash.Hash, words ...string) {
	fmt.Fprintf(sum, "%d:", len(words))
	for _, word := range words {
		fmt.Fprintf(sum, "%d:%s", len(word), word)
	}
}

func sayFile(sum hash.Hash, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	say(sum, fmt.Sprint(info.Mode()), fmt.Sprint(info.Size()))
	_, err = io.Copy(sum, f)
	return err
}

// EnsureVDisk builds the vDisk unless Output holds one with the same stamp. Several programs may ask at the same time: one
// builds, the others wait.
func EnsureVDisk(ctx context.Context, c VDiskConfig) error {
	stamp, err := VDiskStamp(c)
	if err != nil {
		return err
	}
	return ensure(ctx, c.Output, stamp, func() error { return BuildVDisk(ctx, c) })
}

// ensure runs build, under a lock beside output, if output has another stamp.
func ensure(ctx context.Context, output, stamp string, build func() error) error {
	if err := os.MkdirAll(filepath.Dir(output), 0o755); err != nil {
		return err
	}
	lock, err := os.OpenFile(output+".lock", os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := lockFile(ctx, lock); err != nil {
		return fmt.Errorf("waiting for another build of %s: %w", output, err)
	}
	if have, err := os.ReadFile(filepath.Join(output, stampFile)); err == nil && string(have) == stamp {
		return nil
	}
	// What a killed build left: nobody else builds now.
	left, err := filepath.Glob(filepath.Join(filepath.Dir(output), temporaryPrefix(output)+"*"))
	if err != nil {
		return err
	}
	for _, dir := range left {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	return build()
}

// lockFile waits for the lock until ctx ends.
func lockFile(ctx context.Context, f *os.File) error {
	locked := make(chan error, 1)
	go func() { locked <- syscall.Flock(int(f.Fd()), syscall.LOCK_EX) }()
	select {
	case err := <-locked:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// BuildVDisk makes a vDisk with mmdebstrap; it takes some minutes. It needs root, or a user with subordinate ids (package
// uidmap). Output appears when all is done; after an error or a cancelled context nothing is left.
func BuildVDisk(ctx context.Context, c VDiskConfig) error {
	c = c.withDefaults()
	if err := c.Validate(); err != nil {
		return err
	}
	stamp, err := VDiskStamp(c)
	if err != nil {
		return err
	}
	return produce(c.Output, stamp, func(dir string) error {
		if err := bootstrap(ctx, c, dir); err != nil {
			return err
		}
		c.Progress("writing the disk")
		loader, code, err := loaderParts(dir)
		if err != nil {
			return err
		}
		if err := finishDisk(dir, stamp, code, loader, c.Partitions); err != nil {
			return err
		}
		for _, name := range append(loaderFiles, espFile) {
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				return err
			}
		}
		return nil
	})
}

// produce runs build in a new folder beside output and puts it in output's place, with its stamp.
func produce(output, stamp string, build func(dir string) error) (err error) {
	if err := os.MkdirAll(filepath.Dir(output), 0o755); err != nil {
		return err
	}
	if err := checkOutput(output); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(filepath.Dir(output), temporaryPrefix(output))
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := build(dir); err != nil {
		return fmt.Errorf("building %s: %w", output, err)
	}
	if err := os.WriteFile(filepath.Join(dir, stampFile), []byte(stamp), 0o644); err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	old := dir + ".old"
	if err := os.Rename(output, old); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	defer os.RemoveAll(old)
	return os.Rename(dir, output)
}

// temporaryPrefix begins the names of the folders in which output is built.
func temporaryPrefix(output string) string { return "." + filepath.Base(output) + ".tmp-" }

// checkOutput protects a folder that holds something else: it would be lost.
func checkOutput(output string) error {
	entries, err := os.ReadDir(output)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if len(entries) > 0 && !slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() == stampFile }) {
		return fmt.Errorf("%s holds something that no vDisk build made: name a new folder", output)
	}
	return nil
}

// finishDisk writes the disk: the loader's partitions, the root file system, which it removes, and the extra partitions.
func finishDisk(dir, seed string, code []byte, loader []filled, partitions []Partition) error {
	root := filepath.Join(dir, rootFile)
	size, err := trim(root)
	if err != nil {
		return err
	}
	parts := append(loader, filled{
		gptPartition{kind: typeLinux, name: rootLabel, size: size},
		func(w io.Writer) error { return copyFile(w, root) },
	})
	for _, p := range partitions {
		parts = append(parts, filled{gptPartition{kind: typeLinux, name: p.Name, size: p.Size}, p.Write})
	}
	if err := writeDisk(filepath.Join(dir, DiskFile), seed, code, parts); err != nil {
		return err
	}
	return os.Remove(root)
}

func copyFile(w io.Writer, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(w, f)
	return err
}
