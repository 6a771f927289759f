package streamer

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"everboot/site"
)

// BenchmarkPoolPick is the choice as a login meets it, with what was given out and not yet announced: among 100 streamers in a site of 10,000 devices.
func BenchmarkPoolPick(b *testing.B) {
	v := site.Empty("berlin", "embedded")
	digest := site.Digest("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef")
	for i := range 100 {
		name := fmt.Sprintf("s%d", i)
		v.Streamers[name] = site.Streamer{
			Name: name, Site: "berlin", Addresses: []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, 0, byte(i)}), 3260)}, State: site.Active, Power: 1,
			Sessions: i % 7, Replicas: []site.Replica{{VDisk: "debian", Version: 1, Digest: digest}}, Check: site.Check{Health: site.Up},
		}
	}
	for i := range 10_000 {
		mac := site.MAC{0x52, 0x54, 1, 0, byte(i >> 8), byte(i)}
		v.Devices[mac] = site.Device{MAC: mac, VDisk: "debian"}
	}
	v.VDisks["debian"] = site.VDisk{Name: "debian"}
	var p pool
	l := site.Login{MAC: site.MAC{0x52, 0x54, 1, 0, 0, 1}, VDisk: "debian", Version: 1, Digest: digest}
	for b.Loop() {
		s, reason := p.pick(time.Now(), v, l)
		if reason != site.Picked {
			b.Fatal(reason)
		}
		p.leave(s.Name)
	}
}
