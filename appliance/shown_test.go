package appliance

import (
	"testing"
	"testing/synctest"
	"time"

	"everboot/site"
)

// TestWhoWritesIsKeptUntilTheViewShowsIt: two changes of one object, one after the other, both count.
func TestWhoWritesIsKeptUntilTheViewShowsIt(t *testing.T) {
	mac := site.MAC{2, 1}
	old, now := site.Empty("berlin", "consul"), site.Empty("berlin", "consul")
	old.Devices[mac] = site.Device{MAC: mac, Name: "t1"}
	now.Devices[mac] = site.Device{MAC: mac, Name: "t1", VDisk: "debian"}
	now.Collections["lab"] = site.Collection{Name: "lab"}
	now.VDisks["debian"] = site.VDisk{Name: "debian", Versions: []site.Version{{Number: 1}}}
	for _, c := range []struct {
		name  string
		kind  site.Kind
		key   string
		value string // empty: gone
		waits time.Duration
	}{
		{"a device changes", site.KindDevice, mac.String(), `{"mac":"02:01:00:00:00:00","name":"t1","vdisk":"debian"}`, 50 * time.Millisecond},
		{"a collection comes", site.KindCollection, "lab", `{"name":"lab"}`, 50 * time.Millisecond},
		{"a vDisk comes", site.KindVDisk, "debian", `{"name":"debian","versions":[{"number":1}]}`, 50 * time.Millisecond},
		{"it is as it was", site.KindDevice, mac.String(), `{"mac":"02:01:00:00:00:00","name":"t1"}`, 0},
		{"a device goes that was not there", site.KindDevice, "02:02:00:00:00:00", "", 0},
		{"a device goes, and comes no more into the view", site.KindDevice, mac.String(), "", shownTime},
		{"a state is no object of the view", site.KindStreamerState, "s1", `"draining"`, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begun := time.Now()
				view := func() *site.View {
					if time.Since(begun) < 50*time.Millisecond {
						return old
					}
					return now
				}
				var value []byte
				if c.value != "" {
					value = []byte(c.value)
				}
				awaitShown(t.Context(), view, c.kind, c.key, value)
				if waited := time.Since(begun); waited != c.waits {
					t.Errorf("kept for %s, want %s", waited, c.waits)
				}
			})
		})
	}
}
