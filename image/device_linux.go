package image

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Device is a disk, or the image of one, that nobody else uses.
type Device struct {
	*os.File
	Size  int64 // bytes
	block bool
}

// OpenDevice opens a disk or the image of one, to change it. It refuses one that is in use, and one with sectors of another size than 512 bytes.
func OpenDevice(path string) (*Device, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s does not exist; name a disk such as /dev/sdb, or a disk image", path)
	}
	if err != nil {
		return nil, fmt.Errorf("looking at the device: %w", err)
	}
	block := info.Mode().Type() == fs.ModeDevice
	if !block && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is neither a disk nor a disk image", path)
	}
	if err := inUse(path, info); err != nil {
		return nil, err
	}
	flags := os.O_RDWR
	if block {
		flags |= unix.O_EXCL // fails while the disk or a partition of it is mounted or held by another driver
	}
	f, err := os.OpenFile(path, flags, 0)
	switch {
	case errors.Is(err, unix.EBUSY):
		return nil, fmt.Errorf("%s is in use: unmount its partitions, and stop what else has it", path)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("%s may not be written by this user: run this as root", path)
	case errors.Is(err, unix.EROFS):
		return nil, fmt.Errorf("%s is read-only: take its write protection away", path)
	case err != nil:
		return nil, fmt.Errorf("opening the device: %w", err)
	}
	if !block {
		if err := lockImage(f); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	d := &Device{File: f, block: block}
	if d.Size, err = f.Seek(0, io.SeekEnd); err != nil {
		return nil, errors.Join(fmt.Errorf("asking %s for its size: %w", path, err), f.Close())
	}
	if block {
		if n, err := unix.IoctlGetInt(int(f.Fd()), unix.BLKSSZGET); err != nil || n != sectorSize {
			return nil, errors.Join(fmt.Errorf("%s has sectors of %d bytes (%v); only 512 is supported", path, n, err), f.Close())
		}
	}
	return d, nil
}

// QEMU marks what it does with an image, and what others may do, by locks of single bytes from these two on (block/file-posix.c:
// RAW_LOCK_PERM_BASE and RAW_LOCK_SHARED_BASE), 64 each at most.
const qemuLocks, qemuLocksLength = 100, 200

// lockImage keeps the image of a disk from being opened by QEMU, until it is closed. It fails while QEMU has it.
func lockImage(f *os.File) error {
	lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: qemuLocks, Len: qemuLocksLength}
	err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lock)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return fmt.Errorf("%s is in use by a machine of QEMU, or by another program that locks it: stop that first", f.Name())
	}
	return nil // a file system without such locks has no machine that takes them
}

// Reread has the kernel read the partition table again. An image has nobody to tell.
func (d *Device) Reread() error {
	if !d.block {
		return nil
	}
	// Loop devices without partition scanning say EINVAL, and have no partitions to tell of.
	if _, err := unix.IoctlRetInt(int(d.Fd()), unix.BLKRRPART); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("the partition is written, but the kernel does not look yet (%w): run partprobe %s, or start again", err, d.Name())
	}
	return nil
}

// inUse returns who uses a disk, one of its partitions or a disk image, or nil.
func inUse(path string, info fs.FileInfo) error {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return fmt.Errorf("looking at the device: %w", err)
	}
	if real, err = filepath.Abs(real); err != nil {
		return fmt.Errorf("looking at the device: %w", err)
	}
	if info.Mode().IsRegular() {
		backing, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
		if err != nil {
			return err
		}
		for _, b := range backing {
			if text, err := os.ReadFile(b); err == nil && strings.TrimSpace(string(text)) == real {
				return fmt.Errorf("%s is in use as /dev/%s: unmount it, then losetup -d /dev/%[2]s", path, strings.Split(b, "/")[3])
			}
		}
		return nil
	}
	mounts, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("looking at what is mounted: %w", err)
	}
	defer mounts.Close()
	if source, at := mountOf(mounts, real); source != "" {
		return fmt.Errorf("%s is mounted at %s: unmount it first", source, at)
	}
	return nil
}

// mountOf returns which of a disk and its partitions is mounted, and where (proc_pid_mountinfo(5)).
func mountOf(mountinfo io.Reader, device string) (source, at string) {
	lines := bufio.NewScanner(mountinfo)
	for lines.Scan() {
		before, after, ok := strings.Cut(lines.Text(), " - ")
		fields, rest := strings.Fields(before), strings.Fields(after)
		if !ok || len(fields) < 5 || len(rest) < 2 {
			continue
		}
		if partOf(rest[1], device) {
			return rest[1], fields[4]
		}
	}
	return "", ""
}

// partOf reports whether a name is that of a disk or of one of its partitions: sdb, sdb1; nvme0n1, nvme0n1p2.
func partOf(name, disk string) bool {
	const digits = "0123456789"
	tail, ok := strings.CutPrefix(name, disk)
	if !ok || tail == "" {
		return ok
	}
	if strings.ContainsAny(disk[len(disk)-1:], digits) {
		if tail, ok = strings.CutPrefix(tail, "p"); !ok {
			return false
		}
	}
	return tail != "" && strings.Trim(tail, digits) == ""
}
