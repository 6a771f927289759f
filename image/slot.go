package image

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
)

const (
	// slotSize is the room for a script: some 300 login servers.
	slotSize = 16 << 10
	// slotMark is the second line of a script in its slot. It is how the slots of a medium are found again.
	slotMark = "# everboot boot medium: a slot of 16384 bytes, which can be written again in place\n"
	scriptIs = "#!ipxe\n"
)

// errNoMedium is what is no boot medium of ours.
var errNoMedium = errors.New("this is no boot medium of everboot")

// slot returns a script as it stands in its slot: marked, and padded with empty lines, which iPXE skips.
func slot(script string) ([]byte, error) {
	rest, ok := strings.CutPrefix(script, scriptIs)
	if !ok {
		return nil, errors.New("the script does not begin with #!ipxe")
	}
	text := scriptIs + slotMark + rest
	if len(text) > slotSize {
		return nil, fmt.Errorf("the script has %d bytes and its slot %d: name fewer login servers", len(text), slotSize)
	}
	return append([]byte(text), bytes.Repeat([]byte{'\n'}, slotSize-len(text))...), nil
}

// scriptOf returns the script that stands in a slot, without mark and padding.
func scriptOf(slot []byte) string {
	return scriptIs + strings.TrimRight(string(slot[len(scriptIs)+len(slotMark):]), "\n") + "\n"
}

// findSlots returns where the slots of a medium are. Each begins at a sector.
func findSlots(r io.ReaderAt, size int64) ([]int64, error) {
	mark := []byte(scriptIs + slotMark)
	buf := make([]byte, 1<<20)
	var slots []int64
	for at := int64(0); at < size; at += int64(len(buf)) {
		n, err := r.ReadAt(buf[:min(int64(len(buf)), size-at)], at)
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("reading the medium: %w", err)
		}
		for i := 0; i+len(mark) <= n; i += sectorSize {
			if bytes.HasPrefix(buf[i:n], mark) && at+int64(i)+slotSize <= size {
				slots = append(slots, at+int64(i))
			}
		}
	}
	return slots, nil
}

// readerWriterAt is an image or a device that can be changed in place.
type readerWriterAt interface {
	io.ReaderAt
	io.WriterAt
}

// UpdateMedium gives a boot medium of size bytes another script, in place, and returns the one that it had. Nothing but the slots is written;
// if the script is the same, nothing is.
func UpdateMedium(disk readerWriterAt, size int64, script string) (had string, err error) {
	text, err := slot(script)
	if err != nil {
		return "", err
	}
	slots, err := findSlots(disk, size)
	if err != nil {
		return "", err
	}
	if len(slots) == 0 {
		return "", errNoMedium
	}
	now := make([]byte, slotSize)
	for _, at := range slots {
		if _, err := disk.ReadAt(now, at); err != nil {
			return "", fmt.Errorf("reading the medium: %w", err)
		}
		had = scriptOf(now)
		if bytes.Equal(now, text) {
			continue
		}
		if _, err := disk.WriteAt(text, at); err != nil {
			return had, fmt.Errorf("writing the medium: %w", err)
		}
	}
	return had, nil
}

// With returns the content of a medium with another script in its slots. The medium itself stays as it is; many may read at once.
func (m *Medium) With(script string) (*io.SectionReader, error) {
	text, err := slot(script)
	if err != nil {
		return nil, err
	}
	return io.NewSectionReader(patched{m, text}, 0, MediumSize), nil
}

// patched reads a medium as if its slots held that text.
type patched struct {
	medium *Medium
	text   []byte
}

// ReadAt implements io.ReaderAt.
func (p patched) ReadAt(b []byte, at int64) (int, error) {
	if at < 0 || at >= MediumSize {
		return 0, io.EOF
	}
	n := copy(b, p.medium.data[at:])
	for _, s := range p.medium.slots {
		if from, to := max(at, s), min(at+int64(n), s+slotSize); from < to {
			copy(b[from-at:to-at], p.text[from-s:])
		}
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}
