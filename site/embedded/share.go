package embedded

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"everboot/site"
)

// Stamp says when an object was put or taken away. Of two appliances that say different things of one object the higher stamp is right; of
// two with the same stamp the one that took it away, then the one with the longer value, then the one whose value sorts last, so that all come
// to the same. Longer, because an older everboot tells on what it was told without the fields that it does not know.
type Stamp struct {
	At   int64 `json:"at"` // milliseconds since 1970, or one more than the stamp before
	Gone bool  `json:"gone,omitempty"`
}

const (
	// maxGone bounds how many objects are remembered that are there no more. Of more the oldest are forgotten; an appliance that was away
	// for all of that time would bring them back.
	maxGone = 10_000
	// maxObjects bounds what peers can make us keep: ten times the largest site that we know of.
	maxObjects = 100_000
)

// entry is one object as appliances tell each other.
type entry struct {
	Kind  site.Kind       `json:"kind"`
	Key   string          `json:"key"`
	Stamp Stamp           `json:"stamp"`
	Value json.RawMessage `json:"value,omitempty"` // none: it is gone
}

// shareFormat is the first byte of a message. A later everboot that changes the meaning of a field raises it.
const shareFormat = 1

func marshalEntries(list []entry) ([]byte, error) {
	b, err := json.Marshal(list)
	return append([]byte{shareFormat}, b...), err
}

var errShare = errors.New("the message of a peer is malformed")

// parseEntries reads what marshalEntries wrote and checks each object as if it were put. What fails is left out and named by the error: a newer
// everboot may allow more.
func parseEntries(b []byte) ([]entry, error) {
	if len(b) == 0 || b[0] != shareFormat {
		return nil, errShare
	}
	var list []entry
	if err := json.Unmarshal(b[1:], &list); err != nil {
		return nil, fmt.Errorf("%w: %w", errShare, err)
	}
	var refused error
	return slices.DeleteFunc(list, func(e entry) bool {
		err := e.check()
		if err != nil && refused == nil {
			refused = fmt.Errorf("%w: %q: %w", errShare, stampKey(e.Kind, e.Key), err)
		}
		return err != nil
	}), refused
}

func (e entry) check() error {
	shared := e.Kind == site.KindDevice || e.Kind == site.KindCollection || e.Kind == site.KindVDisk
	switch {
	case !shared:
		return errors.New("objects of this kind are not shared")
	case e.Stamp.Gone != (e.Value == nil), e.Key == "":
		return errors.New("it is there and gone, or has no name")
	case e.Value == nil:
		return nil
	}
	return new(site.Content).AddObject(e.Kind, e.Key, e.Value)
}

// stampKey names an object in objects.Stamps.
func stampKey(kind site.Kind, key string) string { return string(kind) + "/" + key }

// stamped gives an object of now a stamp that wins over all that were seen of it.
func (o objects) stamped(now time.Time, kind site.Kind, key string, gone bool) objects {
	name := stampKey(kind, key)
	o.Stamps = with(o.Stamps, name, Stamp{At: after(now, o.Stamps[name].At), Gone: gone})
	return o
}

// after returns the stamp of now, or one more than the stamp that it is to win over. A stamp from further ahead than maxFuture is no measure: it
// was given while a clock was wrong, and whoever has a right one follows no such stamp.
func after(now time.Time, held int64) int64 {
	if future(now, held) {
		return now.UnixMilli()
	}
	return max(now.UnixMilli(), held+1)
}

// future reports whether a stamp is from further ahead than clocks differ.
func future(now time.Time, stamp int64) bool { return stamp > now.Add(maxFuture).UnixMilli() }

// forget drops the oldest of too many that are gone.
func (o objects) forget() objects {
	var gone []string
	for name, s := range o.Stamps {
		if s.Gone {
			gone = append(gone, name)
		}
	}
	if len(gone) <= maxGone {
		return o
	}
	slices.SortFunc(gone, func(a, b string) int { return int(o.Stamps[a].At - o.Stamps[b].At) })
	o.Stamps = maps.Clone(o.Stamps)
	for _, name := range gone[:len(gone)-maxGone] {
		delete(o.Stamps, name)
	}
	return o
}

