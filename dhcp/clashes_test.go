package dhcp

import (
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"everboot/dhcp/leases"
	"everboot/site"
)

// TestAClashInPagesIsToldOnce: the pages of a peer that is out of contact are read again each few seconds.
func TestAClashInPagesIsToldOnce(t *testing.T) {
	s, err := New(alone(), testView, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	given := func(mac site.MAC) leases.Lease {
		l := writtenDown("198.18.0.150", 3)
		l.Client, l.MAC = leases.ClientOf(nil, mac), mac
		return l
	}
	s.recall(time.Now(), []leases.Lease{given(pooled)})
	for i, step := range []struct {
		after time.Duration
		page  leases.Lease
		want  uint64
	}{
		{0, given(stranger), 1}, {5 * time.Second, given(stranger), 1}, {10 * time.Second, given(pooled), 1}, {15 * time.Second, given(stranger), 1},
		{20 * time.Second, given(site.MAC{2, 9}), 2}, {25 * time.Second, given(stranger), 2}, {clashMemory, given(stranger), 2},
		{2*clashMemory + time.Second, given(stranger), 3},
	} {
		if s.recall(time.Now().Add(step.after), []leases.Lease{step.page}); s.stats.Clashes != step.want {
			t.Errorf("step %d: %d clashes, want %d", i, s.stats.Clashes, step.want)
		}
	}
}

func TestClashesAreBounded(t *testing.T) {
	var m clashes
	at := func(i int) clash { return clash{address: netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})} }
	now := time.Now()
	for i := range 2 * maxClashes {
		if m.news(now, at(i)) != (i < maxClashes) {
			t.Fatal(i)
		}
	}
	if later := now.Add(clashMemory + 1); !m.news(later, at(2*maxClashes)) || len(m) != 1 {
		t.Errorf("%d are remembered for ever", len(m))
	}
}
