package leases

import (
	"io"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// blockSize is what is written at once: no disk has larger sectors, and memory and file must be aligned to them.
const blockSize = 4096

// blocks writes to the end of a file by whole blocks, past the page cache and through the disk's own: at half the price of a write and an
// fdatasync, in two thirds of the time. The last block is written again with what comes after, and what was in it stays the same.
type blocks struct {
	file *os.File
	buf  []byte // aligned; it begins with what the last block holds
	tail int    // how much that is
}

// openBlocks returns what writes behind the last bytes of a file, of which tail are in a block that is not full; nil: the file system cannot.
func openBlocks(path string, tail []byte) *blocks {
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_DIRECT|unix.O_DSYNC, 0)
	if err != nil {
		return nil
	}
	w := &blocks{file: f}
	w.grow(blockSize)
	w.tail = copy(w.buf, tail)
	return w
}

// grow makes room for n bytes, which are whole blocks.
func (w *blocks) grow(n int) {
	if n <= len(w.buf) {
		return
	}
	b := make([]byte, n+blockSize)
	skip := int(-uintptr(unsafe.Pointer(unsafe.SliceData(b))) % blockSize)
	b = b[skip : skip+n]
	copy(b, w.buf[:w.tail])
	w.buf = b
}

// write puts b at the end, which is at the offset. The file must have the blocks.
func (w *blocks) write(b []byte, end int64) error {
	all := w.tail + len(b)
	n := whole(all)
	w.grow(n)
	copy(w.buf[w.tail:], b)
	clear(w.buf[all:n])
	switch done, err := unix.Pwrite(int(w.file.Fd()), w.buf[:n], end-int64(w.tail)); {
	case err != nil:
		return err
	case done < n:
		return io.ErrShortWrite
	}
	w.tail = copy(w.buf, w.buf[all-all%blockSize:all])
	return nil
}

// whole rounds up to whole blocks.
func whole[N int | int64](n N) N { return (n + blockSize - 1) / blockSize * blockSize }
