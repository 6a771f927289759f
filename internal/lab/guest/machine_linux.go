package guest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// MultiuserFile is made by a unit that systemd starts when it has reached multi-user.target.
	MultiuserFile = "/run/everboot-multiuser"
	// console is the serial line that the lab reads.
	console = "/dev/ttyS0"
	// sectorSize is the unit of /sys/class/block/*/size, whatever the disk's own is.
	sectorSize = 512
)

// Main finds the test area and reads it for ever. As the first process of a machine it sets the machine up before.
func Main(ctx context.Context) error {
	if os.Getpid() == 1 {
		if err := setUp(); err != nil {
			return err
		}
		go reap()
	}
	output, err := os.OpenFile(console, os.O_WRONLY|unix.O_NOCTTY, 0)
	if err != nil {
		return fmt.Errorf("opening the serial console: %w", err)
	}
	area, blocks, err := waitForArea(ctx, output)
	if err != nil {
		return err
	}
	buffer, err := unix.Mmap(-1, 0, BlockSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return fmt.Errorf("getting a page of memory: %w", err)
	}
	reader, err := New(Config{
		Area: area, Blocks: blocks, Buffer: buffer, Output: output, Uptime: uptime, Multiuser: multiuser,
	})
	if err != nil {
		return err
	}
	return reader.Run(ctx)
}

// setUp mounts what systemd would; the initramfs has moved most of it already.
func setUp() error {
	mounts := []struct{ kind, where, proof string }{
		{"proc", "/proc", "/proc/self"},
		{"sysfs", "/sys", "/sys/class"},
		{"devtmpfs", "/dev", "/dev/null"},
	}
	for _, m := range mounts {
		if _, err := os.Stat(m.proof); err == nil {
			continue
		}
		if err := unix.Mount(m.kind, m.where, m.kind, 0, ""); err != nil {
			return fmt.Errorf("mounting %s: %w", m.where, err)
		}
	}
	return nil
}

// reap collects orphans, as the first process must.
func reap() {
	for {
		var status unix.WaitStatus
		if _, err := unix.Wait4(-1, &status, 0, nil); errors.Is(err, unix.ECHILD) {
			time.Sleep(time.Second)
		}
	}
}

// waitForArea looks for the partition until it is there, and says so once.
func waitForArea(ctx context.Context, output io.Writer) (*os.File, uint64, error) {
	for said := false; ; said = true {
		device, blocks, err := findArea()
		if err == nil {
			var file *os.File
			if file, err = os.OpenFile(device, os.O_RDONLY|syscall.O_DIRECT, 0); err == nil {
				return file, blocks, nil
			}
		}
		if !said {
			fmt.Fprintf(output, "guest: waiting for the partition %s: %v\n", AreaName, err)
		}
		select {
		case <-ctx.Done():
			return nil, 0, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

var errNoArea = errors.New("no such partition")

// findArea returns the device of the partition with the name of the test area. It asks the kernel, as a minimal machine
// has no udev.
func findArea() (device string, blocks uint64, err error) {
	files, err := filepath.Glob("/sys/class/block/*/uevent")
	if err != nil {
		return "", 0, err
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil || !strings.Contains(string(text), "PARTNAME="+AreaName+"\n") {
			continue
		}
		sectors, err := os.ReadFile(filepath.Join(filepath.Dir(file), "size"))
		if err != nil {
			return "", 0, err
		}
		var n uint64
		if _, err := fmt.Sscan(string(sectors), &n); err != nil {
			return "", 0, fmt.Errorf("reading the size of %s: %w", AreaName, err)
		}
		return "/dev/" + filepath.Base(filepath.Dir(file)), n * sectorSize / BlockSize, nil
	}
	return "", 0, errNoArea
}

func uptime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

func multiuser() bool {
	_, err := os.Stat(MultiuserFile)
	return err == nil
}
