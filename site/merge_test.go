package site

import (
	"slices"
	"testing"
	"time"
)

var reachable = Registry{Kind: "consul", Reachable: true}

// announced returns what a registry says of streamers.
func announced(streamers ...Streamer) *Content {
	for i := range streamers {
		streamers[i].Check = Check{}
		streamers[i].Registered = false
	}
	return &Content{Streamers: streamers}
}

func seeing(checks map[string]Health) Observed {
	o := Observed{Streamers: map[string]Check{}}
	for name, h := range checks {
		o.Streamers[name] = Check{Health: h}
	}
	return o
}

func TestMergeKeepsWhatWorksWhenTheRegistryForgetsIt(t *testing.T) {
	both := Merge(Empty("berlin", "consul"), announced(streamer("s1"), streamer("s2")), reachable, seeing(map[string]Health{"s1": Up, "s2": Up}), noon)
	tests := []struct {
		name    string
		content *Content
		seen    map[string]Health
		want    map[string]bool // name: registered
	}{
		{"an empty answer takes nobody away who is up", announced(), map[string]Health{"s1": Up, "s2": Up}, map[string]bool{"s1": false, "s2": false}},
		{"a shorter answer takes away who is down", announced(streamer("s1")), map[string]Health{"s1": Up, "s2": Down}, map[string]bool{"s1": true}},
		{"a registered one stays though it is down", announced(streamer("s1"), streamer("s2")), map[string]Health{"s1": Up, "s2": Down}, map[string]bool{"s1": true, "s2": true}},
		{"a silent registry changes nothing", nil, map[string]Health{"s1": Up, "s2": Down}, map[string]bool{"s1": true, "s2": true}},
		{"one not probed yet is kept", announced(streamer("s1")), map[string]Health{"s1": Up}, map[string]bool{"s1": true, "s2": false}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := Merge(both, tt.content, reachable, seeing(tt.seen), noon.Add(time.Second))
			if len(v.Streamers) != len(tt.want) {
				t.Errorf("streamers %v, want %v", v.Streamers, tt.want)
			}
			for name, registered := range tt.want {
				if s, ok := v.Streamers[name]; !ok || s.Registered != registered || s.Check.Health != tt.seen[name] {
					t.Errorf("%s: in the view %v, registered %v, health %q", name, ok, s.Registered, s.Check.Health)
				}
			}
		})
	}
	if len(both.Streamers) != 2 || both.Epoch != 1 {
		t.Error("Merge changed the previous view")
	}
}

func TestMergeDoesNotFollowAConsulThatWasEmptied(t *testing.T) {
	full := &Content{Devices: []Device{{MAC: t1, VDisk: "debian"}}, VDisks: []VDisk{{Name: "debian"}}}
	v := Merge(Empty("berlin", "consul"), full, reachable, seeing(nil), noon)
	wiped := Merge(v, &Content{}, reachable, seeing(nil), noon)
	if len(wiped.Devices) != 1 || wiped.Registry.Error == "" {
		t.Errorf("wiped: devices %v, registry %+v", wiped.Devices, wiped.Registry)
	}
	t2 := MAC{0x52, 0x54, 0, 0, 0, 2}
	stranger := Merge(wiped, &Content{Devices: []Device{{MAC: t2}}}, reachable, seeing(nil), noon)
	if len(stranger.Devices) != 2 || !stranger.Registry.Emptied {
		t.Errorf("wiped, and one device is put: devices %v, registry %+v", stranger.Devices, stranger.Registry)
	}
	silent := Merge(stranger, nil, Registry{Kind: "consul"}, seeing(nil), noon)
	both := &Content{Devices: []Device{{MAC: t1, VDisk: "ubuntu"}, {MAC: t2}}}
	if back := Merge(silent, both, reachable, seeing(nil), noon); !silent.Registry.Emptied || back.Registry.Emptied || back.Devices[t1].VDisk != "ubuntu" {
		t.Errorf("put in again: devices %v, registry %+v", back.Devices, back.Registry)
	}
	last := Merge(v, &Content{VDisks: full.VDisks}, reachable, seeing(nil), noon)
	if len(last.Devices) != 0 || last.Registry.Error != "" {
		t.Errorf("the last device was removed: devices %v, registry %+v", last.Devices, last.Registry)
	}
	file := Merge(v, &Content{}, Registry{Kind: "embedded", Reachable: true}, seeing(nil), noon)
	if len(file.Devices) != 0 {
		t.Errorf("a configuration file without devices: %v", file.Devices)
	}
}

