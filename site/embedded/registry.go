// Package embedded is the registry of a site without Consul: what the appliance's own configuration file says, what was
// put at run time, and what streamers announce to every appliance's API.
//
// # What is kept
//
// Objects put at run time are kept in one JSON file, registry.json, that is replaced as a whole (write, fsync, rename, fsync of the
// folder). It is a file rather than a database because a site's content is small (10,000 devices are 1 MB), changes seldom and by
// hand, and because a person must be able to read, mend, copy and compare it with an editor. Changes that arrive together share one write.
// An object of the configuration file wins over a stored one of the same key, and is changed in the configuration file only.
//
// Announcements are not kept: a streamer repeats its own each second, and between two lives of an appliance its saved view remembers.
//
// # Two appliances, one streamer
//
// Whether a streamer shall drain may be said at any appliance. The wish carries a stamp: the time in milliseconds since 1970 at which it was
// said, or one more than the stamp of the wish that it replaces if that is later. The wish with the higher stamp wins; of two with
// the same stamp draining wins. Streamers carry wishes between appliances: each appliance answers an announcement with the
// wish that it holds, the streamer follows the newest that it was told and says so in its next announcement, and an
// appliance that reads of a newer wish takes it for its own and keeps it. So a wish is everywhere two announcements after it was said.
// In the content a streamer drains if the wish or the streamer itself says so.
package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"reflect"
	"sync"
	"time"

	"everboot/site"
)

// DefaultTTL is for how long a streamer stays in the content after its last announcement: ten announcements of one a second.
const DefaultTTL = 10 * time.Second

// kind is what site.Registry.Kind says of this registry.
const kind = "embedded"

// Config says what the registry holds from the start, and where it keeps the rest.
type Config struct {
	Dir        string        // holds registry.json; made if it is missing
	Static     site.Content  // what the configuration file says
	StaticFile string        // its name, for errors; "the configuration file" if empty
	Site       string        // announcements of other sites are refused
	TTL        time.Duration // of an announcement; 0: DefaultTTL
	Log        *slog.Logger  // nil: none
	Tell       func([]byte)  // tells the other appliances' registries a change, for PeerChanged; must not block; nil: there are none
}

// Validate returns an error that says what to change.
func (c Config) Validate() error {
	if c.Dir == "" {
		return errors.New("embedded registry: give a folder to keep its objects in")
	}
	if err := site.CheckName("site", c.Site); err != nil {
		return err
	}
	if c.TTL < 0 {
		return fmt.Errorf("embedded registry: TTL %s: use more than 0, or 0 for %s", c.TTL, DefaultTTL)
	}
	if _, err := newStatic(c.Static, c.Site, c.StaticFile); err != nil {
		return err
	}
	return nil
}

// Registry is the embedded registry. Its Run owns the state; every other method asks Run, and waits until it runs.
type Registry struct {
	cfg      Config
	file     file
	state    state // Run's
	requests chan request
	ready    chan struct{}
	stopped  chan struct{}
	heard    chan []entry // of peers
	once     sync.Once    // Run runs once
}

// request asks Run for something. What do returns goes to done, after the objects are on disk if they changed.
type request struct {
	do   func(s *state, now time.Time) error
	done chan error
}

