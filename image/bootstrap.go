package image

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// excluded never reaches the image: nobody reads manuals on a target.
var excluded = []string{
	"/usr/share/man/*", "/usr/share/doc/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/bug/*", "/usr/share/lintian/*",
}

// masked are timers of Debian that make no sense on a disk that nobody writes to.
var masked = []string{
	"apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service", "fstrim.timer",
}

const (
	// rootFile is the root file system in the folder of a build.
	rootFile = "root.ext4"
	// piecesTar and filesTar go into the new root before and after the packages are installed.
	piecesTar = "pieces.tar"
	filesTar  = "files.tar"
)

// bootstrap makes the root file system, the kernel and the initramfs in dir.
func bootstrap(ctx context.Context, c VDiskConfig, dir string) error {
	sources, err := aptSources(ctx, c)
	if err != nil {
		return err
	}
	// apt's own user passes through it.
	if err := os.Chmod(dir, 0o711); err != nil {
		return err
	}
	before, after := filepath.Join(dir, piecesTar), filepath.Join(dir, filesTar)
	if err := writeTar(before, initramfsFiles()); err != nil {
		return err
	}
	files, err := c.payload()
	if err != nil {
		return err
	}
	if err := writeTar(after, files); err != nil {
		return err
	}
	defer os.Remove(before)
	defer os.Remove(after)

	finish, err := pieces.ReadFile("vdisk/finish.sh")
	if err != nil {
		return err
	}
	return runMmdebstrap(ctx, c, dir, mmdebstrapArgs(c, dir, string(finish), sources))
}

// mmdebstrapArgs returns the command line. The sources follow the target, one an argument.
func mmdebstrapArgs(c VDiskConfig, dir, finish, sources string) []string {
	packages := slices.Concat(basePackages, c.Packages)
	args := []string{
		"--variant=minbase", "--format=null", "--include=" + strings.Join(packages, ","),
		`--aptopt=Apt::Install-Recommends "false"`, `--aptopt=Acquire::Languages "none"`,
		// The initramfs is made once, with our pieces in it.
		"--essential-hook=tar-in " + quote(filepath.Join(dir, piecesTar)) + " /",
	}
	for _, path := range excluded {
		args = append(args, "--dpkgopt=path-exclude="+path)
	}
	args = append(args, "--customize-hook=tar-in "+quote(filepath.Join(dir, filesTar))+" /")
	for _, unit := range masked {
		args = append(args, `--customize-hook=ln -sf /dev/null "$1/etc/systemd/system/`+unit+`"`)
	}
	for _, unit := range append([]string{mediumTimer}, c.Units...) {
		args = append(args, `--customize-hook=chroot "$1" systemctl --quiet enable `+unit)
	}
	args = append(args, "--customize-hook="+finish)
	for _, name := range slices.Concat([]string{rootFile, KernelFile, InitrdFile}, loaderFiles) {
		args = append(args, "--customize-hook=download /tmp/everboot/"+name+" "+quote(filepath.Join(dir, name)))
	}
	args = append(args, c.Suite, "/dev/null")
	return append(args, strings.Split(sources, "\n")...)
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// runMmdebstrap runs it in a mount namespace of its own, so that whatever happens to it no mount of its root is left.
func runMmdebstrap(ctx context.Context, c VDiskConfig, dir string, args []string) error {
	cmd := exec.CommandContext(ctx, "mmdebstrap", args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr.Unshareflags = syscall.CLONE_NEWNS
		// Where its root can be removed with all the rest. Without root it belongs to other users, and only it can do that.
		cmd.Env = append(cmd.Env, "TMPDIR="+dir)
	}
	// It removes what it made when it is asked to end; its children get the signal too.
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 30 * time.Second
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			return errors.New("mmdebstrap is missing: apt-get install mmdebstrap")
		}
		return err
	}
	// It says a hook that failed again, as a whole: what went wrong stands before.
	said, full := strings.Join(args, "\n"), false
	last := follow(stderr, c.Progress, func(line string) bool {
		full = full || strings.Contains(line, "No space left on device")
		return len(line) > 1 && strings.Contains(said, line)
	})
	err = cmd.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil && full {
		return fmt.Errorf("running mmdebstrap: %w", syscall.ENOSPC)
	}
	if err != nil {
		return fmt.Errorf("running mmdebstrap: %w\n%s", err, strings.Join(last, "\n"))
	}
	return nil
}

// follow passes on what a person may want to know of mmdebstrap's messages, and returns the last lines of all but those to skip.
func follow(messages io.Reader, progress func(string), skip func(string) bool) (last []string) {
	const keep = 12
	lines := bufio.NewScanner(messages)
	lines.Split(scanLines)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "done") {
			continue
		}
		if !skip(line) {
			last = append(last, line)
		}
		if len(last) > keep {
			last = last[1:]
		}
		if text := progressOf(line); text != "" {
			progress(text)
		}
	}
	return last
}

