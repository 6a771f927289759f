package appliance

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"everboot/appliance/peers"
	"everboot/site"
)

// wishes is a registry that takes what the operator wants of a streamer also while Consul is away: `everboot streamer drain` must work just then.
// Such a wish counts at once, here and at the peers, is kept on disk, and is written to Consul when that is back. The last one that was said counts.
type wishes struct {
	registry
	view    func() *site.View
	tell    func([]byte)
	count   func(map[string]site.StreamerState) // makes the wishes count that the registry does not know
	now     func() time.Time
	log     *slog.Logger
	changed func() // the file is behind
	write   chan struct{}

	applying  sync.Mutex // so that what counts is what was computed last
	mu        sync.Mutex
	reachable bool
	known     map[string]wish
}

// wish is what the operator said of a streamer.
type wish struct {
	Streamer string             `json:"streamer"`
	State    site.StreamerState `json:"state"`
	At       time.Time          `json:"at"`
	Written  bool               `json:"written,omitempty"` // the registry has it, or had it: kept and told on so that no older one is written after it

	seen bool // the registry has spoken here since it was written
	kept bool // it was on our disk, and peers may know a newer one
}

const (
	wishesFormat = 1 // the first byte of each message
	// maxWishes bounds what peers can make us keep.
	maxWishes = 10_000
	// wishFuture is how far ahead of our clock a peer's may be: a wish from further ahead could not be replaced for as long.
	wishFuture = time.Hour
	// wishRetry is the time between two tries to write.
	wishRetry = time.Second
	// wishSettle is how long after a start peers have to say what they know, before what was on our disk is written.
	wishSettle = 40 * time.Second
	// wishStale is the age from which on a wish on our disk that was never written is left out: who said it has seen to it otherwise by now.
	wishStale = 24 * time.Hour
)

func newWishes(r registry, view func() *site.View, tell func([]byte), now func() time.Time, log *slog.Logger) *wishes {
	return &wishes{
		registry: r, view: view, tell: tell, now: now, log: log, count: func(map[string]site.StreamerState) {}, changed: func() {},
		write: make(chan struct{}, 1), known: make(map[string]wish),
	}
}

// openWishes puts them before Consul; an embedded registry has its own way to carry a wish.
func (w *worker) openWishes(r registry) {
	file := newKeptFile(w.cfg.State, "wishes.json", "what was said of streamers while Consul is away", w.log.With("room", "registry"))
	h := newWishes(r, w.builder.View, w.tell(peers.Wishes), time.Now, file.log)
	kept, err := file.load()
	if err != nil {
		file.log.Error("what was said of streamers while Consul was away cannot be read; say it again", "error", err)
	}
	h.load(kept)
	file.whole, h.changed = h.whole, file.changed
	w.registry, w.wishes, w.kept = h, h, append(w.kept, file)
	w.shares[peers.Wishes] = peers.Share{Changed: h.merge, Whole: h.whole, Merge: h.merge}
}

// Run implements registry.
func (h *wishes) Run(ctx context.Context, changed func(site.Content, site.Registry)) error {
	var all sync.WaitGroup
	defer all.Wait()
	all.Go(func() { h.writeAll(ctx) })
	settled := time.AfterFunc(wishSettle, h.settled)
	defer settled.Stop()
	h.apply()
	return h.registry.Run(ctx, func(c site.Content, r site.Registry) {
		h.heard(r.Reachable)
		changed(c, r)
	})
}

// heard notes whether the registry answers. What was written and is not in what it said last is in what it says now.
func (h *wishes) heard(reachable bool) {
	h.mu.Lock()
	h.reachable = reachable
	if reachable {
		for name, w := range h.known {
			w.seen = w.Written
			h.known[name] = w
		}
	}
	h.mu.Unlock()
	h.apply()
	if reachable {
		h.kick()
	}
}

func (h *wishes) kick() {
	select {
	case h.write <- struct{}{}:
	default:
	}
}

// Put implements registry.
func (h *wishes) Put(ctx context.Context, kind site.Kind, key string, value []byte) error {
	if kind != site.KindStreamerState {
		return h.registry.Put(ctx, kind, key, value)
	}
	if err := site.CheckObject(kind, key, value); err != nil {
		return err
	}
	var state site.StreamerState
	if err := json.Unmarshal(value, &state); err != nil {
		return err
	}
	err := errors.New("the registry is away")
	if h.isReachable() {
		err = h.registry.Put(ctx, kind, key, value)
		if err != nil && !away(err) {
			return err
		}
	}
	if _, known := h.view().Streamers[key]; !known && err != nil {
		return fmt.Errorf("there is no streamer %q: %w", key, err)
	}
	h.say(key, state, err == nil)
	if err != nil {
		h.log.Warn("Consul is away: what was said of a streamer counts here and at the other appliances, and is written when it is back", "streamer", key,
			"state", string(state), "error", err)
	}
	return nil
}

// away reports whether a registry did not answer, other than with a refusal.
func away(err error) bool {
	var network net.Error
	return errors.As(err, &network) || errors.Is(err, context.DeadlineExceeded)
}

func (h *wishes) isReachable() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.reachable
}

