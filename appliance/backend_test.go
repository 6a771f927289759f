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
