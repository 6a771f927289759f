package leases

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// format is the version of the file's content. Another one is refused rather than guessed at.
const format = 1

// lockPatience is how long Open waits for another process to let go of the file: a worker that is just ending.
const lockPatience = 2 * time.Second

var (
	bucketMeta   = []byte("meta")
	bucketLeases = []byte("leases")
	keyFormat    = []byte("format")
	keySynced    = []byte("synced")
)

// Store keeps leases in a file (bbolt). When Commit returns, what it was given is on the disk.
type Store struct {
	path   string
	db     *bolt.DB
	synced time.Time
}

// Open opens the file, makes it and its folder if it is not there, and returns the leases in it. Whatever is wrong with it, the
// error says what to do.
func Open(path string) (*Store, []Lease, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, nil, fmt.Errorf("making the folder of the lease file: %w", err)
	}
	s := &Store{path: path}
	list, err := s.open()
	if err == nil {
		return s, list, nil
	}
	if s.db != nil {
		s.db.Close()
	}
	var pathErr *os.PathError
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return nil, nil, fmt.Errorf("lease file %s is in use by another process: stop the other everboot, or give this one its own state folder", path)
	case errors.As(err, &pathErr), errors.Is(err, errFormat):
		return nil, nil, fmt.Errorf("opening lease file %s: %w", path, err)
	}
	return nil, nil, fmt.Errorf("lease file %s is damaged (%w): move it away (mv %s %s.bad) and start again; "+
		"clients that renew get their addresses back", path, err, path, path)
}

var errFormat = errors.New("it was written by another version of everboot: use that version, or move the file away")

func (s *Store) open() (list []Lease, err error) {
	defer guard(&err)()
	s.db, err = bolt.Open(s.path, 0o640, &bolt.Options{Timeout: lockPatience, FreelistType: bolt.FreelistMapType})
	if err != nil {
		return nil, err
	}
	if err := s.db.Update(prepare); err != nil {
		return nil, err
	}
	err = s.db.View(func(tx *bolt.Tx) error {
		if v := tx.Bucket(bucketMeta).Get(keySynced); v != nil {
			if err := s.synced.UnmarshalBinary(v); err != nil {
				return fmt.Errorf("reading when the peers' leases were last known: %w", err)
			}
		}
		return tx.Bucket(bucketLeases).ForEach(func(k, v []byte) error {
			l, err := decode(k, v)
			list = append(list, l)
			return err
		})
	})
	return list, err
}

// guard makes an error of the panics with which bbolt answers some kinds of damage, a page beyond the end of a cut file among them:
// the file is mapped into memory, and reading there is a fault.
func guard(err *error) func() {
	before := debug.SetPanicOnFault(true)
	return func() {
		debug.SetPanicOnFault(before)
		if r := recover(); r != nil {
			*err = fmt.Errorf("%v", r)
		}
	}
}

func prepare(tx *bolt.Tx) error {
	meta, err := tx.CreateBucketIfNotExists(bucketMeta)
	if err != nil {
		return err
	}
	if _, err := tx.CreateBucketIfNotExists(bucketLeases); err != nil {
		return err
	}
	v := meta.Get(keyFormat)
	if v == nil {
		return meta.Put(keyFormat, binary.BigEndian.AppendUint32(nil, format))
	}
	if len(v) != 4 || binary.BigEndian.Uint32(v) != format {
		return errFormat
	}
	return nil
}

func decode(k, v []byte) (Lease, error) {
	var l Lease
	if err := json.Unmarshal(v, &l); err != nil {
		return l, fmt.Errorf("reading the lease at key %x: %w", k, err)
	}
	a, ok := netip.AddrFromSlice(k)
	if !ok || a != l.Address {
		return l, fmt.Errorf("the lease at key %x is of %s", k, l.Address)
	}
	return l, nil
}

// Synced returns what SetSynced put there in an earlier run; zero if nothing.
func (s *Store) Synced() time.Time { return s.synced }

// SetSynced keeps until when the doings of all peers are known.
func (s *Store) SetSynced(t time.Time) error {
	v, err := t.MarshalBinary()
	if err == nil {
		err = s.db.Update(func(tx *bolt.Tx) error { return tx.Bucket(bucketMeta).Put(keySynced, v) })
	}
	if err != nil {
		return fmt.Errorf("writing lease file %s: %w", s.path, err)
	}
	return nil
}

// Commit puts leases on the disk in one transaction: many at once cost little more than one.
func (s *Store) Commit(list []Lease) error {
	return s.update(func(b *bolt.Bucket) error {
		for _, l := range list {
			v, err := json.Marshal(l)
			if err != nil {
				return err
			}
			if err := b.Put(l.Address.AsSlice(), v); err != nil {
				return err
			}
		}
		return nil
	})
}

// Delete removes leases in one transaction.
func (s *Store) Delete(list []netip.Addr) error {
	return s.update(func(b *bolt.Bucket) error {
		for _, a := range list {
			if err := b.Delete(a.AsSlice()); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *Store) update(change func(*bolt.Bucket) error) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("writing lease file %s: %w", s.path, err)
		}
	}()
	defer guard(&err)()
	return s.db.Update(func(tx *bolt.Tx) error { return change(tx.Bucket(bucketLeases)) })
}

// Close closes the file.
func (s *Store) Close() error { return s.db.Close() }
