package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
)

// trim cuts a file to the size of the file system in it, and returns that.
func trim(path string) (int64, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	const superblockAt, superblockSize = 1024, 1024
	superblock := make([]byte, superblockSize)
	if _, err := f.ReadAt(superblock, superblockAt); err != nil {
		return 0, fmt.Errorf("reading the superblock of %s: %w", path, err)
	}
	size, err := ext4Size(superblock)
	if err != nil {
		return 0, fmt.Errorf("reading the superblock of %s: %w", path, err)
	}
	return size, f.Truncate(size)
}

// makeExt4 makes a file system of that size out of a folder. It has no journal: it is only ever mounted read-only.
func makeExt4(ctx context.Context, path, folder string, size int64) error {
	return tool(ctx, "mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-O", "^has_journal,^resize_inode", "-m", "0", "-L", rootLabel,
		"-E", "root_owner=0:0", "-d", folder, path, fmt.Sprintf("%dk", size/1024))
}

// tool runs a program of e2fsprogs, which stand in /sbin.
func tool(ctx context.Context, name string, args ...string) error {
	path, err := exec.LookPath(name)
	if err != nil {
		path = "/sbin/" + name
	}
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("%s is missing: apt-get install e2fsprogs", name)
	case err != nil:
		return fmt.Errorf("running %s: %w: %s", name, err, bytes.TrimSpace(out.Bytes()))
	}
	return nil
}
