package streamer

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/folbricht/desync"

	"everboot/internal/durable"
	"everboot/site"
)

// The file names of a store, PATH/VDISK/VERSION/disk.raw and beside it the manifest.
const (
	diskName     = "disk.raw"
	manifestName = "manifest.json"
)

// The chunk sizes of casync's defaults. They are part of what a digest means: never change them.
const (
	chunkMin = 16 << 10
	chunkAvg = 64 << 10
	chunkMax = 256 << 10
)

// Store is a folder of vDisk replicas, VDISK/VERSION/disk.raw.
//
// To put a replica in place, copy it under another name into the same folder (disk.raw.partial, or a folder whose name begins with
// a dot) and rename it when it is whole. What was copied is never served half: its digest would differ. But it would be read
// again and again while it grows.
type Store struct {
	path string
	log  *slog.Logger
	// Shared says that other streamers have the same folder: one of them reads a new replica for all.
	Shared bool
}

// Disk is a replica as the file system shows it. It changes whenever the file does, and so serves as a key.
type Disk struct {
	VDisk   string
	Version int
	Path    string
	Size    int64 // bytes
	MTime   int64 // nanoseconds since 1970
	Inode   uint64
}

// manifest remembers the digest of a disk, so that it is read only once.
type manifest struct {
	Size   int64       `json:"size"`
	MTime  int64       `json:"mtime_ns"`
	Inode  uint64      `json:"inode"`
	Digest site.Digest `json:"digest"`
}

// NewStore returns the store at a folder, which need not exist yet.
func NewStore(path string, log *slog.Logger) *Store { return &Store{path: path, log: log} }

// lockName is the file beside a disk that who reads it for its digest holds.
const lockName = ".reading"

// errElsewhere says that another streamer reads the disk already.
var errElsewhere = errors.New("another streamer with this store reads it")

// lock makes sure that nobody else reads a disk of a shared store for its digest. A store where nothing can be written to is read by everybody.
func (s *Store) lock(d Disk) (unlock func(), err error) {
	if !s.Shared {
		return func() {}, nil
	}
	f, err := os.OpenFile(filepath.Join(filepath.Dir(d.Path), lockName), os.O_CREATE|os.O_RDWR, 0o666)
	if err != nil {
		s.log.Warn("a replica of a shared store is read by every streamer", "path", d.Path, "error", err)
		return func() {}, nil
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, errElsewhere
		}
		s.log.Warn("a shared store without locks: its replicas are read by every streamer", "path", d.Path, "error", err)
		return func() {}, nil
	}
	_ = f.Chmod(0o666)               // streamers with another user need it too; who cannot make it so did not make it
	return func() { f.Close() }, nil // and with it the lock goes, also that of a machine that dies, as NFSv4 has leases
}

// Scan lists the replicas. What is not named as a replica is passed over.
func (s *Store) Scan() ([]Disk, error) {
	paths, err := filepath.Glob(filepath.Join(escape(s.path), "*", "*", diskName))
	if err != nil {
		return nil, fmt.Errorf("listing the vDisk store %s: %w", s.path, err)
	}
	if _, err := os.Stat(s.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("listing the vDisk store: %w", err)
	}
	var disks []Disk
	for _, path := range paths {
		if d, ok := stat(path); ok {
			disks = append(disks, d)
		}
	}
	slices.SortFunc(disks, func(a, b Disk) int { return cmpDisk(a, b) })
	return disks, nil
}

func cmpDisk(a, b Disk) int {
	if a.VDisk != b.VDisk {
		if a.VDisk < b.VDisk {
			return -1
		}
		return 1
	}
	return a.Version - b.Version
}

// escape keeps filepath.Glob from reading patterns into the store's own path.
func escape(path string) string {
	var out []rune
	for _, r := range path {
		if r == '*' || r == '?' || r == '[' || r == '\\' {
			out = append(out, '\\')
		}
		out = append(out, r)
	}
	return string(out)
}

// stat returns what a file is, and whether it is a replica: a regular file of whole blocks under a proper name.
func stat(path string) (Disk, bool) {
	folder := filepath.Dir(path)
	vdisk, number := filepath.Base(filepath.Dir(folder)), filepath.Base(folder)
	version, err := strconv.Atoi(number)
	if err != nil || version < 1 || strconv.Itoa(version) != number || site.CheckName("vDisk", vdisk) != nil {
		return Disk{}, false
	}
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() || info.Size() == 0 || info.Size()%512 != 0 {
		return Disk{}, false
	}
	sys, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return Disk{}, false
	}
	return Disk{
		VDisk: vdisk, Version: version, Path: path, Size: info.Size(), MTime: info.ModTime().UnixNano(), Inode: sys.Ino,
	}, true
}

