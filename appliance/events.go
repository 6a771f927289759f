package appliance

import (
	"context"
	"encoding/json"
	"time"

	"everboot/appliance/peers"
	"everboot/site"
)

// Appliances tell each other the events of the site's devices, as one may answer a target's DHCP, another its TFTP and its login: each has whole
// timelines. A lost message is a step that the other does not show.

const (
	eventFormat = 1 // the first byte of a message; JSON follows
	// eventsTold is how many events a second are told at most: a storm needs its time for other things.
	eventsTold   = 200
	maxEventText = 1024
	// eventRest is the pause between two looks at what the rooms told. They tell no more than eventQueue in it.
	eventRest = 20 * time.Millisecond
)

// toldEvent is an event on its way.
type toldEvent struct {
	At     time.Time `json:"at"`
	MAC    site.MAC  `json:"mac"`
	What   string    `json:"what"`
	Detail string    `json:"detail,omitempty"`
	Begins bool      `json:"begins,omitempty"`
}

func encodeEvent(e site.Event) []byte {
	text, err := json.Marshal(toldEvent{At: e.At, MAC: e.MAC, What: e.What, Detail: e.Detail, Begins: e.Begins})
	if err != nil { // no value of this type makes one
		return nil
	}
	return append([]byte{eventFormat}, text...)
}

// decodeEvent reads what encodeEvent wrote; false: it cannot be.
func decodeEvent(message []byte) (site.Event, bool) {
	if len(message) < 2 || message[0] != eventFormat {
		return site.Event{}, false
	}
	var e toldEvent
	err := json.Unmarshal(message[1:], &e)
	good := err == nil && !e.MAC.IsZero() && e.What != "" && len(e.What)+len(e.Detail) <= maxEventText
	return site.Event{At: e.At, MAC: e.MAC, What: e.What, Detail: e.Detail, Begins: e.Begins}, good
}

// openEvents comes before the peer channel.
func (w *worker) openEvents() error {
	w.shares[peers.Events] = peers.Share{
		Changed: func(_ string, message []byte) {
			if e, ok := decodeEvent(message); ok {
				w.timeline.Add(e)
			}
		},
	}
	return nil
}

// keepEvents takes what the rooms tell, until ctx ends. Having looked it rests: it takes no processor from those who tell, which each wake-up for a single
// event would.
func (w *worker) keepEvents(ctx context.Context, see func(site.Event)) error {
	t := teller{tell: w.tell(peers.Events)}
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-w.events:
			w.keepEvent(e, see, &t)
		}
		for range len(w.events) {
			w.keepEvent(<-w.events, see, &t)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(eventRest):
		}
	}
}

func (w *worker) keepEvent(e site.Event, see func(site.Event), t *teller) {
	_, known := w.builder.View().Devices[e.MAC]
	w.note(e, known)
	see(e)
	w.log.Debug("event", "mac", e.MAC, "what", e.What, "detail", e.Detail)
	if !known && e.What != eventAdded { // whose view may come later than its event
		return
	}
	for _, e := range w.untold(e) {
		t.say(time.Now(), e)
	}
}

// teller tells other appliances of events, eventsTold a second.
type teller struct {
	tell   func([]byte)
	second time.Time
	told   int
}

func (t *teller) say(now time.Time, e site.Event) {
	if now.Sub(t.second) >= time.Second {
		t.second, t.told = now, 0
	}
	if t.told++; t.told <= eventsTold {
		t.tell(encodeEvent(e))
	}
}

// note puts an event into the timeline: of a stranger only if it is part of a boot. Whatever else has an address of ours must not cost the
// memory for the boots of devices.
func (w *worker) note(e site.Event, known bool) {
	if known || e.Begins || e.MAC.IsZero() || w.timeline.has(e.MAC) {
		w.timeline.Add(e)
	}
}

// untold returns what others are told with an event: of a machine that was a stranger until now all of its boot, which was kept from them.
func (w *worker) untold(e site.Event) []site.Event {
	if e.What != eventAdded {
		return []site.Event{e}
	}
	boots := w.timeline.Of(e.MAC)
	if len(boots) == 0 { // there was no room for it
		return []site.Event{e}
	}
	return boots[len(boots)-1].Events // with this one
}
