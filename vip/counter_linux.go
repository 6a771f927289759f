package vip

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// shareWords makes words in a memory that other processes can map. It stays mapped until the process ends.
func shareWords() (*os.File, *words, error) {
	fd, err := unix.MemfdCreate("vrrp-counter", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, nil, fmt.Errorf("making memory for the count of advertisements: %w", err)
	}
	f := os.NewFile(uintptr(fd), "vrrp-counter")
	if err := f.Truncate(int64(unsafe.Sizeof(words{}))); err != nil {
		f.Close()
		return nil, nil, fmt.Errorf("making memory for the count of advertisements: %w", err)
	}
	w, err := mapWords(f)
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, w, nil
}

// mapWords maps them. What the kernel maps begins at a page, so the words are aligned.
func mapWords(f *os.File) (*words, error) {
	memory, err := unix.Mmap(int(f.Fd()), 0, int(unsafe.Sizeof(words{})), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("mapping the count of advertisements: %w", err)
	}
	return (*words)(unsafe.Pointer(unsafe.SliceData(memory))), nil
}

// Memory returns the file that another process of the node inherits, for InheritCounter. It stays the counter's.
func (c *Counter) Memory() *os.File { return c.memfd }

// InheritCounter returns the counter of the process that opened it, by the file that Memory returned there. It closes the file.
func InheritCounter(f *os.File) (*Counter, error) {
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.Size() < int64(unsafe.Sizeof(words{})) {
		return nil, fmt.Errorf("mapping the count of advertisements: file %s is not the guard's", f.Name())
	}
	w, err := mapWords(f)
	if err != nil {
		return nil, err
	}
	return &Counter{words: w}, nil
}
