package appliance

import (
	"container/list"
	"slices"
	"sync"
	"time"

	"everboot/appliance/web"
	"everboot/site"
)

const (
	// bootsKept is how many boots of a target are remembered, the one under way among them.
	bootsKept = 4
	// bootEvents bounds the events of one boot: a boot makes about ten. Of more the first and the last are kept.
	bootEvents = 40
	bootHead   = 16
	// timelineSize bounds the memory of all boots together, in bytes; ten thousand targets' boots take half of it. The oldest boots go first.
	timelineSize = 24 << 20
	eventSize    = 96  // bytes of an event without its detail
	bootSize     = 400 // bytes of a boot without its events: itself, its places in the order and in the map, the slice
	// bootGap is how long a target says nothing between two boots at least, if it does not log in in between.
	bootGap = time.Minute
)

// timeline keeps the events of each target's last boots.
type timeline struct {
	mu    sync.Mutex
	size  int
	byMAC map[site.MAC][]*boot // the oldest boot first
	order list.List            // of *boot, by their begin
}

type boot struct {
	mac     site.MAC
	events  []site.Event
	left    int  // events that were left out behind bootHead
	streams bool // it has logged in
	size    int
	place   *list.Element
}

func newTimeline() *timeline { return &timeline{byMAC: make(map[site.MAC][]*boot)} }

// Add keeps an event.
func (t *timeline) Add(e site.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.put(t.boot(e), e)
	for t.size > timelineSize {
		t.drop(t.order.Front().Value.(*boot))
	}
}

// boot returns the boot that an event is of.
func (t *timeline) boot(e site.Event) *boot {
	boots := t.byMAC[e.MAC]
	if n := len(boots); n > 0 && !begins(boots[n-1], e) {
		return boots[n-1]
	}
	b := &boot{mac: e.MAC}
	t.grow(b, bootSize)
	b.place = t.order.PushBack(b)
	t.byMAC[e.MAC] = append(boots, b)
	if len(boots) >= bootsKept {
		t.drop(boots[0])
	}
	return b
}

// begins reports whether an event is the first of another boot than b. Firmware and what it loads ask for an address twice or thrice in one
// boot, and log in once or twice at its end.
func begins(b *boot, e site.Event) bool {
	since := e.At.Sub(b.events[len(b.events)-1].At)
	if -bootGap <= since && since < 0 { // another appliance's word, which comes late
		return false
	}
	quiet := since > bootGap || since < 0 // or a clock that was set back
	return e.Begins && (quiet || b.streams && e.What != "login")
}

func (t *timeline) put(b *boot, e site.Event) {
	if slices.ContainsFunc(b.events, func(o site.Event) bool { return o.At.Equal(e.At) && o.What == e.What && o.Detail == e.Detail }) {
		return // another appliance's message came twice
	}
	if len(b.events) >= bootEvents {
		t.grow(b, -size(b.events[bootHead]))
		b.events = slices.Delete(b.events, bootHead, bootHead+1)
		b.left++
	}
	at := len(b.events)
	for at > 0 && b.events[at-1].At.After(e.At) { // another appliance's word comes a little later
		at--
	}
	b.events = slices.Insert(b.events, at, e)
	b.streams = b.streams || e.What == "login" || e.What == "redirect"
	t.grow(b, size(e))
}

func (t *timeline) grow(b *boot, n int) {
	b.size += n
	t.size += n
}

func size(e site.Event) int { return eventSize + len(e.Detail) }

// drop forgets a boot, which is the oldest of its target.
func (t *timeline) drop(b *boot) {
	t.order.Remove(b.place)
	t.size -= b.size
	if t.byMAC[b.mac] = slices.Delete(t.byMAC[b.mac], 0, 1); len(t.byMAC[b.mac]) == 0 {
		delete(t.byMAC, b.mac)
	}
}

// has reports whether something of a target is kept.
func (t *timeline) has(mac site.MAC) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.byMAC[mac]) > 0
}

// Of returns a target's boots, the oldest first.
func (t *timeline) Of(mac site.MAC) []web.Boot {
	t.mu.Lock()
	defer t.mu.Unlock()
	var list []web.Boot
	for _, b := range t.byMAC[mac] {
		list = append(list, web.Boot{Began: b.events[0].At, LeftOut: b.left, Events: slices.Clone(b.events)})
	}
	return list
}
