package streamer

import (
	"net/netip"
	"testing"

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
