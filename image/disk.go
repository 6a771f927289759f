package image

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// Partition is an extra partition of a vDisk, behind its root.
type Partition struct {
	Name string // its GPT name
	Size int64  // bytes
	// Write writes its content, at most Size bytes; the rest is zeros. Nil means all zeros.
	Write func(io.Writer) error
	// Version names the content: a vDisk is made again when it changes.
	Version string
}

// filled is a partition with its content.
type filled struct {
	gptPartition
	write func(io.Writer) error
}

// writeDisk writes a disk with these partitions and that boot code, which may be nil, and syncs it. Blocks of zeros become
// holes.
func writeDisk(path, seed string, code []byte, parts []filled) error {
	table := make([]gptPartition, len(parts))
	for i, p := range parts {
		table[i] = p.gptPartition
		table[i].id = guidOf(seed, "partition", p.name)
	}
	size := layOut(table)
	head, tail, err := gptTables(guidOf(seed, "disk"), size, table)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		return fmt.Errorf("sizing %s: %w", path, err)
	}
	for i, p := range parts {
		if p.write == nil {
			continue
		}
		if err := writePartition(f, table[i], p.write); err != nil {
			return fmt.Errorf("writing partition %s of %s: %w", p.name, path, err)
		}
	}
	copy(head[:bootCodeSize], code)
	if _, err := f.WriteAt(head, 0); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	if _, err := f.WriteAt(tail, size-int64(len(tail))); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("syncing %s: %w", path, err)
	}
	return f.Close()
}

func writePartition(f *os.File, p gptPartition, write func(io.Writer) error) error {
	holes := &holeWriter{file: f, at: p.start, end: p.start + p.size}
	buffered := bufio.NewWriterSize(holes, 1<<20)
	if err := write(buffered); err != nil {
		return err
	}
	return buffered.Flush()
}

// holeWriter writes a part of a file, and leaves out what is zero there already.
type holeWriter struct {
	file    *os.File
	at, end int64
}

var errPartitionFull = errors.New("the content is larger than the partition")

// Write skips blocks of zeros.
func (w *holeWriter) Write(b []byte) (int, error) {
	const block = 4096
	if w.at+int64(len(b)) > w.end {
		return 0, errPartitionFull
	}
	written := 0
	for len(b) > 0 {
		part := b[:min(block, len(b))]
		if !allZero(part) {
			if _, err := w.file.WriteAt(part, w.at); err != nil {
				return written, err
			}
		}
		w.at += int64(len(part))
		written += len(part)
		b = b[len(part):]
	}
	return written, nil
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

var errNotExt4 = errors.New("no ext4 file system")

// ext4Size returns the size in bytes that a file system's superblock names.
func ext4Size(superblock []byte) (int64, error) {
	if len(superblock) < 0x154 || binary.LittleEndian.Uint16(superblock[0x38:]) != 0xef53 {
		return 0, errNotExt4
	}
	shift := binary.LittleEndian.Uint32(superblock[0x18:])
	if shift > 6 {
		return 0, errNotExt4
	}
	blocks := int64(binary.LittleEndian.Uint32(superblock[0x4:]))
	if binary.LittleEndian.Uint32(superblock[0x60:])&0x80 != 0 { // INCOMPAT_64BIT
		blocks |= int64(binary.LittleEndian.Uint32(superblock[0x150:])) << 32
	}
	if blocks <= 0 || blocks > 1<<40 {
		return 0, errNotExt4
	}
	return blocks << (10 + shift), nil
}