// New reads what is stored in Dir. A file that cannot be read is an error that says what to do about it.
func New(cfg Config) (*Registry, error) {
	if cfg.TTL == 0 {
		cfg.TTL = DefaultTTL
	}
	if cfg.StaticFile == "" {
		cfg.StaticFile = "the configuration file"
	}
	if cfg.Tell == nil {
		cfg.Tell = func([]byte) {}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	fixed, err := newStatic(cfg.Static, cfg.Site, cfg.StaticFile)
	if err != nil {
		return nil, err
	}
	f := file{dir: cfg.Dir}
	objects, leftOut, err := f.load()
	if err != nil {
		return nil, err
	}
	if leftOut != nil {
		cfg.Log.Warn("the registry's file has keys of another everboot", "error", leftOut)
	}
	for _, shadowed := range fixed.shadows(objects) {
		cfg.Log.Info("stored object is hidden by the configuration file", "object", shadowed, "file", cfg.StaticFile)
	}
	return &Registry{
		cfg: cfg, file: f, state: state{fixed: fixed, objects: objects, live: make(map[string]announced), ttl: cfg.TTL},
		requests: make(chan request), ready: make(chan struct{}), stopped: make(chan struct{}), heard: make(chan []entry, heardQueue),
	}, nil
}

// errStopped is what is said to those who ask a registry that has ended.
var errStopped = errors.New("the registry is stopping: ask again, or ask another appliance")

// Ready is closed once changed was called for the first time.
func (r *Registry) Ready() <-chan struct{} { return r.ready }

// Run serves until ctx ends and returns nil then. It calls changed with the whole content at the start and whenever it
// changed, from this goroutine only; changed must not call the registry. The content and its slices are not changed afterwards, and
// changed must not change them either. Put, Delete, Announce and Withdraw return after changed was told of what they did.
func (r *Registry) Run(ctx context.Context, changed func(site.Content, site.Registry)) error {
	err := errors.New("the embedded registry runs once")
	r.once.Do(func() { err = r.run(ctx, changed) })
	return err
}

func (r *Registry) run(ctx context.Context, changed func(site.Content, site.Registry)) error {
	defer close(r.stopped)
	about := site.Registry{Kind: kind, Reachable: true, Since: time.Now()}
	told := r.state.content()
	changed(told, about)
	close(r.ready)
	timer := time.NewTimer(r.cfg.TTL)
	defer timer.Stop()
	for {
		answer := func() {}
		select {
		case <-ctx.Done():
			return nil
		case req := <-r.requests:
			answer = r.serve(req)
		case list := <-r.heard:
			r.merge(r.alsoHeard(list))
		case <-timer.C:
		}
		now := time.Now()
		for _, name := range r.state.expire(now) {
			r.cfg.Log.Warn("streamer announces itself no more", "streamer", name, "ttl", r.cfg.TTL)
		}
		timer.Reset(r.state.nextExpiry(now))
		if c := r.state.content(); !sameContent(told, c) {
			told = c
			changed(told, about)
		}
		answer() // after changed, so that who asked finds it done
	}
}

// serve does what first asks, and what others ask at the same moment, with one write of the file. What it returns answers them.
func (r *Registry) serve(first request) (answerAll func()) {
	type answer struct {
		req   request
		err   error
		dirty bool
	}
	var answers []answer
	now := time.Now()
	before := r.state.objects
	next := &first
	for next != nil && len(answers) < maxBatch {
		generation := r.state.objects.generation
		err := next.do(&r.state, now)
		answers = append(answers, answer{*next, err, r.state.objects.generation != generation})
		select {
		case req := <-r.requests:
			next = &req
		default:
			next = nil
		}
	}
	var saving error
	if r.state.objects.generation != before.generation {
		if saving = r.file.save(r.state.objects); saving != nil {
			r.cfg.Log.Error("saving the registry", "error", saving)
			r.state.objects, r.state.untold = before, nil
		}
	}
	r.tell()
	return func() {
		for _, a := range answers {
			if a.err == nil && a.dirty {
				a.err = saving
			}
			a.req.done <- a.err
		}
	}
}

// tell tells the peers what has changed here and is on disk.
func (r *Registry) tell() {
	for _, e := range r.state.untold {
		if b, err := marshalEntries([]entry{e}); err == nil {
			r.cfg.Tell(b)
		}
	}
	r.state.untold = nil
}

// alsoHeard adds what else waits, so that an import at a peer does not write our file once for each object.
func (r *Registry) alsoHeard(list []entry) []entry {
	for {
		select {
		case more := <-r.heard:
			list = append(list, more...)
		default:
			return list
		}
	}
}

// merge takes what a peer knows better, and keeps it.
func (r *Registry) merge(list []entry) {
	o, changed, ahead := r.state.objects.merge(time.Now(), list)
	if len(ahead) > 0 {
		r.cfg.Log.Warn("a peer tells what was said in the future: set the clocks of all appliances", "objects", len(ahead), "first", ahead[0])
	}
	if len(changed) == 0 {
		return
	}
	before := r.state.objects
	r.state.set(o.forget())
	if err := r.file.save(r.state.objects); err != nil {
		r.cfg.Log.Error("saving what a peer knows", "error", err)
		r.state.objects = before // it comes again
		return
	}
	r.cfg.Log.Info("took over what was said at another appliance", "objects", len(changed), "first", changed[0])
}

// PeerChanged takes a message that another appliance's registry gave to Tell, or PeerWhole's. It never blocks: what finds the queue full
// comes again with the whole.
func (r *Registry) PeerChanged(from string, message []byte) {
	list, err := parseEntries(message)
	if err != nil {
		r.cfg.Log.Warn("dropping what a peer says of the registry", "peer", from, "error", err, "kept", len(list))
	}
	if len(list) == 0 {
		return
	}
	select {
	case r.heard <- list:
	default:
	}
}

// PeerWhole returns all objects, for PeerChanged of other appliances; nil if the registry does not run.
func (r *Registry) PeerWhole() []byte {
	ctx, cancel := context.WithTimeout(context.Background(), wholeTimeout)
	defer cancel()
	var list []entry
	if err := r.ask(ctx, func(s *state, _ time.Time) error { list = s.objects.entries(); return nil }); err != nil {
		return nil
	}
	b, err := marshalEntries(list)
	if err != nil {
		return nil
	}
	return b
}

const (
	// heardQueue is how many messages of peers may wait while the file is written: an import of some hundred devices is one each.
	heardQueue   = 1024
	wholeTimeout = 2 * time.Second
)

// maxBatch bounds how many requests share a write, so that the first does not wait for ever.
const maxBatch = 1000

// ask has Run do something and waits for its answer.
func (r *Registry) ask(ctx context.Context, do func(s *state, now time.Time) error) error {
	req := request{do: do, done: make(chan error, 1)}
	select {
	case r.requests <- req:
	case <-r.stopped:
		return errStopped
	case <-ctx.Done():
		return fmt.Errorf("waiting for the registry: %w", ctx.Err())
	}
	return <-req.done // Run answers every request that it took
}

// Put stores an object. It is on disk when Put returns nil.
func (r *Registry) Put(ctx context.Context, kind site.Kind, key string, value []byte) error {
	return r.ask(ctx, func(s *state, now time.Time) error { return s.put(now, kind, key, value) })
}

// Add stores a device, collection or vDisk unless there is one of that name; what operators of other appliances say of it, earlier or later, wins.
func (r *Registry) Add(ctx context.Context, kind site.Kind, key string, value []byte) error {
	return r.ask(ctx, func(s *state, _ time.Time) error { return s.add(kind, key, value) })
}

// Delete takes an object away; that it is not there is no error. It is gone from the disk when Delete returns nil.
// To delete the state that is wanted of a streamer is to want it active.
func (r *Registry) Delete(ctx context.Context, kind site.Kind, key string) error {
	return r.ask(ctx, func(s *state, now time.Time) error { return s.remove(now, kind, key) })
}

// Announce takes the announcement of a streamer in this process and returns the state that the operator wants of it. Streamers
// elsewhere announce themselves through Handler.
func (r *Registry) Announce(ctx context.Context, s site.Streamer) (site.StreamerState, error) {
	w, err := r.announce(ctx, announcement{Streamer: s})
	if w.State == "" {
		w.State = site.Active
	}
	return w.State, err
}

func (r *Registry) announce(ctx context.Context, a announcement) (wish Wish, err error) {
	if err := a.check(r.cfg.Site); err != nil {
		return Wish{}, err
	}
	err = r.ask(ctx, func(s *state, now time.Time) error {
		_, known := s.live[a.Name]
		var err error
		wish, err = s.announce(now, a)
		switch {
		case errors.Is(err, errFuture):
			r.cfg.Log.Warn("streamer carries a wish from the future: set the clocks of all appliances", "streamer", a.Name, "said", a.Follows.time())
			err = nil
		case err == nil && !known:
			r.cfg.Log.Info("streamer announces itself", "streamer", a.Name, "addresses", a.Addresses)
		}
		return err
	})
	return wish, err
}

// Withdraw takes a streamer's announcement away at once.
func (r *Registry) Withdraw(ctx context.Context, name string) error {
	if err := site.CheckName("streamer", name); err != nil {
		return err
	}
	return r.ask(ctx, func(s *state, _ time.Time) error {
		if s.withdraw(name) {
			r.cfg.Log.Info("streamer withdraws", "streamer", name)
		}
		return nil
	})
}

// Handler serves POST /api/v1/streamers and DELETE /api/v1/streamers/{name}. The caller checks who asks.
func (r *Registry) Handler() http.Handler { return newHandler(r) }

func sameContent(a, b site.Content) bool {
	return sameSlice(a.Devices, b.Devices) && sameSlice(a.Collections, b.Collections) && sameSlice(a.VDisks, b.VDisks) &&
		reflect.DeepEqual(a.Streamers, b.Streamers)
}

// sameSlice reports whether a and b are the same slice: state makes a new one for every change.
func sameSlice[T any](a, b []T) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}
