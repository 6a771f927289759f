package embedded

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"everboot/site"
)

// Wish is what the operator wants of a streamer, and when it was said.
type Wish struct {
	State site.StreamerState `json:"state"`
	Stamp int64              `json:"stamp"` // milliseconds since 1970, or one more than the stamp of the wish before
}

// newer reports whether w wins over old.
func (w Wish) newer(old Wish) bool {
	return w.Stamp > old.Stamp || w.Stamp == old.Stamp && w.State == site.Draining && old.State != site.Draining
}

func (w Wish) time() time.Time { return time.UnixMilli(w.Stamp).UTC() }

// objects is what the file holds. It is a value: a change makes new maps and a new generation.
type objects struct {
	Devices     map[string]site.Device     `json:"devices,omitempty"`
	Collections map[string]site.Collection `json:"collections,omitempty"`
	VDisks      map[string]site.VDisk      `json:"vdisks,omitempty"`
	Wishes      map[string]Wish            `json:"streamer-states,omitempty"`
	Stamps      map[string]Stamp           `json:"stamps,omitempty"` // by kind and key, of all but wishes
	generation  uint64
}

// with returns m with an entry more, and without leaves m as it is.
func with[V any](m map[string]V, key string, v V) map[string]V {
	m = maps.Clone(m)
	if m == nil {
		m = make(map[string]V, 1)
	}
	m[key] = v
	return m
}

// without returns m without the entry, and whether it was there.
func without[V any](m map[string]V, key string) (map[string]V, bool) {
	if _, ok := m[key]; !ok {
		return m, false
	}
	m = maps.Clone(m)
	delete(m, key)
	return m, true
}

// announced is the last word of a streamer.
type announced struct {
	streamer site.Streamer
	at       time.Time
}

// state is the registry as a value without clock, socket or disk.
type state struct {
	fixed   *static
	objects objects
	live    map[string]announced
	ttl     time.Duration
	untold  []entry // changes that peers have not been told of

	base           site.Content // devices, collections and vDisks of baseGeneration
	baseGeneration uint64
	baseMade       bool
}

func (s *state) put(now time.Time, kind site.Kind, key string, value []byte) error {
	var c site.Content
	if err := c.AddObject(kind, key, value); err != nil {
		return err
	}
	if err := s.fixed.refuse(kind, key); err != nil {
		return err
	}
	o := s.objects
	switch kind {
	case site.KindDevice:
		o.Devices = with(o.Devices, key, c.Devices[0])
	case site.KindCollection:
		o.Collections = with(o.Collections, key, c.Collections[0])
	case site.KindVDisk:
		o.VDisks = with(o.VDisks, key, c.VDisks[0])
	case site.KindStreamerState:
		w, err := readState(value)
		if err != nil {
			return err
		}
		o.Wishes = with(o.Wishes, key, s.say(now, key, w))
	}
	s.changed(now, o, kind, key, false)
	return nil
}

// add stores an object that nobody has a word on, with the lowest stamp there is: what an operator said elsewhere wins over it, however early.
func (s *state) add(kind site.Kind, key string, value []byte) error {
	if s.objects.value(kind, key) != nil {
		return nil
	}
	return s.put(time.UnixMilli(0), kind, key, value)
}

func (s *state) remove(now time.Time, kind site.Kind, key string) error {
	if err := site.CheckKey(kind, key); err != nil {
		return err
	}
	if err := s.fixed.refuse(kind, key); err != nil {
		return err
	}
	o, there := s.objects, false
	switch kind {
	case site.KindDevice:
		o.Devices, there = without(o.Devices, key)
	case site.KindCollection:
		o.Collections, there = without(o.Collections, key)
	case site.KindVDisk:
		o.VDisks, there = without(o.VDisks, key)
	case site.KindStreamerState:
		// A wish is never forgotten, only replaced: the streamer would carry the old one back from the other appliance.
		if _, there = o.Wishes[key]; there {
			o.Wishes = with(o.Wishes, key, s.say(now, key, site.Active))
		}
	}
	if there {
		s.changed(now, o, kind, key, true)
	}
	return nil
}

// changed sets what an operator changed, and notes what peers are to be told. Wishes travel with the streamers.
func (s *state) changed(now time.Time, o objects, kind site.Kind, key string, gone bool) {
	if kind != site.KindStreamerState {
		o = o.stamped(now, kind, key, gone).forget()
		s.untold = append(s.untold, o.entry(kind, key))
	}
	s.set(o)
}

