package main

import (
	"strings"
	"testing"
	"time"

	"everboot/appliance/web"
	"everboot/site"
	"everboot/streamer"
)

func TestPrintDevice(t *testing.T) {
	now := time.Unix(1e9, 0)
	session := web.Session{
		VDisk: "debian", Version: 3, Streamer: "s2", Since: now.Add(-90 * time.Second), ToTarget: 12345, ToStreamer: 678, Failovers: 2,
		Stall: 0.0421, StallAt: now.Add(-80 * time.Second),
	}
	boot := web.Boot{Began: now, LeftOut: 7, Events: []site.Event{
		{At: now, What: "discover", Detail: "iPXE asks"}, {At: now.Add(1500 * time.Millisecond), What: "block", Detail: "the first from s2"},
	}}
	for _, tt := range []struct {
		name string
		d    web.DeviceStatus
		want []string
	}{
		{"it streams", web.DeviceStatus{Now: now, Sessions: []web.Session{session}, Boots: []web.Boot{boot}}, []string{
			"server", "s2", "debian version 3", "for 1m30s", "12345 to the target, 678 from it", "failovers", "2", "42ms, 1m20s ago",
			"boot of", "0.000 s  discover  iPXE asks", "1.500 s  block     the first from s2", "7 events",
		}},
		{"it streams elsewhere", web.DeviceStatus{Now: now, Last: &streamer.Last{Streamer: "s1", Since: now, Elsewhere: true}}, []string{
			"no stream through this appliance; its last was from s1", "another appliance",
		}},
		{"nobody knows it", web.DeviceStatus{Now: now, Explanation: web.Explanation{Text: "the site has no device"}}, []string{
			"no stream through this appliance\n", "no boot file: the site has no device",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out strings.Builder
			if err := printDevice(&out, tt.d); err != nil {
				t.Fatal(err)
			}
			rest := out.String()
			for _, want := range tt.want {
				_, after, ok := strings.Cut(rest, want)
				if !ok {
					t.Fatalf("%q is not in, or not in its place of:\n%s", want, out.String())
				}
				rest = after
			}
		})
	}
}