func TestMergeAdoptsADigestOnceAndKeepsIt(t *testing.T) {
	differs := func(s *Streamer) { s.Replicas = []Replica{{VDisk: "debian", Version: 1, Digest: bad}} }
	digest := func(v *View) Digest { return v.VDisks["debian"].Versions[0].Digest }

	first := Merge(Empty("berlin", "consul"), announced(streamer("s1")), reachable, seeing(nil), noon)
	if digest(first) != good || !first.VDisks["debian"].Versions[0].Adopted {
		t.Fatalf("the first replica's digest is adopted: %+v", first.VDisks)
	}
	outvoted := Merge(first, announced(streamer("s2", differs), streamer("s3", differs)), reachable, seeing(nil), noon)
	if digest(outvoted) != good {
		t.Errorf("two that differ took the version over: %s", digest(outvoted))
	}
	gone := Merge(outvoted, announced(), reachable, seeing(map[string]Health{"s2": Down, "s3": Down, "s1": Down}), noon)
	if digest(gone) != good {
		t.Errorf("the digest is kept while nobody announces it: %+v", gone.VDisks)
	}
	pinned := announced(streamer("s1"))
	pinned.VDisks = []VDisk{{Name: "debian", Versions: []Version{{Number: 1, Digest: bad}}}}
	if v := Merge(gone, pinned, reachable, seeing(nil), noon); digest(v) != bad || v.VDisks["debian"].Versions[0].Adopted {
		t.Errorf("a pinned digest wins: %+v", v.VDisks)
	}
	foreign := streamer("m1", differs, func(s *Streamer) { s.Site = "munich" })
	if v := Merge(Empty("berlin", "consul"), announced(foreign), reachable, seeing(nil), noon); len(v.VDisks) != 0 {
		t.Errorf("another site's streamer has no vote: %+v", v.VDisks)
	}
}

func TestLoginServersNameEachOnceAndTheBootAddressFirstAndNamesLast(t *testing.T) {
	v := Empty("berlin", "embedded")
	a, b := vip.Next(), vip.Next().Next()
	v.Boot.Address = vip
	v.Boot.Names = []string{"boot.example.net"}
	// Each appliance has itself first in its view. What all say is the same: a transfer of it goes on at another.
	for _, list := range [][]Appliance{{{Address: a}, {Address: b}, {Address: a}, {}}, {{Address: b}, {Address: a}}} {
		v.Appliances = list
		if got, want := v.LoginServers(), []string{vip.String(), a.String(), b.String(), "boot.example.net"}; !slices.Equal(got, want) {
			t.Errorf("LoginServers = %v", got)
		}
	}
	mac := MAC{0x52, 0x54, 0, 0, 0, 1}
	v.Devices[mac] = Device{MAC: mac, Medium: Medium{Version: 2, Servers: []string{a.String(), "old.example.net"}}}
	if got, want := ToldServers(v, mac), []string{a.String(), "old.example.net", vip.String(), b.String(), "boot.example.net"}; !slices.Equal(got, want) {
		t.Errorf("ToldServers = %v, want %v", got, want)
	}
	v.Boot.HTTPPort = 8080
	if got := v.LoginServers(); got[0] != vip.String()+":8080" || got[3] != "boot.example.net:8080" {
		t.Errorf("LoginServers = %v", got)
	}
}