// say notes a wish that was said here, and tells the peers.
func (h *wishes) say(streamer string, state site.StreamerState, written bool) {
	h.mu.Lock()
	at := h.now()
	if old, ok := h.known[streamer]; ok && !at.After(old.At) {
		at = old.At.Add(time.Millisecond)
	}
	w := wish{Streamer: streamer, State: state, At: at.Round(0).UTC(), Written: written, seen: written}
	h.known[streamer] = w
	h.mu.Unlock()
	h.tell(encodeWishes([]wish{w}))
	h.changed()
	h.apply()
}

// apply makes the wishes count that the registry does not know.
func (h *wishes) apply() {
	h.applying.Lock()
	defer h.applying.Unlock()
	h.mu.Lock()
	held := make(map[string]site.StreamerState)
	for name, w := range h.known {
		if !w.Written || !w.seen {
			held[name] = w.State
		}
	}
	h.mu.Unlock()
	h.count(held)
}

// writeAll writes what the registry does not know whenever it is there.
func (h *wishes) writeAll(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-h.write:
		}
		for _, w := range h.held() {
			switch {
			case w.kept: // settled kicks again
				continue
			case !h.isReachable(): // heard kicks again
				continue
			}
			if err := h.writeOne(ctx, w); err != nil {
				h.log.Warn("writing what was said of a streamer while Consul was away", "streamer", w.Streamer, "error", err)
				time.AfterFunc(wishRetry, h.kick)
			}
		}
	}
}

func (h *wishes) writeOne(ctx context.Context, w wish) error {
	value, err := json.Marshal(w.State)
	if err != nil {
		return err
	}
	if err := h.registry.Put(ctx, site.KindStreamerState, w.Streamer, value); err != nil {
		return err
	}
	h.wrote(w)
	return nil
}

// held returns what the registry does not know.
func (h *wishes) held() []wish {
	h.mu.Lock()
	defer h.mu.Unlock()
	var list []wish
	for _, w := range h.known {
		if !w.Written {
			list = append(list, w)
		}
	}
	slices.SortFunc(list, func(a, b wish) int { return a.At.Compare(b.At) })
	return list
}

// wrote notes that the registry has a wish, unless another was said meanwhile. It counts until the registry speaks again.
func (h *wishes) wrote(w wish) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.known[w.Streamer] == w {
		w.Written, w.seen = true, true
		h.known[w.Streamer] = w
		h.changed()
	}
}

func encodeWishes(list []wish) []byte {
	text, err := json.Marshal(list)
	if err != nil { // no value of this type makes one
		return nil
	}
	return append([]byte{wishesFormat}, text...)
}

// whole is what a peer, or this node after a restart, needs to know.
func (h *wishes) whole() []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	return encodeWishes(slices.SortedFunc(maps.Values(h.known), func(a, b wish) int { return cmp.Compare(a.Streamer, b.Streamer) }))
}

func decodeWishes(message []byte) (list []wish) {
	if len(message) == 0 || message[0] != wishesFormat || json.Unmarshal(message[1:], &list) != nil {
		return nil
	}
	return slices.DeleteFunc(list, func(w wish) bool {
		value, _ := json.Marshal(w.State)
		return site.CheckObject(site.KindStreamerState, w.Streamer, value) != nil
	})
}

// load takes what was on our disk.
func (h *wishes) load(file []byte) {
	for _, w := range decodeWishes(file) {
		switch {
		case w.Written:
			w.seen = true
		case h.now().Sub(w.At) > wishStale:
			h.log.Warn("what was said of a streamer while Consul was away was never written, and is too old now; say it again", "streamer", w.Streamer, "state", string(w.State), "said", w.At)
			continue
		default:
			w.kept = true
		}
		h.known[w.Streamer] = w
	}
}

// settled lets what was on our disk be written: peers have had the time to say what they know.
func (h *wishes) settled() {
	h.mu.Lock()
	for name, w := range h.known {
		w.kept = false
		h.known[name] = w
	}
	h.mu.Unlock()
	h.kick()
}

// merge takes what a peer was told, as far as it is newer. Each appliance that reaches Consul writes what no other one says it has written. A peer
// that has written an older one may have done so after ours: ours is written again.
func (h *wishes) merge(from string, message []byte) {
	list := decodeWishes(message)
	news := false
	h.mu.Lock()
	known := maps.Clone(h.known)
	for _, w := range list {
		old, ok := known[w.Streamer]
		switch {
		case ok && old.At.After(w.At) && old.State != w.State && old.Written && w.Written:
			w = old
			w.Written = false
		case ok && !w.At.After(old.At), w.At.Sub(h.now()) > wishFuture, !ok && len(known) >= maxWishes:
			continue
		}
		w.seen, news = w.Written && h.reachable, true
		known[w.Streamer] = w
	}
	h.known = known
	h.mu.Unlock()
	if !news {
		return
	}
	h.log.Info("another appliance was told of streamers", "from", from)
	h.changed()
	h.apply()
	h.kick()
}

// wishWarnings says what Consul does not know yet.
func (w *worker) wishWarnings() (list []string) {
	if w.wishes == nil {
		return nil
	}
	for _, x := range w.wishes.held() {
		list = append(list, fmt.Sprintf("streamer %s: %s was said while Consul is away; it counts at the appliances, and is written when Consul is back", x.Streamer, x.State))
	}
	return list
}
