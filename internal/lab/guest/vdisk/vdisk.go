// Package vdisk makes the vDisks that tests and the demo boot, with the guest program on them, and keeps them for the next
// run.
package vdisk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"everboot/image"
	"everboot/internal/lab/guest"
)

// AreaSize is the size of the partition that the guest reads, in bytes: more than the page cache of a busy guest would
// hide, and quick to write.
const AreaSize = 128 << 20

const (
	guestProgram = "/usr/local/sbin/everboot-guest"
	guestUnit    = `[Unit]
Description=Reads the vDisk and reports stalls
DefaultDependencies=no
After=systemd-udevd.service

[Service]
ExecStart=` + guestProgram + `
Restart=always
RestartSec=1

[Install]
WantedBy=sysinit.target
`
	multiuserUnit = `[Unit]
Description=Tells the guest program that multi-user.target is reached
After=multi-user.target

[Service]
Type=oneshot
ExecStart=/bin/touch ` + guest.MultiuserFile + `

[Install]
WantedBy=multi-user.target
`
)

// Cache returns the folder that keeps vDisks: build/ in the module's folder.
func Cache() (string, error) {
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("asking go for the module's folder: %w", err)
	}
	mod := strings.TrimSpace(string(out))
	if mod == "" || mod == os.DevNull {
		return "", errors.New("this is no Go module: run it in everboot's source tree")
	}
	return filepath.Join(filepath.Dir(mod), "build"), nil
}

// Full makes a Debian that boots to systemd's multi-user target with the guest program running, if cache has none yet,
// and returns its folder. See image.DiskFile and its neighbours.
func Full(ctx context.Context, cache string, progress func(string)) (string, error) {
	program, err := buildGuest(ctx, cache)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "vdisk-debian")
	return dir, image.EnsureVDisk(ctx, image.VDiskConfig{
		Output: dir,
		Files:  map[string]string{guestProgram: program},
		Text: map[string]string{
			"/etc/systemd/system/everboot-guest.service":     guestUnit,
			"/etc/systemd/system/everboot-multiuser.service": multiuserUnit,
		},
		Units:      []string{"everboot-guest.service", "everboot-multiuser.service"},
		Partitions: []image.Partition{area()},
		Demo:       true,
		Progress:   progress,
	})
}

// Minimal makes a vDisk with the kernel and the initramfs of Full and nothing but the guest program in its root, and
// returns its folder. A target reads some 20 s after power-on.
func Minimal(ctx context.Context, cache string, progress func(string)) (string, error) {
	full, err := Full(ctx, cache, progress)
	if err != nil {
		return "", err
	}
	program, err := buildGuest(ctx, cache)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "vdisk-minimal")
	return dir, image.EnsureMinimal(ctx, image.MinimalConfig{
		Output: dir, From: full, Init: program, Partitions: []image.Partition{area()},
	})
}

// area is the partition that the guest reads.
func area() image.Partition {
	return image.Partition{
		Name:    guest.AreaName,
		Size:    AreaSize,
		Write:   func(w io.Writer) error { return guest.WriteArea(w, AreaSize) },
		Version: "1", // of guest.FillBlock
	}
}

// buildGuest builds the guest program into the cache. Equal sources give equal bytes, so that no vDisk is made anew in vain.
func buildGuest(ctx context.Context, cache string) (string, error) {
	dir, err := filepath.Abs(cache)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	temporary, err := os.MkdirTemp(dir, ".guest-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(temporary)
	built := filepath.Join(temporary, "guest")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", built,
		"everboot/internal/lab/guest/cmd")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the guest program: %w: %s", err, out)
	}
	program := filepath.Join(dir, "guest")
	return program, os.Rename(built, program)
}
