package appliance

import (
	"context"
	"encoding/json"
	"reflect"
	"slices"
	"time"

	"everboot/site"
)

const (
	// shownTime is how long one who writes an object is kept until the registry has told it to the site view. Who then reads it, changes a field and writes
	// it back loses no field of a moment ago: Consul tells of a change up to 200 ms later.
	shownTime = time.Second
	shownPace = 10 * time.Millisecond
)

// awaitShown returns when the registry says an object as it was written (nil: that it is gone), or after shownTime: it is written all the same. The view
// itself says more of a vDisk than was written, such as digests that were adopted.
func awaitShown(ctx context.Context, said func() *site.Content, kind site.Kind, key string, value []byte) {
	ctx, cancel := context.WithTimeout(ctx, shownTime)
	defer cancel()
	pace := time.NewTicker(shownPace)
	defer pace.Stop()
	for !shown(said(), kind, key, value) {
		select {
		case <-ctx.Done():
			return
		case <-pace.C:
		}
	}
}

func shown(c *site.Content, kind site.Kind, key string, value []byte) bool {
	if c == nil {
		return false
	}
	switch kind {
	case site.KindDevice:
		return holds(c.Devices, func(d site.Device) bool { return d.MAC.String() == key }, value)
	case site.KindCollection:
		return holds(c.Collections, func(k site.Collection) bool { return k.Name == key }, value)
	case site.KindVDisk:
		return holds(c.VDisks, func(d site.VDisk) bool { return d.Name == key }, value)
	}
	return true
}

func holds[T any](objects []T, is func(T) bool, value []byte) bool {
	at := slices.IndexFunc(objects, is)
	if value == nil || at < 0 {
		return value == nil && at < 0
	}
	var want T
	return json.Unmarshal(value, &want) == nil && reflect.DeepEqual(objects[at], want)
}
