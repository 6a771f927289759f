package tftp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"everboot/tftp/wire"
)

const (
	// warmFirst bytes of a file are read before its first block is sent, and warmPiece bytes at once after that, ahead of the
	// clients: whoever sends must never wait for a disk.
	warmFirst, warmPiece = 256 << 10, 4 << 20
	// maxNetascii bounds what is converted in memory. Nobody boots a text of that size.
	maxNetascii = 1 << 20
)

var errNetasciiSize = errors.New("too large for netascii: ask for mode octet")

// image is the content of a file, as all its transfers share it.
type image struct {
	name string
	key  string // in the library; empty: not in it
	data []byte // mapped, or in memory
	// warm is how many bytes from the start on have been read into memory lately.
	warm    atomic.Int64
	warming atomic.Bool
	digest  atomic.Pointer[wire.Digest] // nil: not known yet

	stamp stamp
	disk  *os.File // nil: in memory; a netascii image has none
	users int      // guarded by the library
	// queued tells that the digester reads it, has read it, or will. Guarded by the library.
	queued bool
}

// Digest returns the digest, or the zero one while it is not known.
func (i *image) Digest() wire.Digest {
	if d := i.digest.Load(); d != nil {
		return *d
	}
	return wire.Digest{}
}

// library keeps one image of each file that is being sent.
type library struct {
	files    *Files
	queue    chan *image  // for the digester
	digested func(*image) // called when a digest has become known

	mu     sync.Mutex
	images map[string]*image
}

func newLibrary(files *Files) *library {
	return &library{files: files, queue: make(chan *image, 64), images: make(map[string]*image)}
}

// open returns the image of a file; close it with release. It reads the disk: the owner of the transfers must not call it.
func (l *library) open(raw string, mode wire.Mode) (*image, error) {
	file, err := l.files.Open(raw)
	if err != nil {
		return nil, err
	}
	if mode == wire.Netascii {
		defer file.Close()
		return l.shareText(file)
	}
	if file.blob != nil {
		return inMemory(file.Name, file.blob.data, file.blob.digest), nil
	}
	return l.share(file)
}

// inMemory returns an image that needs no library.
func inMemory(name string, data []byte, d wire.Digest) *image {
	i := &image{name: name, data: data}
	i.warm.Store(int64(len(data)))
	i.digest.Store(&d)
	return i
}

// shareText returns the netascii image that others have open if it is still that of the file, else a new one: the memory of texts is
// bounded by how many there are, not by who asks for them.
func (l *library) shareText(file *File) (*image, error) {
	key := file.Name + "\x00" + file.ETag // no name has a NUL
	l.mu.Lock()
	if i := l.images[key]; i != nil {
		i.users++
		l.mu.Unlock()
		return i, nil
	}
	l.mu.Unlock()
	i, err := convert(file) // without the lock: the owner takes it
	if err != nil {
		return nil, err
	}
	i.key, i.users = key, 1
	l.mu.Lock()
	defer l.mu.Unlock()
	if other := l.images[key]; other != nil { // another opener was faster
		other.users++
		return other, nil
	}
	l.images[key] = i
	return i, nil
}

// convert returns a text as netascii. Its digest is that of the converted text.
func convert(file *File) (*image, error) {
	if file.Size > maxNetascii {
		return nil, errNetasciiSize
	}
	text, err := io.ReadAll(io.LimitReader(file.Content, maxNetascii))
	if err != nil {
		return nil, err
	}
	text = bytes.ReplaceAll(text, []byte("\r"), []byte("\r\x00"))
	text = bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n"))
	return inMemory(file.Name, text, newBlob(text, time.Time{}).digest), nil
}

// share returns the image that others have open if it is still that of the file, else a new one. The file is closed with the image.
func (l *library) share(file *File) (*image, error) {
	key := file.stamp
	l.mu.Lock()
	if i := l.images[file.Name]; i != nil && i.stamp == key {
		i.users++
		l.mu.Unlock()
		_ = file.Close() // the image has its own
		return i, nil
	}
	l.mu.Unlock()
	digest, known := l.files.digests.get(digestKey{file.Name, key})

	i := &image{name: file.Name, key: file.Name, stamp: key, disk: file.disk, users: 1}
	if err := i.load(); err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("mapping %s: %w", file.Name, err)
	}
	if known {
		i.digest.Store(&digest)
	}
	l.readAhead(i)
	l.mu.Lock()
	defer l.mu.Unlock()
	if other := l.images[i.key]; other != nil && other.stamp == key {
		other.users++
		l.drop(i)
		return other, nil
	}
	l.images[i.key] = i
	return i, nil
}

