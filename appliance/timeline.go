package appliance

import (
	"slices"
	"sync"

	"everboot/site"
)

const (
	// eventsPerDevice keeps the last few boots of a target: one boot makes about ten events.
	eventsPerDevice = 64
	// devicesKept bounds the memory that strangers' MACs can take.
	devicesKept = 20000
)

// timeline keeps the last events of each target.
type timeline struct {
	mu    sync.Mutex
	byMAC map[site.MAC][]site.Event
	order []site.MAC // by first event, so that the oldest stranger goes first
}

func newTimeline() *timeline { return &timeline{byMAC: make(map[site.MAC][]site.Event)} }

// Add keeps an event.
func (t *timeline) Add(e site.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	list, known := t.byMAC[e.MAC]
	if !known {
		if len(t.order) >= devicesKept {
			delete(t.byMAC, t.order[0])
			t.order = t.order[1:]
		}
		t.order = append(t.order, e.MAC)
	}
	if len(list) >= eventsPerDevice {
		list = slices.Delete(list, 0, len(list)-eventsPerDevice+1)
	}
	t.byMAC[e.MAC] = append(list, e)
}

// Of returns a target's events, the oldest first.
func (t *timeline) Of(mac site.MAC) []site.Event {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.byMAC[mac])
}
