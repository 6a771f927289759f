package streamer

import (
	"net/netip"
	"testing"
	"time"

	"everboot/site"
)

// TestRedirectedTargetsUseAllNICs: nobody counts their sessions, and yet they must not all be sent to a streamer's first portal.
func TestRedirectedTargetsUseAllNICs(t *testing.T) {
	const targets = 400
	v := site.Empty("berlin", "embedded")
	s := site.Streamer{Name: "s1", Addresses: []netip.AddrPort{netip.MustParseAddrPort("198.18.0.11:3260"), netip.MustParseAddrPort("198.18.1.11:3260")}}
	p, first := new(pool), 0
	for i := range targets {
		l := site.Login{MAC: site.MAC{2, 0, 0, 0, byte(i >> 8), byte(i)}}
		list := p.portals(v, s, l)
		if len(list) != 2 || p.portals(v, s, l)[0] != list[0] {
			t.Fatalf("portals %v", list)
		}
		if list[0] == s.Addresses[0] {
			first++
		}
	}
	if first < targets/4 || first > targets*3/4 {
		t.Errorf("%d of %d are sent to the first NIC", first, targets)
	}
}

// TestHealedStreamerIsNotBusierThanItIs: a streamer whose host was cut off still has the sessions that went elsewhere meanwhile, beside those that
// have come since. A drain of another one must not give it less for that.
func TestHealedStreamerIsNotBusierThanItIs(t *testing.T) {
	const each = 60
	now := time.Now()
	v := site.Empty("berlin", "embedded")
	v.VDisks["debian"] = site.VDisk{Name: "debian", Versions: []site.Version{{Number: 1, Digest: "d"}}}
	for name, announced := range map[string]int{"s2": 2 * each, "s3": each} {
		v.Streamers[name] = site.Streamer{
			Name: name, Site: "berlin", Power: 1, State: site.Active, Sessions: announced, Check: site.Check{Health: site.Up},
			Addresses: []netip.AddrPort{netip.MustParseAddrPort("198.18.0.22:3260")}, Replicas: []site.Replica{{VDisk: "debian", Version: 1, Digest: "d"}},
		}
	}
	p := new(pool)
	for name := range v.Streamers {
		p.load(name).live = each
	}
	p.hush("198.18.0.23:3260", "s2", now.Add(-time.Second)) // another portal of it, a second ago
	got := make(map[string]int)
	for i := range each {
		s, reason := p.pick(now, v, site.Login{MAC: site.MAC{2, 5: byte(i)}, VDisk: "debian", Version: 1, Digest: "d"})
		if reason != site.Picked {
			t.Fatal(reason)
		}
		got[s.Name]++
	}
	if got["s2"] != each/2 {
		t.Errorf("of %d that leave a third streamer: %v", each, got)
	}
}
