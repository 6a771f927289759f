package leases

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"

	"everboot/internal/durable"
)

// The file is a journal: a line that names its format, then records, each with its length and a checksum before it, then zeros up to the
// end. A record is a lease, or says that one is not worth keeping, or until when the peers' doings are known. The last one of an address
// counts. A write goes into zeros that are on the disk already, so that one write through to the disk is all that an ACK waits for.
const (
	header = "everboot leases 2\n"
	// chunk is how many zeros are put at the end at once, and the most that one write holds: what lies further beyond a record that was
	// not written whole was written later, and then the file is damaged.
	chunk = 1 << 20
	// compactFrom is the size from which the file is written anew, when most of it is outdated.
	compactFrom = 32 << 20

	recordLease  = 'L'
	recordDelete = 'D'
	recordSynced = 'S'
)

// lockPatience is how long Open waits for another process to let go of the file: a worker that is just ending.
const lockPatience = 2 * time.Second

var checksums = crc32.MakeTable(crc32.Castagnoli)

// Store keeps leases in a file. When Commit returns, what it was given is on the disk.
type Store struct {
	path   string
	lock   *os.File // beside the file, which is replaced now and then
	file   *os.File
	direct *blocks // what writes records to the file; nil: the file system has no such thing, and they go through file
	end    int64   // where the next record goes
	size   int64   // of the file, whole blocks
	synced time.Time
	live   int64 // bytes of records that count, when the file was last written anew
	fresh  bool  // the file was replaced, and the folder may not know it after a loss of power

	reopen  func(path string) (*os.File, error) // of the disk, as syncDir; a test makes them fail
	syncDir func(path string) error
}

var (
	errFormat = errors.New("it was written by another version of everboot: use that version, or move it away")
	errLocked = errors.New("in use")
)

// Open opens the file, makes it and its folder if it is not there, and returns the leases in it. Whatever is wrong with it, the
// error says what to do.
func Open(path string) (*Store, []Lease, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, nil, fmt.Errorf("making the folder of the lease file: %w", err)
	}
	s := &Store{path: path, reopen: reopen, syncDir: durable.SyncDir}
	list, err := s.open()
	if err == nil {
		return s, list, nil
	}
	s.Close()
	var pathErr *os.PathError
	switch {
	case errors.Is(err, errLocked):
		return nil, nil, fmt.Errorf("lease file %s is in use by another process: stop the other everboot, or give this one its own state folder", path)
	case errors.As(err, &pathErr):
		return nil, nil, fmt.Errorf("opening lease file %s: %w", path, err)
	case errors.Is(err, errFormat):
		return nil, nil, fmt.Errorf("lease file %s: %w (mv %s %s.bad); clients that renew get their addresses back", path, err, path, path)
	}
	return nil, nil, fmt.Errorf("lease file %s is damaged (%w): move it away (mv %s %s.bad) and start again; "+
		"clients that renew get their addresses back", path, err, path, path)
}