// scanLines splits at line feeds and at the carriage returns of progress bars.
func scanLines(data []byte, atEOF bool) (advance int, token []byte, err error) {
	if i := bytes.IndexAny(data, "\r\n"); i >= 0 {
		return i + 1, data[:i], nil
	}
	if atEOF && len(data) > 0 {
		return len(data), data, nil
	}
	return 0, nil, nil
}

// progressOf returns what to show of a line of mmdebstrap or of our hook, or "".
func progressOf(line string) string {
	if text, ok := strings.CutPrefix(line, "everboot: "); ok {
		return text
	}
	text, ok := strings.CutPrefix(line, "I: ")
	if !ok {
		return ""
	}
	for _, step := range []string{"running apt-get update", "downloading packages", "extracting archives", "installing "} {
		if strings.HasPrefix(text, step) {
			return strings.TrimRight(text, ".")
		}
	}
	return ""
}

// entry is a file of a tar archive.
type entry struct {
	path string // absolute, in the image
	mode fs.FileMode
	text []byte
	from string // a path on this machine, instead of text
}

// initramfsFiles are the pieces that must be there before the kernel is installed.
func initramfsFiles() []entry {
	const base = "/etc/initramfs-tools/"
	files := []entry{{path: base + "conf.d/everboot", mode: 0o644, text: []byte("MODULES=list\nCOMPRESS=zstd\n")}}
	for _, piece := range initramfsPieces {
		text, err := pieces.ReadFile("vdisk/initramfs/" + piece)
		if err != nil {
			panic(err) // it is embedded
		}
		files = append(files, entry{path: base + piece, mode: 0o755, text: text})
	}
	return files
}

// initramfsPieces are the scripts, below /etc/initramfs-tools.
var initramfsPieces = []string{"hooks/everboot", "scripts/local-top/everboot", "scripts/local-bottom/everboot"}

// grubConfig is read by the loader on the disk. $root is the partition that it stands on.
const grubConfig = `linux /boot/vmlinuz ` + DefaultCmdline + `
initrd /boot/initrd.img
boot
`

const mediumTimer = "everboot-medium.timer"

// mediumPieces keep the boot media in a target as the site wants them.
var mediumPieces = map[string]struct {
	name string
	mode fs.FileMode
}{
	"/usr/lib/everboot/everboot-medium":           {"everboot-medium", 0o755},
	"/etc/systemd/system/everboot-medium.service": {"everboot-medium.service", 0o644},
	"/etc/systemd/system/" + mediumTimer:          {mediumTimer, 0o644},
}

// payload lists what is laid over the installed packages.
func (c VDiskConfig) payload() ([]entry, error) {
	files := []entry{
		{path: "/boot/grub/grub.cfg", mode: 0o644, text: []byte(grubConfig)},
		{path: "/etc/hostname", mode: 0o644, text: []byte("target\n")},
		{path: "/etc/hosts", mode: 0o644, text: []byte("127.0.0.1 localhost\n127.0.1.1 target\n::1 localhost\n")},
		{path: "/etc/fstab", mode: 0o644, text: []byte("# The initramfs mounts the root, read-only, with a writable layer in RAM.\n")},
		// Empty: systemd makes up an id at each boot, so that no two targets share one.
		{path: "/etc/machine-id", mode: 0o444},
	}
	if c.Demo {
		files = append(files, entry{path: "/etc/systemd/system/serial-getty@.service.d/everboot.conf", mode: 0o644,
			text: []byte("[Service]\nExecStart=\nExecStart=-/sbin/agetty --autologin root --noclear %I $TERM\n")})
	}
	for dest, piece := range mediumPieces {
		text, err := pieces.ReadFile("vdisk/medium/" + piece.name)
		if err != nil {
			return nil, err
		}
		files = append(files, entry{path: dest, mode: piece.mode, text: text})
	}
	for _, dest := range slices.Sorted(maps.Keys(c.Text)) {
		files = append(files, entry{path: dest, mode: 0o644, text: []byte(c.Text[dest])})
	}
	for _, dest := range slices.Sorted(maps.Keys(c.Files)) {
		info, err := os.Stat(c.Files[dest])
		if err != nil {
			return nil, err
		}
		files = append(files, entry{path: dest, mode: info.Mode().Perm(), from: c.Files[dest]})
	}
	return files, nil
}

// writeTar writes an archive that belongs to root. Folders that are missing are made by tar.
func writeTar(path string, files []entry) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	w := tar.NewWriter(f)
	for _, e := range files {
		if e.from != "" {
			if e.text, err = os.ReadFile(e.from); err != nil {
				return err
			}
		}
		header := tar.Header{Typeflag: tar.TypeReg, Name: "." + e.path, Mode: int64(e.mode), Size: int64(len(e.text))}
		if err := w.WriteHeader(&header); err != nil {
			return err
		}
		if _, err := w.Write(e.text); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	return f.Close()
}