func (s *state) set(o objects) {
	o.generation++
	s.objects = o
}

// say returns the wish with a stamp that wins over every wish seen so far.
func (s *state) say(now time.Time, name string, want site.StreamerState) Wish {
	return Wish{State: want, Stamp: after(now, s.objects.Wishes[name].Stamp)}
}

const (
	// maxFuture is how far ahead of our clock a wish may have been said. A wish from further ahead could not be replaced for as long.
	maxFuture = 24 * time.Hour
	// twinTime is how long ago a streamer must have announced itself, which it does each second, before one with other addresses takes its place.
	twinTime = 3 * time.Second
	// maxStreamers and maxWishes bound what announcements can make us keep: ten times the largest site that we know of.
	maxStreamers = 1000
	maxWishes    = 10_000
)

var (
	errFuture = errors.New("the wish is from the future")
	errMany   = fmt.Errorf("there are %d streamers already: withdraw one first", maxStreamers)
)

// announce takes an announcement and returns the wish that the streamer shall follow. errFuture says that the announcement
// was taken, but not the wish that came with it.
func (s *state) announce(now time.Time, a announcement) (Wish, error) {
	if _, known := s.live[a.Name]; !known && len(s.live) >= maxStreamers {
		return Wish{}, &site.AnnouncementError{Refusal: TooMany, Err: errMany}
	}
	if held, known := s.live[a.Name]; known && now.Sub(held.at) < twinTime && !slices.Equal(held.streamer.Addresses, a.Addresses) {
		return Wish{}, &site.AnnouncementError{Refusal: Twin, Err: fmt.Errorf("another streamer of the name %s announces itself, at %v: give each a node of its own", a.Name, held.streamer.Addresses)}
	}
	s.live[a.Name] = announced{a.Streamer, now}
	held := s.objects.Wishes[a.Name]
	switch {
	case a.Follows == nil:
		return held, nil
	case future(now, a.Follows.Stamp):
		return held, errFuture
	case !future(now, held.Stamp) && !a.Follows.newer(held):
		return held, nil
	}
	if held.Stamp != 0 || len(s.objects.Wishes) < maxWishes {
		o := s.objects
		o.Wishes = with(o.Wishes, a.Name, *a.Follows)
		s.set(o)
	}
	return *a.Follows, nil
}

// withdraw reports whether the streamer was there.
func (s *state) withdraw(name string) bool {
	_, there := s.live[name]
	delete(s.live, name)
	return there
}

// expire takes away whoever has not announced itself for the TTL, and returns their names.
func (s *state) expire(now time.Time) []string {
	var gone []string
	for name, a := range s.live {
		if now.Sub(a.at) >= s.ttl {
			gone = append(gone, name)
			delete(s.live, name)
		}
	}
	slices.Sort(gone)
	return gone
}

// nextExpiry returns for how long nobody expires.
func (s *state) nextExpiry(now time.Time) time.Duration {
	next := s.ttl
	for _, a := range s.live {
		next = min(next, a.at.Add(s.ttl).Sub(now))
	}
	return next
}

// content returns everything, sorted by key. What did not change since the last call is the same slice.
func (s *state) content() site.Content {
	if !s.baseMade || s.baseGeneration != s.objects.generation {
		s.base = site.Content{
			Devices:     join(s.base.Devices, s.fixed.devices, s.objects.Devices),
			Collections: join(s.base.Collections, s.fixed.collections, s.objects.Collections),
			VDisks:      join(s.base.VDisks, s.fixed.vdisks, s.objects.VDisks),
		}
		s.baseMade, s.baseGeneration = true, s.objects.generation
	}
	c := s.base
	for name, st := range s.fixed.streamers {
		if _, announces := s.live[name]; !announces {
			c.Streamers = append(c.Streamers, s.effective(st))
		}
	}
	for _, a := range s.live {
		c.Streamers = append(c.Streamers, s.effective(a.streamer))
	}
	slices.SortFunc(c.Streamers, func(a, b site.Streamer) int { return cmp.Compare(a.Name, b.Name) })
	return c
}

func (s *state) effective(st site.Streamer) site.Streamer {
	st.State = site.Effective(st.State, s.objects.Wishes[st.Name].State)
	return st
}
