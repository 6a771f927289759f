package appliance

import (
	"strings"
	"testing"
	"time"

	"everboot/site"
)

// TestWarningOfAnotherReplicaSaysHowToPinIt: a digest that was adopted of a half-copied file stays; what helps needs the whole digest.
func TestWarningOfAnotherReplicaSaysHowToPinIt(t *testing.T) {
	half, whole := site.Digest(strings.Repeat("a", 64)), site.Digest(strings.Repeat("b", 64))
	announce := func(d site.Digest) *site.Content {
		return &site.Content{Streamers: []site.Streamer{{
			Name: "s1", Site: "berlin", Power: 1, State: site.Active, Replicas: []site.Replica{{VDisk: "debian", Version: 1, Digest: d}},
		}}}
	}
	v := site.Empty("berlin", "embedded")
	for _, d := range []site.Digest{half, whole} {
		v = site.Merge(v, announce(d), site.Registry{Reachable: true}, site.Observed{}, time.Time{})
	}
	text := strings.Join(warnings(v), "\n")
	if !strings.Contains(text, "everboot vdisk set debian --pin 1="+string(whole)) {
		t.Errorf("warnings: %s", text)
	}
}

// A collection that is full says so: strangers are turned away silently else.
func TestWarningOfACollectionThatIsFull(t *testing.T) {
	v := site.Empty("berlin", "embedded")
	v.Collections["lab"] = site.Collection{Name: "lab", AutoAdd: true}
	for i := range site.MaxWelcomed {
		if i == site.MaxWelcomed-1 && strings.Contains(strings.Join(warnings(v), "\n"), "takes no more") {
			t.Errorf("it warns with %d devices", i)
		}
		mac := site.MAC{2, 0, 0, 0, byte(i >> 8), byte(i)}
		v.Devices[mac] = site.Device{MAC: mac, Collection: "lab"}
	}
	if text := strings.Join(warnings(v), "\n"); !strings.Contains(text, "collection lab takes no more") {
		t.Errorf("warnings: %s", text)
	}
}
