package appliance

import (
	"testing"
	"testing/synctest"
	"time"

	"everboot/site"
)

// TestWhoWritesIsKeptUntilTheRegistrySaysIt: two changes of one object, one after the other, both count.
func TestWhoWritesIsKeptUntilTheRegistrySaysIt(t *testing.T) {
	mac := site.MAC{2, 1}
	old := &site.Content{Devices: []site.Device{{MAC: mac, Name: "t1"}}}
	now := &site.Content{
		Devices: []site.Device{{MAC: mac, Name: "t1", VDisk: "debian"}}, Collections: []site.Collection{{Name: "lab"}},
		VDisks: []site.VDisk{{Name: "debian", Versions: []site.Version{{Number: 1}}}},
	}
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
		{"a device goes that stays there", site.KindDevice, mac.String(), "", shownTime},
		{"a state is no object", site.KindStreamerState, "s1", `"draining"`, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begun := time.Now()
				said := func() *site.Content {
					if time.Since(begun) < 50*time.Millisecond {
						return old
					}
					return now
				}
				var value []byte
				if c.value != "" {
					value = []byte(c.value)
				}
				awaitShown(t.Context(), said, c.kind, c.key, value)
				if waited := time.Since(begun); waited != c.waits {
					t.Errorf("kept for %s, want %s", waited, c.waits)
				}
			})
		})
	}
}
