package appliance

import (
	"context"
	"encoding/json"
	"testing"
	"testing/synctest"

	"everboot/site"
)

// A stranger is written down once, however often it asks, and only if it boots; the one that is known is left alone.
func TestStrangersAreTakenIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := site.Empty("berlin", "embedded")
		v.Collections["lab"] = site.Collection{Name: "lab", AutoAdd: true}
		known, unknown, system := site.MAC{2, 1}, site.MAC{2, 2}, site.MAC{2, 3}
		v.Devices[known] = site.Device{MAC: known, VDisk: "debian"}
		puts := map[string]int{}
		var events []site.Event
		w := &welcome{
			strangers: make(chan stranger, welcomeWait), view: func() *site.View { return v },
			add: func(_ context.Context, kind site.Kind, key string, value []byte) error {
				var d site.Device
				if err := site.CheckObject(kind, key, value); err != nil || json.Unmarshal(value, &d) != nil || d.Collection != "lab" {
					t.Errorf("%s %s %s: %v", kind, key, value, err)
				}
				v.Devices[d.MAC] = d
				puts[key]++
				return nil
			},
			event: func(e site.Event) { events = append(events, e) }, complain: func(_ site.MAC, err error) { t.Error(err) },
		}
		if w.see(site.Event{MAC: site.MAC{2, 4}, What: "http", Begins: true, Collection: "room"}); (<-w.strangers).medium != "room" {
			t.Error("its boot medium's collection is forgotten")
		}
		for range 3 {
			w.see(site.Event{MAC: unknown, What: "discover", Begins: true})
			w.see(site.Event{MAC: known, What: "discover", Begins: true})
			w.see(site.Event{MAC: system, What: "discover"})
			w.see(site.Event{MAC: system, What: "http", Detail: "vmlinuz"})
			w.see(site.Event{What: "health", Begins: true})
		}
		ctx, cancel := context.WithCancel(t.Context())
		go w.Run(ctx)
		synctest.Wait()
		cancel()
		if len(puts) != 1 || puts[unknown.String()] != 1 {
			t.Errorf("written: %v", puts)
		}
		if len(events) != 1 || events[0].What != "added" || events[0].MAC != unknown {
			t.Errorf("events: %v", events)
		}
	})
}
