package embedded

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"everboot/site"
)

// static is what the configuration file says, by key.
type static struct {
	file        string
	devices     map[string]site.Device
	collections map[string]site.Collection
	vdisks      map[string]site.VDisk
	streamers   map[string]site.Streamer
}

// newStatic checks the content and returns it by key.
func newStatic(c site.Content, siteName, file string) (*static, error) {
	s := &static{
		file: file, devices: make(map[string]site.Device), collections: make(map[string]site.Collection),
		vdisks: make(map[string]site.VDisk), streamers: make(map[string]site.Streamer),
	}
	for _, d := range c.Devices {
		if err := d.Check(); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		if err := add(s.devices, "device", d.MAC.String(), d, file); err != nil {
			return nil, err
		}
	}
	for _, k := range c.Collections {
		if err := k.Check(); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		if err := add(s.collections, "collection", k.Name, k, file); err != nil {
			return nil, err
		}
	}
	for _, v := range c.VDisks {
		if err := v.Check(); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		if err := add(s.vdisks, "vDisk", v.Name, v, file); err != nil {
			return nil, err
		}
	}
	for _, st := range c.Streamers {
		st.State = site.Effective(st.State, "")
		if err := site.CheckStreamer(st, siteName); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		if err := add(s.streamers, "streamer", st.Name, st, file); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func add[V any](m map[string]V, what, key string, v V, file string) error {
	if _, twice := m[key]; twice {
		return fmt.Errorf("%s: %s %s is there twice: take one away", file, what, key)
	}
	m[key] = v
	return nil
}

// refuse returns an error if the object is written in the configuration file.
func (s *static) refuse(kind site.Kind, key string) error {
	there, what := false, ""
	switch kind {
	case site.KindDevice:
		_, there = s.devices[key]
		what = "device"
	case site.KindCollection:
		_, there = s.collections[key]
		what = "collection"
	case site.KindVDisk:
		_, there = s.vdisks[key]
		what = "vDisk"
	}
	if there {
		return fmt.Errorf("%s %s is written in %s: change it there", what, key, s.file)
	}
	return nil
}

// shadows names the stored objects that the configuration file hides.
func (s *static) shadows(o objects) []string {
	var names []string
	names = append(names, both("device", s.devices, o.Devices)...)
	names = append(names, both("collection", s.collections, o.Collections)...)
	return append(names, both("vDisk", s.vdisks, o.VDisks)...)
}

func both[V any](what string, a, b map[string]V) []string {
	var names []string
	for _, key := range slices.Sorted(maps.Keys(b)) {
		if _, ok := a[key]; ok {
			names = append(names, what+" "+key)
		}
	}
	return names
}

// join returns the values of both maps by rising key, those of first where both have one. If that is what last holds it returns last.
func join[V any](last []V, first, second map[string]V) []V {
	all := maps.Clone(second)
	if all == nil {
		all = make(map[string]V, len(first))
	}
	maps.Copy(all, first)
	list := make([]V, 0, len(all))
	for _, key := range slices.Sorted(maps.Keys(all)) {
		list = append(list, all[key])
	}
	if reflect.DeepEqual(last, list) {
		return last
	}
	return list
}

func readState(value []byte) (site.StreamerState, error) {
	var s site.StreamerState
	if err := json.Unmarshal(value, &s); err != nil {
		return "", fmt.Errorf("reading a streamer's state: %w", err)
	}
	return s, nil
}