// Known returns the digest of a disk from its manifest, if the disk has not changed since.
func (s *Store) Known(d Disk) (site.Digest, bool) {
	b, err := os.ReadFile(filepath.Join(filepath.Dir(d.Path), manifestName))
	if err != nil {
		return "", false
	}
	var m manifest
	if json.Unmarshal(b, &m) != nil || m.Size != d.Size || m.MTime != d.MTime || m.Inode != d.Inode {
		return "", false
	}
	if _, err := site.ParseDigest(string(m.Digest)); err != nil {
		return "", false
	}
	return m.Digest, true
}

// errChanged says that a disk is being written to.
var errChanged = errors.New("it changed while it was read; rename replicas into place when they are whole")

// Digest reads a disk and returns its digest, and writes it into the manifest.
func (s *Store) Digest(ctx context.Context, d Disk) (site.Digest, error) {
	unlock, err := s.lock(d)
	if err != nil {
		return "", fmt.Errorf("reading %s: %w", d.Path, err)
	}
	defer unlock()
	if digest, ok := s.Known(d); ok && s.Shared { // who had the lock before has read it
		return digest, nil
	}
	start := time.Now()
	digest, err := ContentDigest(ctx, d.Path, func(done, total int64) {
		s.log.Info("reading a replica for its digest", "path", d.Path, "percent", done*100/max(total, 1))
	})
	if err != nil {
		return "", fmt.Errorf("reading %s: %w", d.Path, err)
	}
	if now, ok := stat(d.Path); !ok || now != d {
		return "", fmt.Errorf("reading %s: %w", d.Path, errChanged)
	}
	s.log.Info("replica read", "path", d.Path, "digest", digest.Short(), "took", time.Since(start).Round(time.Millisecond))
	m := manifest{Size: d.Size, MTime: d.MTime, Inode: d.Inode, Digest: digest}
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return "", err
	}
	path := filepath.Join(filepath.Dir(d.Path), manifestName)
	if err := durable.WriteFile(path, append(b, '\n'), 0o644); err != nil {
		// A store that is mounted read-only works; the disk is just read again at the next start.
		s.log.Warn("a digest cannot be kept", "path", path, "error", err)
	}
	return digest, nil
}

// ContentDigest returns the SHA-256 of the casync index of a file. Progress, if not nil, is called every 10 s.
func ContentDigest(ctx context.Context, path string, progress func(done, total int64)) (site.Digest, error) {
	bar := &progressLog{tell: progress}
	bar.next.Store(time.Now().Add(progressEvery).UnixNano())
	// Half of the processors: targets are served meanwhile.
	workers := max(1, runtime.NumCPU()/2)
	index, _, err := desync.IndexFromFile(ctx, path, workers, chunkMin, chunkAvg, chunkMax, bar)
	if err != nil {
		return "", err
	}
	if err := ctx.Err(); err != nil {
		return "", err
	}
	h := sha256.New()
	if _, err := index.WriteTo(h); err != nil {
		return "", err
	}
	return site.Digest(hex.EncodeToString(h.Sum(nil))), nil
}

const progressEvery = 10 * time.Second

// progressLog is a desync.ProgressBar that speaks now and then.
type progressLog struct {
	tell        func(done, total int64)
	done, total atomic.Int64
	next        atomic.Int64 // when to speak, nanoseconds since 1970
}

func (p *progressLog) SetTotal(n int)              { p.total.Store(int64(n)) }
func (p *progressLog) Start()                      {}
func (p *progressLog) Finish()                     {}
func (p *progressLog) Increment() int              { return p.Add(1) }
func (p *progressLog) Write(b []byte) (int, error) { return io.Discard.Write(b) }

func (p *progressLog) Add(n int) int {
	p.done.Add(int64(n))
	p.speak()
	return n
}

func (p *progressLog) Set(n int) {
	p.done.Store(int64(n))
	p.speak()
}

func (p *progressLog) speak() {
	now, next := time.Now(), p.next.Load()
	if p.tell != nil && now.UnixNano() > next && p.next.CompareAndSwap(next, now.Add(progressEvery).UnixNano()) {
		p.tell(p.done.Load(), p.total.Load())
	}
}