func (s *Store) open() ([]Lease, error) {
	if err := s.acquire(); err != nil {
		return nil, err
	}
	s.sweep()
	b, err := os.ReadFile(s.path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	records, err := s.parse(b)
	if err != nil {
		return nil, err
	}
	list := make([]Lease, 0, len(records))
	for _, r := range records {
		l, err := decode(r)
		if err != nil {
			return nil, err
		}
		list = append(list, l)
	}
	return list, s.rewrite(records)
}

func reopen(path string) (*os.File, error) { return os.OpenFile(path, os.O_RDWR, 0) }

// sweep takes away what a rewrite left that was killed half-way. The lock is ours: nobody else is at it.
func (s *Store) sweep() {
	left, _ := filepath.Glob(filepath.Join(filepath.Dir(s.path), "."+filepath.Base(s.path)+"*")) // the pattern is ours and good
	for _, path := range left {
		os.Remove(path) // a file that stays does no harm
	}
}

// acquire takes the lock.
func (s *Store) acquire() (err error) {
	if s.lock, err = os.OpenFile(s.path+".lock", os.O_RDWR|os.O_CREATE, 0o640); err != nil {
		return err
	}
	for deadline := time.Now().Add(lockPatience); ; {
		err := unix.Flock(int(s.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, unix.EWOULDBLOCK):
			return fmt.Errorf("locking it: %w", err)
		case time.Now().After(deadline):
			return errLocked
		}
		<-time.After(20 * time.Millisecond)
	}
}

// parse returns the last record of each address, without its kind.
func (s *Store) parse(b []byte) (map[string][]byte, error) {
	records := make(map[string][]byte)
	if len(b) == 0 {
		return records, nil
	}
	if !bytes.HasPrefix(b, []byte(header)) {
		return nil, errFormat
	}
	for b = b[len(header):]; len(b) > 0; {
		r, rest, ok := next(b)
		if !ok {
			if len(b) > chunk && len(bytes.Trim(b[chunk:], "\x00")) > 0 {
				return nil, errors.New("a record in its middle is not whole")
			}
			break // zeros, or the write that a loss of power cut short: nobody was told of it
		}
		if err := s.note(records, r); err != nil {
			return nil, err
		}
		b = rest
	}
	return records, nil
}

func (s *Store) note(records map[string][]byte, r []byte) error {
	kind, body := r[0], r[1:]
	if kind == recordSynced {
		return s.synced.UnmarshalBinary(body)
	}
	k, err := key(body)
	switch {
	case err != nil:
		return err
	case kind == recordDelete:
		delete(records, k)
	case kind == recordLease:
		records[k] = body
	default:
		return errRecord
	}
	return nil
}

// next takes a record off the front.
func next(b []byte) (record, rest []byte, ok bool) {
	if len(b) < 9 {
		return nil, nil, false
	}
	n := int(binary.BigEndian.Uint32(b))
	if n == 0 || n > len(b)-8 || crc32.Checksum(b[8:8+n], checksums) != binary.BigEndian.Uint32(b[4:]) {
		return nil, nil, false
	}
	return b[8 : 8+n], b[8+n:], true
}

// frame appends a record.
func frame(b []byte, kind byte, body func([]byte) []byte) []byte {
	at := len(b)
	b = body(append(b, 0, 0, 0, 0, 0, 0, 0, 0, kind))
	binary.BigEndian.PutUint32(b[at:], uint32(len(b)-at-8))
	binary.BigEndian.PutUint32(b[at+4:], crc32.Checksum(b[at+8:], checksums))
	return b
}

// rewrite replaces the file by one with these records only, whole or not at all.
func (s *Store) rewrite(records map[string][]byte) error {
	b := []byte(header)
	for _, r := range records {
		b = frame(b, recordLease, func(b []byte) []byte { return append(b, r...) })
	}
	if !s.synced.IsZero() {
		b = frame(b, recordSynced, s.appendSynced)
	}
	end := int64(len(b))
	b = append(b, make([]byte, whole(end+chunk)-end)...)
	f, err := s.replace(b)
	if err != nil {
		return err
	}
	for _, old := range s.files() {
		old.Close()
	}
	s.file, s.end, s.size, s.live, s.fresh = f, end, int64(len(b)), end, true
	s.direct = openBlocks(s.path, b[end-end%blockSize:end])
	return nil
}

// replace puts a new file in the place of the old one and returns it. It is opened before the rename: if anything fails, the old file is
// still there, and the one that is written to.
func (s *Store) replace(b []byte) (f *os.File, err error) {
	pending, err := renameio.NewPendingFile(s.path, renameio.WithTempDir(filepath.Dir(s.path)),
		renameio.WithPermissions(0o640), renameio.WithExistingPermissions())
	if err != nil {
		return nil, err
	}
	defer pending.Cleanup() // does nothing after the rename
	if _, err := pending.Write(b); err != nil {
		return nil, err
	}
	if f, err = s.reopen(pending.Name()); err != nil {
		return nil, err
	}
	if err := pending.CloseAtomicallyReplace(); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func (s *Store) appendSynced(b []byte) []byte {
	v, _ := s.synced.MarshalBinary() // fails for odd zones only
	return append(b, v...)
}

// Synced returns what SetSynced put there in an earlier run; zero if nothing.
func (s *Store) Synced() time.Time { return s.synced }

// SetSynced keeps until when the doings of all peers are known.
func (s *Store) SetSynced(t time.Time) error {
	s.synced = t.UTC()
	return s.write(frame(nil, recordSynced, s.appendSynced))
}

// Commit puts leases on the disk: many at once cost little more than one.
func (s *Store) Commit(list []Lease) error {
	return inPieces(s, list, func(b []byte, l Lease) []byte {
		return frame(b, recordLease, func(b []byte) []byte { return encode(b, l) })
	})
}

// Delete removes leases.
func (s *Store) Delete(list []netip.Addr) error {
	return inPieces(s, list, func(b []byte, a netip.Addr) []byte {
		return frame(b, recordDelete, func(b []byte) []byte { return append(append(b, byte(a.BitLen()/8)), a.AsSlice()...) })
	})
}

// inPieces writes a record of each, in pieces of no more than a chunk.
func inPieces[T any](s *Store, list []T, record func([]byte, T) []byte) error {
	var b []byte
	for _, x := range list {
		if b = record(b, x); len(b) > chunk/2 {
			if err := s.write(b); err != nil {
				return err
			}
			b = b[:0]
		}
	}
	return s.write(b)
}

// write puts records on the disk.
func (s *Store) write(b []byte) (err error) {
	if len(b) == 0 {
		return nil
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("writing lease file %s: %w", s.path, err)
		}
	}()
	if whole(s.end+int64(len(b))) > s.size {
		if err := s.makeRoom(int64(len(b))); err != nil {
			return err
		}
	}
	if s.fresh {
		if err := s.syncDir(filepath.Dir(s.path)); err != nil {
			return err
		}
		s.fresh = false
	}
	if err := s.put(b); err != nil {
		return err
	}
	s.end += int64(len(b))
	return nil
}

// put writes at the end, for which there is room, and through to the disk.
func (s *Store) put(b []byte) error {
	if s.direct != nil {
		err := s.direct.write(b, s.end)
		if !errors.Is(err, unix.EINVAL) {
			return err
		}
		s.direct.file.Close() // it opened the file, but does not write that way
		s.direct = nil
	}
	if _, err := s.file.WriteAt(b, s.end); err != nil {
		return err
	}
	return unix.Fdatasync(int(s.file.Fd()))
}

// makeRoom appends zeros, or writes the file anew.
func (s *Store) makeRoom(n int64) error {
	if s.end > compactFrom && s.end > 4*s.live {
		b, err := os.ReadFile(s.path)
		if err != nil {
			return err
		}
		records, err := s.parse(b[:s.end])
		if err != nil {
			return err
		}
		return s.rewrite(records)
	}
	zeros := make([]byte, whole(n+chunk))
	if _, err := s.file.WriteAt(zeros, s.size); err != nil {
		return err
	}
	s.size += int64(len(zeros))
	return s.file.Sync()
}

// Close closes the file.
func (s *Store) Close() error {
	var errs []error
	for _, f := range append(s.files(), s.lock) {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

// files returns what is open of the lease file itself.
func (s *Store) files() (list []*os.File) {
	if s.file != nil {
		list = append(list, s.file)
	}
	if s.direct != nil {
		list = append(list, s.direct.file)
	}
	return list
}
