package site_test

import (
	"errors"
	"math"
	"net/netip"
	"strings"
	"testing"

	"everboot/site"
)

func goodStreamer() site.Streamer {
	return site.Streamer{
		Name: "s1", Site: "berlin", Addresses: []netip.AddrPort{netip.MustParseAddrPort("198.18.0.21:3260")}, Power: 1, State: site.Active,
		Replicas: []site.Replica{{VDisk: "debian", Version: 1, Digest: site.Digest(strings.Repeat("ab", 32)), Size: 1 << 30}},
	}
}

func TestCheckStreamer(t *testing.T) {
	tests := []struct {
		name   string
		change func(*site.Streamer)
		want   site.Refusal // empty: taken
	}{
		{"good", func(*site.Streamer) {}, ""},
		{"no replica", func(s *site.Streamer) { s.Replicas = nil }, ""},
		{"IPv6", func(s *site.Streamer) { s.Addresses[0] = netip.MustParseAddrPort("[2001:db8::1]:3260") }, ""},
		{"name with a slash", func(s *site.Streamer) { s.Name = "../s1" }, site.BadName},
		{"no name", func(s *site.Streamer) { s.Name = "" }, site.BadName},
		{"other site", func(s *site.Streamer) { s.Site = "paris" }, site.WrongSite},
		{"no address", func(s *site.Streamer) { s.Addresses = nil }, site.BadCount},
		{"too many addresses", func(s *site.Streamer) { s.Addresses = make([]netip.AddrPort, 100) }, site.BadCount},
		{"zero address", func(s *site.Streamer) { s.Addresses[0] = netip.AddrPort{} }, site.BadAddress},
		{"unspecified", func(s *site.Streamer) { s.Addresses[0] = netip.MustParseAddrPort("0.0.0.0:3260") }, site.BadAddress},
		{"multicast", func(s *site.Streamer) { s.Addresses[0] = netip.MustParseAddrPort("224.0.0.18:3260") }, site.BadAddress},
		{"no port", func(s *site.Streamer) { s.Addresses[0] = netip.MustParseAddrPort("198.18.0.21:0") }, site.BadAddress},
		{"mapped", func(s *site.Streamer) { s.Addresses[0] = netip.MustParseAddrPort("[::ffff:198.18.0.21]:3260") }, site.BadAddress},
		{"zone", func(s *site.Streamer) { s.Addresses[0] = netip.MustParseAddrPort("[fe80::1%eth0]:3260") }, site.BadAddress},
		{"power 0", func(s *site.Streamer) { s.Power = 0 }, site.BadPower},
		{"power NaN", func(s *site.Streamer) { s.Power = math.NaN() }, site.BadPower},
		{"power without end", func(s *site.Streamer) { s.Power = math.Inf(1) }, site.BadPower},
		{"no state", func(s *site.Streamer) { s.State = "" }, site.BadState},
		{"negative sessions", func(s *site.Streamer) { s.Sessions = -1 }, site.BadCount},
		{"digest in upper case", func(s *site.Streamer) { s.Replicas[0].Digest = site.Digest(strings.Repeat("AB", 32)) }, site.BadReplica},
		{"short digest", func(s *site.Streamer) { s.Replicas[0].Digest = "ab" }, site.BadReplica},
		{"version 0", func(s *site.Streamer) { s.Replicas[0].Version = 0 }, site.BadReplica},
		{"negative size", func(s *site.Streamer) { s.Replicas[0].Size = -1 }, site.BadReplica},
		{"replica twice", func(s *site.Streamer) { s.Replicas = append(s.Replicas, s.Replicas[0]) }, site.BadReplica},
		{"replica without a name", func(s *site.Streamer) { s.Replicas[0].VDisk = "" }, site.BadReplica},
		{"too many replicas", func(s *site.Streamer) { s.Replicas = make([]site.Replica, site.MaxReplicas+1) }, site.BadCount},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := goodStreamer()
			tt.change(&s)
			err := site.CheckStreamer(s, "berlin")
			var refused *site.AnnouncementError
			if tt.want == "" && err != nil {
				t.Fatal(err)
			}
			if tt.want != "" && (!errors.As(err, &refused) || refused.Refusal != tt.want) {
				t.Fatalf("got %v, want refusal %s", err, tt.want)
			}
		})
	}
}

func TestAddObject(t *testing.T) {
	tests := []struct {
		kind       site.Kind
		key, value string
		want       string // part of the error; empty: taken
	}{
		{site.KindDevice, "52:54:00:00:00:01", `{"mac":"52:54:00:00:00:01","name":"t1"}`, ""},
		{site.KindDevice, "52:54:00:00:00:02", `{"mac":"52:54:00:00:00:01"}`, "its key is"},
		{site.KindCollection, "lab", `{"name":"lab","vdisk":"debian"}`, ""},
		{site.KindCollection, "lab", `{"name":"lap"}`, "its key is"},
		{site.KindVDisk, "debian", `{"name":"debian"}`, ""},
		{site.KindVDisk, "debian", `{"name":"debain"}`, "its key is"},
		{site.KindVDisk, "debian", `{`, "reading vDisk debian"},
		{site.KindStreamerState, "s1", `"draining"`, ""},
		{site.KindStreamerState, "s1", `"asleep"`, "neither active nor draining"},
		{"leases", "x", `{}`, "use devices"},
	}
	for _, tt := range tests {
		t.Run(string(tt.kind)+" "+tt.value, func(t *testing.T) {
			var c site.Content
			err := c.AddObject(tt.kind, tt.key, []byte(tt.value))
			if tt.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				if n := len(c.Devices) + len(c.Collections) + len(c.VDisks); n != 1 && tt.kind != site.KindStreamerState {
					t.Errorf("%d objects in the content, want 1", n)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
}

func TestEffective(t *testing.T) {
	for _, tt := range []struct{ announced, wanted, want site.StreamerState }{
		{site.Active, "", site.Active},
		{"", "", site.Active},
		{site.Active, site.Draining, site.Draining},
		{site.Draining, site.Active, site.Draining},
	} {
		if got := site.Effective(tt.announced, tt.wanted); got != tt.want {
			t.Errorf("announced %q, wanted %q: got %s, want %s", tt.announced, tt.wanted, got, tt.want)
		}
	}
}
