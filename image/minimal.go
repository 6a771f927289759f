package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// MinimalConfig says what minimal vDisk to make: the kernel and the initramfs of a full one, and a root with nothing but
// one static program that is its first process.
type MinimalConfig struct {
	// Output is the folder that gets DiskFile, KernelFile and InitrdFile. It appears, or is replaced, as a whole.
	Output string
	// From is the output folder of BuildVDisk.
	From string
	// Init is the static program.
	Init string
	// Partitions come behind the root.
	Partitions []Partition
}

// Validate returns an error that names what is wrong, or nil.
func (c MinimalConfig) Validate() error {
	if c.Output == "" || c.From == "" || c.Init == "" {
		return errors.New("a minimal vDisk needs an output folder, a full vDisk to take its kernel from, and a program")
	}
	return validatePartitions(c.Partitions)
}

// EnsureMinimal builds the minimal vDisk unless Output holds one that was made of the same.
func EnsureMinimal(ctx context.Context, c MinimalConfig) error {
	stamp, err := minimalStamp(c)
	if err != nil {
		return err
	}
	return ensure(ctx, c.Output, stamp, func() error { return BuildMinimal(ctx, c) })
}

func minimalStamp(c MinimalConfig) (string, error) {
	sum := sha256.New()
	say(sum, "minimal")
	for _, p := range c.Partitions {
		say(sum, "partition", p.Name, fmt.Sprint(p.Size), p.Version)
	}
	for _, path := range []string{c.Init, filepath.Join(c.From, KernelFile), filepath.Join(c.From, InitrdFile)} {
		if err := sayFile(sum, path); err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// BuildMinimal makes the minimal vDisk, in about a second. It needs no rights.
func BuildMinimal(ctx context.Context, c MinimalConfig) error {
	if err := c.Validate(); err != nil {
		return err
	}
	stamp, err := minimalStamp(c)
	if err != nil {
		return err
	}
	return produce(c.Output, stamp, func(dir string) error {
		tree := filepath.Join(dir, "tree")
		size, err := minimalTree(tree, c.Init)
		if err != nil {
			return err
		}
		root := filepath.Join(dir, rootFile)
		const metadata = 4 << 20 // plenty for a handful of files
		if err := makeExt4(ctx, root, tree, size+metadata); err != nil {
			return err
		}
		if err := os.RemoveAll(tree); err != nil {
			return err
		}
		for _, name := range []string{KernelFile, InitrdFile} {
			if err := linkOrCopy(filepath.Join(c.From, name), filepath.Join(dir, name)); err != nil {
				return err
			}
		}
		return finishDisk(dir, stamp, nil, nil, c.Partitions)
	})
}

// minimalTree makes the root's folders and puts the program where the kernel looks for it.
func minimalTree(tree, program string) (size int64, err error) {
	for _, name := range []string{"dev", "proc", "sys", "run", "tmp", "sbin"} {
		if err := os.MkdirAll(filepath.Join(tree, name), 0o755); err != nil {
			return 0, err
		}
	}
	text, err := os.ReadFile(program)
	if err != nil {
		return 0, err
	}
	return int64(len(text)), os.WriteFile(filepath.Join(tree, "sbin/init"), text, 0o755)
}

// linkOrCopy gives a file a second name, or copies it if that is on another file system.
func linkOrCopy(from, to string) error {
	if os.Link(from, to) == nil {
		return nil
	}
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := copyFile(f, from); err != nil {
		return err
	}
	return f.Close()
}
