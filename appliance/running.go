package appliance

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"everboot/internal/durable"
)

// runningFile keeps on disk what devices run, so that an appliance that starts anew still admits one that was given another vDisk meanwhile.
type runningFile struct {
	path  string
	whole func() []byte
	log   *slog.Logger
	dirty chan struct{} // holds one token while the file is behind
}

// maxRunning bounds the file: 10,000 devices are about 2 MB.
const maxRunning = 64 << 20

// load returns what was kept; nil: nothing.
func (r *runningFile) load() ([]byte, error) {
	durable.Sweep(r.path)
	info, err := os.Stat(r.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil && info.Size() > maxRunning {
		err = fmt.Errorf("reading %s: it has %d bytes; remove it", r.path, info.Size())
	}
	if err != nil {
		return nil, err
	}
	return os.ReadFile(r.path)
}

// changed says that the file is behind. It never blocks.
func (r *runningFile) changed() {
	select {
	case r.dirty <- struct{}{}:
	default:
	}
}

// Run saves until ctx ends, at most once a second, and once more at the end.
func (r *runningFile) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return r.last()
		case <-r.dirty:
		}
		if err := durable.WriteFile(r.path, r.whole(), 0o600); err != nil {
			r.log.Error("what devices run cannot be saved; after a restart one that was given another vDisk meanwhile would be refused", "error", err)
			r.changed() // it is still behind
		}
		select {
		case <-ctx.Done():
		case <-time.After(savePace):
		}
	}
}

func (r *runningFile) last() error {
	select {
	case <-r.dirty:
		return durable.WriteFile(r.path, r.whole(), 0o600)
	default:
		return nil
	}
}
