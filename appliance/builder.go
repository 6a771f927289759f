package appliance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"sync/atomic"
	"time"

	"everboot/health"
	"everboot/internal/durable"
	"everboot/site"
)

// builder is the one goroutine that makes site views. Everybody else reads the current one through View.
type builder struct {
	path    string // where the view is kept on disk
	log     *slog.Logger
	now     func() time.Time
	current atomic.Pointer[site.View]
	said    atomic.Pointer[site.Content] // by the registry, and in the current view; nil: nothing yet
	inbox   chan func(*sources)
	changed []func(*site.View) // called by the builder's goroutine after each change, in order; they must not block
	dirty   chan struct{}      // holds one token while the current view is not on disk
	ended   chan struct{}      // closed when Run has ended
}

// savePace is the least time between two saves: announced session counts change the view each second.
const savePace = time.Second

// sources is what views are made of. Only the builder's goroutine touches it.
type sources struct {
	content  *site.Content // nil: the registry has not spoken since the start
	registry site.Registry
	seen     site.Observed
}

// newBuilder loads the view of last time, so that targets are served before the registry has said a word. A saved view that cannot be read is
// put aside and named in the log: it must not keep an appliance from starting.
func newBuilder(c *Config, seen site.Observed, log *slog.Logger, now func() time.Time) (*builder, error) {
	b := &builder{path: filepath.Join(c.State, "view.json"), log: log, now: now, inbox: make(chan func(*sources), 64), dirty: make(chan struct{}, 1), ended: make(chan struct{})}
	view := site.Empty(c.Site, c.Registry.Kind)
	durable.Sweep(b.path)
	saved, err := loadView(b.path)
	switch {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		aside := b.path + ".broken"
		log.Warn("the saved view cannot be read; starting without it", "error", err, "kept_as", aside)
		if err := os.Rename(b.path, aside); err != nil {
			log.Error("the broken view cannot be put aside", "error", err)
		}
	case saved.Site != c.Site:
		log.Warn("the saved view is of another site; starting without it", "saved", saved.Site, "configured", c.Site)
	default:
		view = saved
		view.FromDisk = true
	}
	view.Registry = site.Registry{Kind: c.Registry.Kind, Since: now(), Emptied: view.Registry.Emptied && view.Registry.Kind == c.Registry.Kind}
	view.Boot, view.Appliances = seen.Boot, seen.Appliances
	for name, s := range view.Streamers {
		s.Check = site.Check{} // a probe of last time says nothing of now
		view.Streamers[name] = s
	}
	b.current.Store(view)
	return b, nil
}

// View returns the current site view. It never blocks and never returns nil.
func (b *builder) View() *site.View { return b.current.Load() }

// Run builds views until ctx ends.
func (b *builder) Run(ctx context.Context, seen site.Observed) error {
	defer close(b.ended)
	src := &sources{registry: b.View().Registry, seen: seen}
	if src.seen.Streamers == nil {
		src.seen.Streamers = map[string]site.Check{}
	}
	b.rebuild(src)
	for {
		select {
		case <-ctx.Done():
			return nil
		case change := <-b.inbox:
			change(src)
			for drained := false; !drained; { // one view for a burst of changes
				select {
				case change := <-b.inbox:
					change(src)
				default:
					drained = true
				}
			}
			b.rebuild(src)
		}
	}
}

// tell hands a change to the builder. It is dropped only when ctx or the builder has ended: all rooms stop at the same time, and who still
// has something to say must not wait for ever.
func (b *builder) tell(ctx context.Context, change func(*sources)) {
	select {
	case b.inbox <- change:
	case <-ctx.Done():
	case <-b.ended:
	}
}

// registryChanged is what the registry's Run calls.
func (b *builder) registryChanged(ctx context.Context, c site.Content, r site.Registry) {
	b.tell(ctx, func(s *sources) {
		if r.Reachable {
			s.content = &c
		}
		if r.Reachable == s.registry.Reachable {
			r.Since = s.registry.Since
		} else {
			r.Since = b.now()
		}
		s.registry = r
	})
}

// probed is what the health runner calls on each change of a check.
func (b *builder) probed(ctx context.Context, name string, c site.Check) {
	b.tell(ctx, func(s *sources) {
		switch name {
		case checkBootTFTP:
			s.seen.Boot.TFTP = c
		case checkBootHTTP:
			s.seen.Boot.HTTP = c
		case checkBootTFTP6:
			s.seen.Boot.TFTP6 = c
		case checkBootHTTP6:
			s.seen.Boot.HTTP6 = c
		default:
			if streamer, ok := health.StreamerOf(name); ok {
				s.seen.Streamers = maps.Clone(s.seen.Streamers)
				s.seen.Streamers[streamer] = c
			}
		}
	})
}

// wished is called with what the operator wants of streamers and the registry does not know.
func (b *builder) wished(ctx context.Context, wishes map[string]site.StreamerState) {
	b.tell(ctx, func(s *sources) { s.seen.Wishes = wishes })
}

func (b *builder) rebuild(s *sources) {
	defer b.said.Store(s.content) // after the view that has it
	prev := b.View()
	next := site.Merge(prev, s.content, s.registry, s.seen, b.now())
	if same(prev, next) {
		return
	}
	b.current.Store(next)
	for _, f := range b.changed {
		f(next)
	}
	b.behind()
}

// behind says that the file is. It never blocks.
func (b *builder) behind() {
	select {
	case b.dirty <- struct{}{}:
	default: // it will be saved anyway
	}
}

// same compares two views but for their epoch and time.
func same(a, b *site.View) bool {
	x, y := *a, *b
	x.Epoch, y.Epoch, x.Built, y.Built = 0, 0, time.Time{}, time.Time{}
	return reflect.DeepEqual(x, y)
}

// Save keeps the view on disk until ctx and Run have ended. It has a goroutine of its own, so that a slow disk delays no view.
func (b *builder) Save(ctx context.Context) error {
	failing := false
	for {
		select {
		case <-ctx.Done():
			<-b.ended
			select {
			case <-b.dirty: // what changed within the last pace
				return saveView(b.path, b.View())
			default:
				return nil
			}
		case <-b.dirty:
		}
		err := saveView(b.path, b.View())
		if err != nil {
			b.behind() // the disk may have room again before the view changes
		}
		if failed := err != nil; failed != failing {
			failing = failed
			if failed {
				b.log.Error("the view cannot be saved; a restart without the registry would not know this site", "error", err)
			} else {
				b.log.Info("the view is saved again", "path", b.path)
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(savePace):
		}
	}
}

func loadView(path string) (*site.View, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	v := new(site.View)
	if err := json.Unmarshal(text, v); err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	if v.Site == "" {
		return nil, fmt.Errorf("reading %s: it names no site", path)
	}
	return v, nil
}

func saveView(path string, v *site.View) error {
	text, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return err
	}
	return durable.WriteFile(path, text, 0o600)
}
