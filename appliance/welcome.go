package appliance

import (
	"context"
	"encoding/json"
	"time"

	"everboot/site"
)

const (
	// welcomePace is the time between two machines that are taken in: a class room is in within seconds, and made-up MACs do not keep the
	// registry busy.
	welcomePace = 50 * time.Millisecond
	welcomeTime = 5 * time.Second // bounds one call of the registry
	welcomeWait = 256             // strangers that may wait; firmware asks again

	eventAdded = "added" // what their timelines say
)

// welcome takes machines that the site does not know into the collection that says so.
type welcome struct {
	strangers chan stranger
	view      func() *site.View
	add       func(ctx context.Context, kind site.Kind, key string, value []byte) error
	event     func(site.Event)
	complain  func(mac site.MAC, err error)
}

// stranger is a machine that nobody knows, and the collection that its boot medium was made for, if any.
type stranger struct {
	mac    site.MAC
	medium string
}

// see is called with every event. It never blocks.
func (w *welcome) see(e site.Event) {
	if e.MAC.IsZero() || !e.Begins {
		return
	}
	if _, ok := site.Welcome(w.view(), e.MAC, e.Collection); !ok {
		return
	}
	select {
	case w.strangers <- stranger{e.MAC, e.Collection}:
	default:
	}
}

// Run takes them in, one after the other, until ctx ends.
func (w *welcome) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case s := <-w.strangers:
			w.take(ctx, s)
		}
	}
}

func (w *welcome) take(ctx context.Context, s stranger) {
	d, ok := site.Welcome(w.view(), s.mac, s.medium)
	if !ok { // somebody was faster
		return
	}
	value, err := json.Marshal(d)
	if err == nil {
		call, cancel := context.WithTimeout(ctx, welcomeTime)
		err = w.add(call, site.KindDevice, s.mac.String(), value)
		cancel()
	}
	if err != nil {
		w.complain(s.mac, err)
	} else {
		w.event(site.Event{MAC: s.mac, What: eventAdded, Detail: "nobody knew it: it is a device of collection " + d.Collection + " now"})
	}
	select {
	case <-ctx.Done():
	case <-time.After(welcomePace):
	}
}

func (w *worker) newWelcome() *welcome {
	return &welcome{
		strangers: make(chan stranger, welcomeWait), view: w.builder.View, add: w.registry.Add, event: w.event,
		complain: func(mac site.MAC, err error) {
			w.log.Warn("a machine that nobody knows cannot be added", "mac", mac.String(), "error", err)
		},
	}
}
