package site

import (
	"fmt"
	"testing"
)

// BenchmarkPick chooses among 100 streamers in a site of 10,000 devices.
func BenchmarkPick(b *testing.B) {
	v := berlin()
	for i := range 100 {
		s := streamer(fmt.Sprintf("s%d", i), func(s *Streamer) { s.Sessions = i % 7 })
		v.Streamers[s.Name] = s
	}
	for i := range 10_000 {
		mac := MAC{0x52, 0x54, 1, 0, byte(i >> 8), byte(i)}
		v.Devices[mac] = Device{MAC: mac, VDisk: "debian"}
	}
	l := Login{MAC: t1, VDisk: "debian", Version: 1, Digest: good}
	for b.Loop() {
		if _, reason := Pick(v, l); reason != Picked {
			b.Fatal(reason)
		}
	}
}
