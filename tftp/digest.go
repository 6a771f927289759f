package tftp

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"io/fs"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"everboot/tftp/wire"
)

const (
	// smallFile is digested when it is opened, in some milliseconds; a larger one beside the transfer.
	smallFile = 1 << 20
	// digestPiece is read at once.
	digestPiece = 1 << 20
	// maxDigests bounds the memory of digests; when it is full all are forgotten.
	maxDigests = 4096
	// digestQueue is how many files may wait to be read for HTTP. A further one has the weaker entity tag this time.
	digestQueue = 64
	// resumePatience is how long an HTTP client waits for a file's digest that may go on only if it has the tag that another appliance gave it: a file of
	// 4 GB is read in that time. Nobody else waits: the first to ask for a large file has the weaker tag.
	resumePatience = 20 * time.Second
)

// stamp tells one state of a file from another.
type stamp struct {
	size   int64
	mod    time.Time
	device uint64
	inode  uint64
}

func stampOf(f *os.File) (stamp, error) {
	info, err := f.Stat()
	if err != nil {
		return stamp{}, err
	}
	return stampFrom(info), nil
}

func stampFrom(info fs.FileInfo) stamp {
	s := stamp{size: info.Size(), mod: info.ModTime()}
	if raw, ok := info.Sys().(*syscall.Stat_t); ok {
		s.device, s.inode = raw.Dev, raw.Ino
	}
	return s
}

type digestKey struct {
	name string
	stamp
}

// tagOf returns the entity tag of a content: the same on every appliance that has it, whenever it was copied there.
func tagOf(d wire.Digest) string { return `"` + hex.EncodeToString(d[:]) + `"` }

// digestOf reads a file that is in the state of s to its end. ok is false if it was cut short or written to meanwhile, or we stop.
func digestOf(ctx context.Context, f *os.File, s stamp, read func(at int64)) (d wire.Digest, ok bool) {
	sum, buf := sha256.New(), make([]byte, min(digestPiece, max(s.size, 1)))
	for at := int64(0); at < s.size; {
		n, err := f.ReadAt(buf[:min(int64(len(buf)), s.size-at)], at)
		if n == 0 || err != nil && err != io.EOF || ctx.Err() != nil {
			return d, false
		}
		sum.Write(buf[:n])
		at += int64(n)
		read(at)
	}
	if now, err := stampOf(f); err != nil || now != s {
		return d, false
	}
	return wire.Digest(sum.Sum(nil)[:len(d)]), true
}

// digests is what is known of files on disk. TFTP and HTTP share it.
type digests struct {
	mu    sync.Mutex
	known map[digestKey]wire.Digest
	under map[digestKey]*reading // for HTTP
	queue chan *reading
}

// reading is a file that is being read, or is to be.
type reading struct {
	key  digestKey
	file *os.File
	done chan struct{}
}

func newDigests() *digests {
	return &digests{known: make(map[digestKey]wire.Digest), under: make(map[digestKey]*reading), queue: make(chan *reading, digestQueue)}
}

func (l *digests) get(key digestKey) (wire.Digest, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	d, ok := l.known[key]
	return d, ok
}

func (l *digests) put(key digestKey, d wire.Digest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.known) >= maxDigests {
		clear(l.known)
	}
	l.known[key] = d
}

// of returns the digest of an open file, and waits for it as long as patience says if it must be read first.
func (l *digests) of(ctx context.Context, file *File, patience time.Duration) (d wire.Digest, ok bool) {
	key, f := digestKey{file.Name, file.stamp}, file.disk
	if d, ok = l.get(key); ok {
		return d, true
	}
	if key.size <= smallFile {
		if d, ok = digestOf(ctx, f, key.stamp, func(int64) {}); ok {
			l.put(key, d)
		}
		return d, ok
	}
	r := l.read(key, f)
	if r == nil || patience == 0 {
		return d, false
	}
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case <-r.done:
	case <-late.C:
	case <-ctx.Done():
	}
	return l.get(key)
}

// read has a file read by run, if it is not already. Nil: too many wait. The client whose file it is may go away before it is read.
func (l *digests) read(key digestKey, f *os.File) *reading {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r := l.under[key]; r != nil {
		return r
	}
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	r := &reading{key, os.NewFile(uintptr(fd), key.name), make(chan struct{})}
	select {
	case l.queue <- r:
		l.under[key] = r
		return r
	default:
		_ = r.file.Close() // nothing was written
		return nil
	}
}

// run reads what read wants, until ctx ends.
func (l *digests) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			for len(l.queue) > 0 {
				l.end(<-l.queue)
			}
			return
		case r := <-l.queue:
			_, known := l.get(r.key) // TFTP may have been faster
			if !known {
				if d, ok := digestOf(ctx, r.file, r.key.stamp, func(int64) {}); ok {
					l.put(r.key, d)
				}
			}
			l.end(r)
		}
	}
}

func (l *digests) end(r *reading) {
	_ = r.file.Close() // read only
	l.mu.Lock()
	delete(l.under, r.key)
	l.mu.Unlock()
	close(r.done)
}
