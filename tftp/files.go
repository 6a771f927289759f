package tftp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"everboot/site"
	"everboot/tftp/wire"
)

// DefaultIPXE is where Debian's package ipxe puts its binaries.
const DefaultIPXE = "/usr/lib/ipxe"

// FileAutoexec is what iPXE since 2021 fetches by itself from where it came from. It is the bootstrap by another name.
const FileAutoexec = "autoexec.ipxe"

// FilesConfig says where boot files come from.
type FilesConfig struct {
	Root string // the operator's directory; empty: none
	IPXE string // a directory with iPXE's binaries; empty: DefaultIPXE
}

// Validate returns an error that says what to mend.
func (c FilesConfig) Validate() error {
	if c.Root != "" && !filepath.IsAbs(c.Root) {
		return fmt.Errorf("boot files: root %q: use an absolute path", c.Root)
	}
	if c.IPXE != "" && !filepath.IsAbs(c.IPXE) {
		return fmt.Errorf("boot files: ipxe %q: use an absolute path", c.IPXE)
	}
	return nil
}

// Files is what boot clients may read. Of equal names the generated file wins over the operator's, and that over iPXE's
// binaries. It may be used by many goroutines.
type Files struct {
	cfg  FilesConfig
	view func() *site.View
	root *os.Root
	ipxe map[string]*blob

	digests *digests
}

// NewFiles opens the operator's directory and reads iPXE's binaries (a few MB) into memory, once. A directory of iPXE that is not
// there is no error here, because the operator's may hold the binaries: Check tells.
func NewFiles(cfg FilesConfig, view func() *site.View) (*Files, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.IPXE == "" {
		cfg.IPXE = DefaultIPXE
	}
	f := &Files{cfg: cfg, view: view, digests: newDigests()}
	var err error
	if f.ipxe, err = loadBinaries(cfg.IPXE); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if cfg.Root == "" {
		return f, nil
	}
	if f.root, err = os.OpenRoot(cfg.Root); err != nil {
		return nil, fmt.Errorf("opening the directory of boot files: %w; make it, or change root", err)
	}
	return f, nil
}

// Close gives the operator's directory back. Files that are open stay so.
func (f *Files) Close() error {
	if f.root == nil {
		return nil
	}
	return f.root.Close()
}

// File is an open boot file.
type File struct {
	Name    string    // the cleaned name
	Size    int64     // bytes
	ModTime time.Time // zero for generated files
	// ETag is a strong entity tag (RFC 9110 §8.8.3), quotes included: equal tags, equal bytes. Of a file on disk it says the state there, which is
	// another on each appliance; Tag knows the content's.
	ETag string
	// Content reads the file. It is an *os.File or a *bytes.Reader, so that HTTP can hand the former to sendfile.
	Content io.ReadSeeker
	blob    *blob    // of a file in memory
	disk    *os.File // of any other
	stamp   stamp    // of that one, when it was opened
}

// Close closes the file.
func (f *File) Close() error {
	if f.disk == nil {
		return nil
	}
	return f.disk.Close()
}

// Tag returns the entity tag of an open file's content, the same on every appliance. It waits for it as long as patience says; in vain, it is ETag.
func (f *Files) Tag(ctx context.Context, file *File, patience time.Duration) string {
	if file.disk == nil {
		return file.ETag
	}
	if d, ok := f.digests.of(ctx, file, patience); ok {
		return tagOf(d)
	}
	return file.ETag
}

// Open opens the file that a client asked for by a name in any of the forms that CleanName knows. The error is an fs.ErrNotExist, an
// fs.ErrInvalid, or what the operating system said.
func (f *Files) Open(raw string) (*File, error) {
	name, err := CleanName(raw)
	if err != nil {
		return nil, err
	}
	if name == site.FileBootstrap || name == FileAutoexec {
		return newBlob([]byte(f.bootstrap()), time.Time{}).open(name), nil
	}
	if f.root != nil {
		file, err := f.openRoot(name)
		if !errors.Is(err, fs.ErrNotExist) {
			return file, err
		}
	}
	if b, ok := f.ipxe[name]; ok {
		return b.open(name), nil
	}
	return nil, fmt.Errorf("file %s: %w", name, fs.ErrNotExist)
}

func (f *Files) bootstrap() string {
	return site.Bootstrap{Hosts: f.view().LoginServers()}.Script()
}

// openRoot opens a regular file of the operator's directory. O_NONBLOCK keeps a FIFO from blocking us for ever; it changes nothing for
// regular files.
func (f *Files) openRoot(name string) (*File, error) {
	file, err := f.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("file %s: not a regular file: %w", name, fs.ErrNotExist)
	}
	if err != nil {
		_ = file.Close() // nothing was written
		return nil, err
	}
	tag := `"` + strconv.FormatInt(info.Size(), 16) + "-" + strconv.FormatInt(info.ModTime().UnixNano(), 16) + `"`
	return &File{Name: name, Size: info.Size(), ModTime: info.ModTime(), ETag: tag, Content: file, disk: file, stamp: stampFrom(info)}, nil
}

// blob is a file in memory.
type blob struct {
	data   []byte
	mod    time.Time
	digest wire.Digest
	etag   string
}

func (b *blob) open(name string) *File {
	return &File{Name: name, Size: int64(len(b.data)), ModTime: b.mod, ETag: b.etag, Content: bytes.NewReader(b.data), blob: b}
}
