package appliance

import (
	"context"
	"encoding/json"
	"reflect"
	"time"

	"everboot/site"
)

const (
	// shownTime is how long one who writes an object is kept until the site view shows it. Who then reads it, changes a field and writes it back loses no
	// field of a moment ago: Consul tells of a change up to 100 ms later.
	shownTime = time.Second
	shownPace = 10 * time.Millisecond
)

// awaitShown returns when the view shows an object as it was written (nil: that it is gone), or after shownTime: it is written all the same.
func awaitShown(ctx context.Context, view func() *site.View, kind site.Kind, key string, value []byte) {
	ctx, cancel := context.WithTimeout(ctx, shownTime)
	defer cancel()
	pace := time.NewTicker(shownPace)
	defer pace.Stop()
	for !shown(view(), kind, key, value) {
		select {
		case <-ctx.Done():
			return
		case <-pace.C:
		}
	}
}

func shown(v *site.View, kind site.Kind, key string, value []byte) bool {
	switch kind {
	case site.KindDevice:
		mac, err := site.ParseMAC(key)
		return err != nil || holds(v.Devices, mac, value)
	case site.KindCollection:
		return holds(v.Collections, key, value)
	case site.KindVDisk:
		return holds(v.VDisks, key, value)
	}
	return true
}

func holds[K comparable, V any](objects map[K]V, key K, value []byte) bool {
	now, there := objects[key]
	if value == nil || !there {
		return there == (value != nil)
	}
	var want V
	return json.Unmarshal(value, &want) == nil && reflect.DeepEqual(now, want)
}
