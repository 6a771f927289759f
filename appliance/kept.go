package appliance

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"everboot/internal/durable"
)

// keptFile keeps on disk what a part of the appliance must still know after a restart.
type keptFile struct {
	path  string
	what  string // in words
	whole func() []byte
	log   *slog.Logger
	dirty chan struct{} // holds one token while the file is behind
}

func newKeptFile(dir, name, what string, log *slog.Logger) *keptFile {
	return &keptFile{path: filepath.Join(dir, name), what: what, log: log, dirty: make(chan struct{}, 1)}
}

// maxKept bounds the file: what 10,000 devices run is about 2 MB.
const maxKept = 64 << 20

// load returns what was kept; nil: nothing.
func (k *keptFile) load() ([]byte, error) {
	durable.Sweep(k.path)
	info, err := os.Stat(k.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil && info.Size() > maxKept {
		err = fmt.Errorf("reading %s: it has %d bytes; remove it", k.path, info.Size())
	}
	if err != nil {
		return nil, err
	}
	return os.ReadFile(k.path)
}

// changed says that the file is behind. It never blocks.
func (k *keptFile) changed() {
	select {
	case k.dirty <- struct{}{}:
	default:
	}
}

// Run saves until ctx ends, at most once a second, and once more at the end.
func (k *keptFile) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return k.last()
		case <-k.dirty:
		}
		if err := durable.WriteFile(k.path, k.whole(), 0o600); err != nil {
			k.log.Error("cannot be saved; it would not be known after a restart", "what", k.what, "error", err)
			k.changed() // it is still behind
		}
		select {
		case <-ctx.Done():
		case <-time.After(savePace):
		}
	}
}

func (k *keptFile) last() error {
	select {
	case <-k.dirty:
		return durable.WriteFile(k.path, k.whole(), 0o600)
	default:
		return nil
	}
}
