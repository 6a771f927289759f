package streamer

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"everboot/site"
)

// reader computes digests, one at a time, so that reading a big replica holds up nothing else.
type reader struct {
	store   *Store
	log     *slog.Logger
	queue   chan Disk
	results chan digested
	pending map[Disk]time.Time // asked for by the agent's goroutine; when it may ask again
}

type digested struct {
	disk   Disk
	digest site.Digest
}

// reread is when a disk whose digest did not come is asked for again.
const reread = time.Minute

func newReader(store *Store, log *slog.Logger) *reader {
	return &reader{
		store: store, log: log, queue: make(chan Disk, 1024), results: make(chan digested), pending: make(map[Disk]time.Time),
	}
}

// want asks for a digest, once in a while.
func (r *reader) want(d Disk) {
	now := time.Now()
	for old, until := range r.pending {
		if now.After(until) {
			delete(r.pending, old)
		}
	}
	if _, ok := r.pending[d]; ok {
		return
	}
	select {
	case r.queue <- d:
		r.pending[d] = now.Add(reread)
	default: // full: the next look at the store asks again
	}
}

func (r *reader) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case d := <-r.queue:
			r.read(ctx, d)
		}
	}
}

func (r *reader) read(ctx context.Context, d Disk) {
	if now, ok := stat(d.Path); !ok || now != d {
		return // it changed since; the next look at the store asks for what it is now
	}
	digest, known := r.store.Known(d)
	if !known {
		var err error
		digest, err = r.store.Digest(ctx, d)
		if err != nil {
			switch {
			case ctx.Err() != nil:
			case errors.Is(err, errElsewhere): // the agent looks for its manifest meanwhile
				r.log.Info("a replica is not served yet", "path", d.Path, "why", err)
			default:
				r.log.Warn("a replica is not served", "path", d.Path, "error", err)
			}
			return
		}
	}
	select {
	case r.results <- digested{d, digest}:
	case <-ctx.Done():
	}
}