// value returns an object as JSON; nil: it is not there.
func (o objects) value(kind site.Kind, key string) json.RawMessage {
	var v any
	there := false
	switch kind {
	case site.KindDevice:
		v, there = look(o.Devices, key)
	case site.KindCollection:
		v, there = look(o.Collections, key)
	case site.KindVDisk:
		v, there = look(o.VDisks, key)
	}
	if !there {
		return nil
	}
	raw, err := json.Marshal(v)
	if err != nil { // it came from JSON
		return nil
	}
	return raw
}

func look[V any](m map[string]V, key string) (any, bool) {
	v, ok := m[key]
	return v, ok
}

// entry returns an object as it is told to peers.
func (o objects) entry(kind site.Kind, key string) entry {
	e := entry{Kind: kind, Key: key, Stamp: o.Stamps[stampKey(kind, key)], Value: o.value(kind, key)}
	e.Stamp.Gone = e.Value == nil
	return e
}

// entries returns all objects, those that are gone too, sorted.
func (o objects) entries() []entry {
	names := make(map[string]struct{})
	for name := range o.Stamps {
		names[name] = struct{}{}
	}
	for _, of := range []struct {
		kind site.Kind
		keys []string
	}{
		{site.KindDevice, slices.Collect(maps.Keys(o.Devices))},
		{site.KindCollection, slices.Collect(maps.Keys(o.Collections))},
		{site.KindVDisk, slices.Collect(maps.Keys(o.VDisks))},
	} {
		for _, key := range of.keys { // a file of before there were stamps
			names[stampKey(of.kind, key)] = struct{}{}
		}
	}
	list := make([]entry, 0, len(names))
	for _, name := range slices.Sorted(maps.Keys(names)) {
		kind, key, _ := strings.Cut(name, "/")
		list = append(list, o.entry(site.Kind(kind), key))
	}
	return list
}

// merge takes what a peer knows better. It returns the names of what changed, and of what was refused because it was said in the future.
func (o objects) merge(now time.Time, list []entry) (_ objects, changed, ahead []string) {
	o = o.clone()
	for _, e := range list {
		own := o.entry(e.Kind, e.Key)
		if future(now, own.Stamp.At) {
			own.Stamp.At = 0
		}
		unknown := own.Value == nil && own.Stamp.At == 0
		switch {
		case future(now, e.Stamp.At):
			ahead = append(ahead, stampKey(e.Kind, e.Key))
			continue
		case !e.newer(own), unknown && len(o.Stamps) >= maxObjects:
			continue
		}
		if err := o.set(e.Kind, e.Key, e.Value); err != nil { // parseEntries has checked it
			continue
		}
		o.Stamps[stampKey(e.Kind, e.Key)] = e.Stamp
		if e.Stamp.At == own.Stamp.At && bytes.Equal(o.value(e.Kind, e.Key), own.Value) {
			continue // what we do not understand made the difference
		}
		changed = append(changed, stampKey(e.Kind, e.Key))
	}
	return o, changed, ahead
}

func (e entry) newer(own entry) bool {
	switch {
	case e.Stamp.At != own.Stamp.At:
		return e.Stamp.At > own.Stamp.At
	case e.Stamp.At == 0 && own.Value == nil: // neither has a stamp, and we do not have it
		return e.Value != nil
	case e.Stamp.Gone != own.Stamp.Gone:
		return e.Stamp.Gone
	}
	return cmp.Or(cmp.Compare(len(e.Value), len(own.Value)), bytes.Compare(e.Value, own.Value)) > 0
}

// clone returns objects whose maps can be changed.
func (o objects) clone() objects {
	o.Devices, o.Collections, o.VDisks, o.Stamps = copied(o.Devices), copied(o.Collections), copied(o.VDisks), copied(o.Stamps)
	return o
}

func copied[V any](m map[string]V) map[string]V {
	if m == nil {
		return make(map[string]V)
	}
	return maps.Clone(m)
}

// set puts an object of a clone, or takes it away where value is nil.
func (o objects) set(kind site.Kind, key string, value json.RawMessage) error {
	if value == nil {
		switch kind {
		case site.KindDevice:
			delete(o.Devices, key)
		case site.KindCollection:
			delete(o.Collections, key)
		case site.KindVDisk:
			delete(o.VDisks, key)
		}
		return nil
	}
	var c site.Content
	if err := c.AddObject(kind, key, value); err != nil {
		return err
	}
	switch kind {
	case site.KindDevice:
		o.Devices[key] = c.Devices[0]
	case site.KindCollection:
		o.Collections[key] = c.Collections[0]
	case site.KindVDisk:
		o.VDisks[key] = c.VDisks[0]
	}
	return nil
}
