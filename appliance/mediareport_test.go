package appliance

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"everboot/appliance/web"
	"everboot/image"
	"everboot/site"
	"everboot/tftp"
)

// TestMediaFollowTheSite plays three targets of a collection: what they are told, and what the report says of them here and at another appliance.
func TestMediaFollowTheSite(t *testing.T) {
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	other := newMediaReports(func([]byte) {})
	here := newMediaReports(func(message []byte) { other.PeerChanged("b", message) })
	for _, m := range []*mediaReports{here, other} {
		m.now = func() time.Time { return now }
	}
	v := site.Empty("berlin", "embedded")
	v.Devices, v.Collections = map[site.MAC]site.Device{}, map[string]site.Collection{"lab": {Name: "lab"}}
	mac := func(n byte) site.MAC { return site.MAC{2, 0, 0, 0, 0, n} }
	for n := range byte(3) {
		v.Devices[mac(n)] = site.Device{MAC: mac(n), Name: fmt.Sprintf("t%d", n), Collection: "lab"}
	}
	m := newMedia("a-key-of-our-own", "", func() *site.View { return v }, here.Seen)
	report := func() string {
		t.Helper()
		var s strings.Builder
		for _, r := range here.Report(v) {
			fmt.Fprintf(&s, "%s %s %d/%d %s%s; ", r.Device, r.Medium, r.Has, r.Wants, r.State, prefixed(" ", r.Problem))
		}
		if a, b := fmt.Sprint(here.Report(v)), fmt.Sprint(other.Report(v)); a != b {
			t.Errorf("another appliance's report differs:\n%s\n%s", a, b)
		}
		return s.String()
	}
	ask := func(s tftp.MediumState) string {
		t.Helper()
		text, err := m.Renew(s)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	made := site.Bootstrap{Site: "berlin", VLAN: 7}
	state := tftp.MediumState{MAC: mac(0), Medium: "vda4", Bank: "a", Digest: strings.Repeat("0", 64), Made: made}
	if text := ask(state); text != "" || report() != "t0 vda4 0/0 kept; " {
		t.Errorf("nobody wants anything: told %d bytes, report %s", len(text), report())
	}

	v.Collections["lab"] = site.Collection{Name: "lab", Medium: site.Medium{Version: 3, Servers: []string{"198.18.0.10", "boot.example.net"}}}
	text := ask(state)
	if p := m.program(site.MAC{}, "lab"); !strings.Contains(p.Script, "set s1 http://boot.example.net\n") || !strings.Contains(p.Script, "&collection=lab &&") || !strings.Contains(p.About, "version=3") {
		t.Errorf("a collection's own medium is not what its media shall be: %s %s", p.About, p.Script)
	}
	for _, want := range []string{"bank=b&", "&version=3&site=berlin&key=a-key-of-our-own&vlan=7\n", "set s1 http://boot.example.net\n", "vcreate --tag 7", "&key=a-key-of-our-own &&"} {
		if !strings.Contains(text, want) {
			t.Errorf("it is told %d bytes without %q", len(text), want)
		}
	}
	ask(tftp.MediumState{MAC: mac(1), Medium: "sdb", Bank: "a", Made: made, Problem: "mounted"})
	if want := "t0 vda4 0/3 behind; t1 sdb 0/3 failed mounted; t2  0/3 silent; "; report() != want {
		t.Errorf("report %s, want %s", report(), want)
	}

	// The target has written it, and says so.
	now = now.Add(time.Second)
	state.Bank, state.Digest = "b", text[strings.Index(text, "&digest=")+8:][:64]
	state.Made = site.Bootstrap{Version: 3, Site: "berlin", Key: "a-key-of-our-own", VLAN: 7}
	if text := ask(state); text != "" {
		t.Errorf("it is told once more: %d bytes", len(text))
	}
	if want := "t0 vda4 3/3 current; "; !strings.HasPrefix(report(), want) {
		t.Errorf("report %s, want %s", report(), want)
	}
	// One that says the version but has something else is given it again.
	now = now.Add(time.Second)
	state.Digest = strings.Repeat("0", 64)
	if text := ask(state); len(text) != image.RenewalSize || !strings.HasPrefix(report(), "t0 vda4 3/3 behind; ") {
		t.Errorf("a damaged one is told %d bytes; report %s", len(text), report())
	}
}

// TestMediaReportsAreBounded: a device that makes media up keeps its last few, and a peer's nonsense is dropped.
func TestMediaReportsAreBounded(t *testing.T) {
	now := time.Now()
	told := 0
	m := newMediaReports(func([]byte) { told++ })
	m.now = func() time.Time { now = now.Add(time.Millisecond); return now }
	mac := site.MAC{2, 0, 0, 0, 0, 1}
	for n := range 500 {
		m.Seen(tftp.MediumState{MAC: mac, Medium: fmt.Sprintf("vda%d", n)}, false)
	}
	if len(m.last[mac]) != mediaEach || m.count != mediaEach || told != mediaTold {
		t.Errorf("%d are kept, %d counted, %d told", len(m.last[mac]), m.count, told)
	}
	v := site.Empty("berlin", "embedded")
	v.Devices = map[site.MAC]site.Device{mac: {MAC: mac}}
	if list := m.Report(v); len(list) != mediaEach || list[0].Medium != "vda496" || list[0].State != web.MediumKept {
		t.Errorf("report %+v", list)
	}
	for _, message := range []string{"", "\x01", "\x02{}", "\x01{", `` + "\x01" + `{"mac":"02:00:00:00:00:02","medium":"<script>"}`, "\x01" + `{"mac":"02:00:00:00:00:02"}`} {
		m.PeerChanged("b", []byte(message))
	}
	if len(m.last) != 1 {
		t.Errorf("nonsense was taken: %+v", m.last)
	}
}
