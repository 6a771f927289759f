package image

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
)

// A slot is where a medium keeps its program, as plain text that iPXE runs. It is made so that the program can be replaced while the power may fail at any moment:
//
//	sector 0       the head: the mark, which bank is in use, its digest, what the medium was made for, and a goto into that bank
//	sectors 1-15   bank a, a script that begins with the label bank-a
//	sectors 16-30  bank b, likewise
//	sector 31      empty lines
//
// A new program goes into the bank that is not in use. Then the head is written, which is one sector: a disk has the old one or the new one.
// iPXE looks for a label from the first line on, so the labels of each bank have its name behind theirs.
const (
	slotSize = 16 << 10
	bankSize = 15 * sectorSize // room for some 170 login servers
	// RenewalSize is the size of a renewal in bytes: a head and a bank.
	RenewalSize = sectorSize + bankSize
	// slotMark is the second line of a slot. It is how the slots of a medium are found again.
	slotMark = "# everboot boot medium: a slot of 16384 bytes, which is written in place\n"
	scriptIs = "#!ipxe\n"
	bankA    = "a"
	bankB    = "b"
)

// errNoMedium is what is no boot medium of ours.
var errNoMedium = errors.New("this is no boot medium of everboot")

// Program is what a boot medium does.
type Program struct {
	Script string // of iPXE; it begins with #!ipxe
	// About is what the medium was made for, as the query of a URL (RFC 3986 §3.4) that begins with &, or nothing. The medium itself does not heed it: a
	// running target asks with it for the next program.
	About string
}

var (
	label = regexp.MustCompile(`(?m)^:(\S+)`)
	jump  = regexp.MustCompile(`\bgoto (\S+)`)
	about = regexp.MustCompile(`^(&[0-9A-Za-z=&:./_-]+)?$`)
)

// bank returns the program as it stands in a bank: padded with empty lines, which iPXE skips.
func (p Program) bank(name string) ([]byte, error) {
	rest, ok := strings.CutPrefix(p.Script, scriptIs)
	if !ok {
		return nil, errors.New("the script does not begin with #!ipxe")
	}
	rest = label.ReplaceAllString(jump.ReplaceAllString(rest, "goto ${1}-"+name), ":${1}-"+name)
	text := ":bank-" + name + "\n" + rest + "exit\n" // what is behind is the other bank's
	if len(text) > bankSize {
		return nil, fmt.Errorf("the script has %d bytes and its slot %d: name fewer login servers", len(text), bankSize)
	}
	return padded(text, bankSize), nil
}

func padded(text string, size int) []byte {
	return append([]byte(text), bytes.Repeat([]byte{'\n'}, size-len(text))...)
}

// headline is the line of a head that says what stands in the slot, without its first two characters.
func (p Program) headline(name string, bank []byte) string {
	return "bank=" + name + "&digest=" + digestOf(bank) + p.About
}

// renewal returns a head, and the bank that it names.
func (p Program) renewal(name string) ([]byte, error) {
	bank, err := p.bank(name)
	if err != nil {
		return nil, err
	}
	text := scriptIs + slotMark + "# " + p.headline(name, bank) + "\ngoto bank-" + name + "\n"
	if !about.MatchString(p.About) || len(text) > sectorSize {
		return nil, fmt.Errorf("what the medium was made for does not fit: %.500q", p.About)
	}
	return append(padded(text, sectorSize), bank...), nil
}

// slot returns a new slot.
func (p Program) slot() ([]byte, error) {
	text, err := p.renewal(bankA)
	if err != nil {
		return nil, err
	}
	return padded(string(text), slotSize), nil
}

// Renew returns what gives a slot this program: a head and the bank that is not in use, in RenewalSize bytes. It is nil if the bank that is in use, called
// so, has that digest and was made for the same.
func (p Program) Renew(name, digest, about string) ([]byte, error) {
	if name != bankA && name != bankB {
		return nil, fmt.Errorf("bank %.10q: there are a and b", name)
	}
	bank, err := p.bank(name)
	if err != nil || digestOf(bank) == digest && p.About == about {
		return nil, err
	}
	return p.renewal(other(name))
}

func other(name string) string {
	if name == bankA {
		return bankB
	}
	return bankA
}

// slotState is what a slot says of itself.
type slotState struct{ bank, headline string }

var headline = regexp.MustCompile(`\n# (bank=([ab])&digest=[0-9a-f]{64}[^\n]*)\n`)

// stateOf reads a slot. One whose bank is not what the head says has an empty headline.
func stateOf(slot []byte) slotState {
	m := headline.FindSubmatch(slot[:sectorSize])
	if m == nil {
		return slotState{bank: bankB} // and so a is written
	}
	s := slotState{bank: string(m[2]), headline: string(m[1])}
	at := bankAt(s.bank)
	if !strings.HasPrefix(s.headline, "bank="+s.bank+"&digest="+digestOf(slot[at:at+bankSize])) {
		s.headline = ""
	}
	return s
}

// bankAt is where a bank begins in its slot.
func bankAt(name string) int64 {
	if name == bankA {
		return sectorSize
	}
	return sectorSize + bankSize
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

// UpdateMedium gives a boot medium of size bytes another program, in place, and reports whether it had another. Nothing but the slots is written; a slot that has
// the program is not. Whenever it breaks off, each slot has the old program or the new one.
func UpdateMedium(d disk, size int64, p Program) (changed bool, err error) {
	slots, err := findSlots(d, size)
	if err != nil {
		return false, err
	}
	if len(slots) == 0 {
		return false, errNoMedium
	}
	for _, at := range slots {
		wrote, err := updateSlot(d, at, p)
		if err != nil {
			return changed, err
		}
		changed = changed || wrote
	}
	return changed, nil
}

func updateSlot(d disk, at int64, p Program) (changed bool, err error) {
	slot := make([]byte, slotSize)
	if _, err := d.ReadAt(slot, at); err != nil {
		return false, fmt.Errorf("reading the medium: %w", err)
	}
	has := stateOf(slot)
	bank, err := p.bank(has.bank)
	if err != nil || has.headline == p.headline(has.bank, bank) {
		return false, err
	}
	next := other(has.bank)
	text, err := p.renewal(next)
	if err != nil {
		return false, err
	}
	for _, part := range []struct {
		at   int64
		text []byte
	}{{bankAt(next), text[sectorSize:]}, {0, text[:sectorSize]}} {
		if err := writeThrough(d, at+part.at, part.text); err != nil {
			return true, fmt.Errorf("writing the medium: %w", err)
		}
	}
	return true, nil
}

// writeThrough returns when the disk has what was written.
func writeThrough(d disk, at int64, b []byte) error {
	if _, err := d.WriteAt(b, at); err != nil {
		return err
	}
	if err := d.Sync(); err != nil {
		return err
	}
	got := make([]byte, len(b))
	if _, err := d.ReadAt(got, at); err != nil {
		return err
	}
	if !bytes.Equal(got, b) {
		return errors.New("it does not keep what is written")
	}
	return nil
}

// With returns the content of a medium with another program in its slots. The medium itself stays as it is; many may read at once.
func (m *Medium) With(p Program) (*io.SectionReader, error) {
	text, err := p.slot()
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
