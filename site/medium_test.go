package site

import (
	"net/netip"
	"net/url"
	"reflect"
	"strings"
	"testing"
)

// TestAboutIsReadAsItWasWritten, and is refused if it cannot have been.
func TestAboutIsReadAsItWasWritten(t *testing.T) {
	for _, b := range []Bootstrap{
		{},
		{Version: 3, Site: "berlin", Key: "a-key-of-our-own", Collection: "lab", MAC: MAC{0x52, 0x54, 0, 0, 0, 1}, VLAN: 7,
			Address: netip.MustParsePrefix("198.18.0.51/24"), Gateway: netip.MustParseAddr("198.18.0.1"), DNS: netip.MustParseAddr("198.18.0.1")},
	} {
		q, err := url.ParseQuery(strings.TrimPrefix(b.About(), "&"))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := ParseAbout(q); err != nil || !reflect.DeepEqual(got, b) {
			t.Errorf("%s: %+v, %v", b.About(), got, err)
		}
	}
	for _, text := range []string{"version=-1", "version=x", "version=1000000", "vlan=4095", "mac=x", "address=198.18.0.51", "address=198.18.0.0/24", "gateway=198.18.0.1", "dns=x", "key=short", "site=A", "collection=A"} {
		q, err := url.ParseQuery(text)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := ParseAbout(q); err == nil {
			t.Errorf("%s is taken: %+v", text, b)
		}
	}
}

func TestMediumOfADeviceIsItsOwnOrItsCollections(t *testing.T) {
	one, two := Medium{Version: 1, Servers: []string{"198.18.0.10"}}, Medium{Version: 2, Servers: []string{"198.18.0.10", "198.18.0.2"}}
	a, b, c := MAC{2, 0, 0, 0, 0, 1}, MAC{2, 0, 0, 0, 0, 2}, MAC{2, 0, 0, 0, 0, 3}
	v := &View{
		Devices:     map[MAC]Device{a: {MAC: a, Collection: "lab"}, b: {MAC: b, Collection: "lab", Medium: two}, c: {MAC: c}},
		Collections: map[string]Collection{"lab": {Name: "lab", Medium: one}},
	}
	for mac, want := range map[MAC]Medium{a: one, b: two, c: {}, {}: {}} {
		if got := MediumOf(v, mac); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, want %+v", mac, got, want)
		}
	}
	for version, servers := range map[int][]string{1: one.Servers, 2: two.Servers, 3: {"boot.example.net"}} {
		if got := MediumVersion(v, servers); got != version {
			t.Errorf("%v: version %d, want %d", servers, got, version)
		}
	}
}

func TestMediumCheckRefuses(t *testing.T) {
	for want, m := range map[string]Medium{
		"version 0":              {Servers: []string{"198.18.0.10"}},
		"version -1":             {Version: -1, Servers: []string{"198.18.0.10"}},
		"name its login servers": {Version: 1},
		"login server":           {Version: 1, Servers: []string{"a && shell"}},
	} {
		if err := m.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", m, err, want)
		}
		if err := (Device{MAC: MAC{2}, Medium: m}).Check(); err == nil {
			t.Errorf("a device with %+v is taken", m)
		}
		if err := (Collection{Name: "lab", Medium: m}).Check(); err == nil {
			t.Errorf("a collection with %+v is taken", m)
		}
	}
}