// load maps the file. Go never touches the mapping: of a file that is cut short meanwhile the kernel cannot send a block, and says so; we
// would die of SIGBUS.
func (i *image) load() (err error) {
	if i.stamp.size == 0 {
		return nil
	}
	i.data, err = unix.Mmap(int(i.disk.Fd()), 0, int(i.stamp.size), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	return i.warmUp(warmFirst)
}

func (i *image) unload() {
	if i.data != nil {
		_ = unix.Munmap(i.data) // it was mapped
	}
	_ = i.disk.Close() // read only
}

// warmUp has the kernel read the next bytes of the file into its memory, and map them, so that no send stops for either.
func (i *image) warmUp(bytes int64) error {
	from := i.warm.Load()
	to := min(from+bytes, i.stamp.size)
	page := int64(os.Getpagesize())
	if from < to && unix.Madvise(i.data[from/page*page:to], unix.MADV_POPULATE_READ) == nil {
		i.warmTo(to)
		return nil
	}
	// A kernel before 5.14, or a file that was cut short.
	n, err := io.Copy(io.Discard, io.NewSectionReader(i.disk, from, bytes))
	i.warmTo(from + n)
	if err == nil && n == 0 && from < i.stamp.size {
		err = io.ErrUnexpectedEOF
	}
	return err
}

func (i *image) warmTo(n int64) {
	for old := i.warm.Load(); old < n && !i.warm.CompareAndSwap(old, n); old = i.warm.Load() {
	}
}

// readAhead computes the digest now if that takes no time, else lets the digester do it, which reads the file ahead of the clients, too, when
// its digest is known. When too many wait, its turn comes later (readAgain): until then a transfer of a file that is not known is not told to other appliances.
func (l *library) readAhead(i *image) {
	if i.stamp.size <= smallFile {
		if !i.Digest().Known() {
			l.digest(context.Background(), i)
		}
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.queueUp(i)
}

// queueUp has the digester read an image, if there is room. The lock is held.
func (l *library) queueUp(i *image) {
	select {
	case l.queue <- i:
		i.users++
		i.queued = true
	default:
	}
}

// readAgain has the digester read what it had no room for. What it read in vain was cut short, or written to: no other copy is known to be the same.
func (l *library) readAgain() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, i := range l.images {
		if i.disk != nil && !i.queued && i.stamp.size > smallFile {
			l.queueUp(i)
		}
	}
}

// digester reads large files, and computes their digests, until ctx ends.
func (l *library) digester(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			for {
				select {
				case i := <-l.queue:
					l.release(i)
				default:
					return
				}
			}
		case i := <-l.queue:
			if !i.Digest().Known() {
				l.digest(ctx, i)
			}
			for ctx.Err() == nil && i.warm.Load() < i.stamp.size && i.warmUp(warmPiece) == nil { // of an error the transfers hear
			}
			l.release(i)
		}
	}
}

func (l *library) digest(ctx context.Context, i *image) {
	key := digestKey{i.name, i.stamp}
	d, ok := l.files.digests.get(key) // HTTP may have been faster
	if !ok {
		if d, ok = digestOf(ctx, i.disk, i.stamp, i.warmTo); !ok {
			return
		}
		l.files.digests.put(key, d)
	}
	i.digest.Store(&d)
	l.digested(i)
}

// hold keeps an image that is open already open for one user more.
func (l *library) hold(i *image) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i.users++
}

// release gives an image back.
func (l *library) release(i *image) {
	if i.key == "" {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.drop(i)
}

// drop is release with the lock held.
func (l *library) drop(i *image) {
	if i.users--; i.users > 0 {
		return
	}
	if l.images[i.key] == i {
		delete(l.images, i.key)
	}
	if i.disk != nil {
		i.unload()
	}
}
