package image

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/diskfs/go-diskfs/backend"
)

// memory is a disk of fixed size in memory, for go-diskfs to write a file system into.
type memory struct {
	data []byte
	at   int64
}

var errOutside = errors.New("this lies outside of the disk")

// Sys implements backend.Storage: there is no file behind it.
func (m *memory) Sys() (*os.File, error) { return nil, backend.ErrNotSuitable }

// Writable implements backend.Storage.
func (m *memory) Writable() (backend.WritableFile, error) { return m, nil }

// Path implements backend.Storage: it has none.
func (m *memory) Path() string { return "" }

// Stat implements fs.File.
func (m *memory) Stat() (fs.FileInfo, error) { return memoryInfo(len(m.data)), nil }

// Close implements fs.File. The content stays.
func (m *memory) Close() error { return nil }

// Read implements fs.File.
func (m *memory) Read(b []byte) (int, error) {
	n, err := m.ReadAt(b, m.at)
	m.at += int64(n)
	return n, err
}

// ReadAt implements io.ReaderAt.
func (m *memory) ReadAt(b []byte, at int64) (int, error) {
	if at < 0 || at >= int64(len(m.data)) {
		return 0, io.EOF
	}
	n := copy(b, m.data[at:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// WriteAt implements io.WriterAt. Nothing is written past the end.
func (m *memory) WriteAt(b []byte, at int64) (int, error) {
	if at < 0 || at+int64(len(b)) > int64(len(m.data)) {
		return 0, fmt.Errorf("writing %d bytes at %d: %w", len(b), at, errOutside)
	}
	return copy(m.data[at:], b), nil
}

// Seek implements io.Seeker.
func (m *memory) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += m.at
	case io.SeekEnd:
		offset += int64(len(m.data))
	}
	if offset < 0 {
		return 0, errOutside
	}
	m.at = offset
	return offset, nil
}

// memoryInfo is the size of a disk in memory, in bytes, as a file would tell it.
type memoryInfo int64

// Name implements fs.FileInfo, as the others do.
func (memoryInfo) Name() string       { return "memory" }
func (i memoryInfo) Size() int64      { return int64(i) }
func (memoryInfo) Mode() fs.FileMode  { return 0o600 }
func (memoryInfo) ModTime() time.Time { return time.Time{} }
func (memoryInfo) IsDir() bool        { return false }
func (memoryInfo) Sys() any           { return nil }
