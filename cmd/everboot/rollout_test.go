package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"everboot/appliance/web"
	"everboot/site"
)

// rolloutSite is an appliance whose site has two devices, one of them written in a file, and a collection with an older version.
func rolloutSite(t *testing.T) (url string, puts func() []string) {
	t.Helper()
	mac := func(n byte) site.MAC { return site.MAC{0x52, 0x54, 0, 0, 0, n} }
	v := site.Empty("berlin", "embedded")
	v.Boot.Address, v.Appliances = netip.MustParseAddr("198.18.0.10"), []site.Appliance{{Address: netip.MustParseAddr("198.18.0.2")}}
	v.Devices[mac(1)] = site.Device{MAC: mac(1), Name: "t1", Collection: "lab", VDisk: "debian"}
	v.Devices[mac(2)] = site.Device{MAC: mac(2), Name: "t2"}
	v.Collections["lab"] = site.Collection{Name: "lab", VDisk: "debian", Medium: site.Medium{Version: 4, Servers: []string{"198.18.0.10"}}}
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	media := []web.MediumReport{
		{MAC: mac(1), Device: "t1", Collection: "lab", Medium: "vda4", Has: 3, Wants: 4, State: web.MediumFailed, Problem: "mounted", At: now.Add(-90 * time.Second)},
		{MAC: mac(2), Device: "t2", Wants: 4, State: web.MediumSilent},
	}
	var list []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			_ = json.NewEncoder(w).Encode(web.Status{View: v, Media: media, Now: now})
			return
		}
		if strings.HasSuffix(r.URL.Path, ":02") {
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(w, `{"error": "device 52:54:00:00:00:02 is written in appliance.toml: change it there"}`)
			return
		}
		var o struct {
			VDisk  string
			Medium site.Medium
		}
		_ = json.NewDecoder(r.Body).Decode(&o)
		list = append(list, fmt.Sprintf("%s %s %d %v", strings.TrimPrefix(r.URL.Path, "/api/v1/"), o.VDisk, o.Medium.Version, o.Medium.Servers))
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(server.Close)
	return server.URL, func() []string { defer func() { list = nil }(); return list }
}

func runCommand(t *testing.T, url, line string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	root := newRoot()
	root.SetOut(&out)
	root.SetErr(&bytes.Buffer{})
	root.SetArgs(append([]string{"--api", url}, strings.Fields(line)...))
	err := root.Execute()
	return out.String(), err
}

// TestRollout: what the site is told, and for whom; nothing if one of those who are named is not there.
func TestRollout(t *testing.T) {
	url, puts := rolloutSite(t)
	for line, want := range map[string]struct {
		puts []string
		says string // or the error
	}{
		"--device t1 --device t1":               {[]string{"devices/52:54:00:00:00:01 debian 5 [198.18.0.10 198.18.0.2]"}, "of 1 devices and 0 collections become version 5, which asks [198.18.0.10 198.18.0.2]"},
		"--collection lab --server 198.18.0.10": {[]string{"collections/lab debian 4 [198.18.0.10]"}, "become version 4,"},
		"--device t1 --collection lab --server boot.example.net --version 9 --json": {
			[]string{"devices/52:54:00:00:00:01 debian 9 [boot.example.net]", "collections/lab debian 9 [boot.example.net]"}, `"version": 9`},
		"--stop --collection lab":       {[]string{"collections/lab debian 0 []"}, "are left as they are from now on"},
		"--device t1 --device t3":       {nil, `"t3" is not a MAC address`},
		"--device 52:54:00:00:00:09":    {nil, "the site knows no such device"},
		"--device t1 --collection none": {nil, "the site knows no such collection"},
		"--device t1 --server a&&shell": {nil, `login server "a&&shell"`},
		"--device t1 --version -1":      {nil, "version -1"},
		"--device t1 --device t2":       {[]string{"devices/52:54:00:00:00:01 debian 5 [198.18.0.10 198.18.0.2]"}, "is written in appliance.toml: change it there; 1 before it have it"},
	} {
		out, err := runCommand(t, url, "image rollout "+line)
		if err != nil {
			out = err.Error()
		}
		if got := puts(); !slices.Equal(got, want.puts) || !strings.Contains(out, want.says) {
			t.Errorf("%s: told %q and said %q; want %q and %q", line, got, out, want.puts, want.says)
		}
	}
}

func TestReport(t *testing.T) {
	url, _ := rolloutSite(t)
	out, err := runCommand(t, url, "image report")
	want := `TARGET  MAC                COLLECTION  MEDIUM  HAS  WANTS  STATE            HEARD OF
t1      52:54:00:00:00:01  lab         vda4    3    4      failed: mounted  1m30s ago
t2      52:54:00:00:00:02  -           -       -    4      silent           never
0 current, 0 behind, 1 failed, 1 silent, 0 kept
`
	if err != nil || out != want {
		t.Errorf("%v\n%s\nwant\n%s", err, out, want)
	}
	out, err = runCommand(t, url, "image report --json")
	var list []web.MediumReport
	if err != nil || json.Unmarshal([]byte(out), &list) != nil || len(list) != 2 || !reflect.DeepEqual(list[1], web.MediumReport{MAC: site.MAC{0x52, 0x54, 0, 0, 0, 2}, Device: "t2", Wants: 4, State: web.MediumSilent}) {
		t.Errorf("%v\n%s", err, out)
	}
}
