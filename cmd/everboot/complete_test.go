package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"everboot/appliance/web"
	"everboot/site"
)

// TestCompletion: Tab names what the site has, where it can stand.
func TestCompletion(t *testing.T) {
	mac := site.MAC{0x52, 0x54, 0, 0, 0, 1}
	v := site.Empty("berlin", "embedded")
	v.Devices[mac] = site.Device{MAC: mac, Name: "t1", VDisk: "debian", Address: netip.MustParseAddr("198.18.0.51")}
	v.Collections["lab"] = site.Collection{Name: "lab"}
	v.VDisks["debian"] = site.VDisk{Name: "debian"}
	v.Streamers["s1"] = site.Streamer{Name: "s1", State: site.Active}
	appliance := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/api/v1/leases" {
			_ = json.NewEncoder(w).Encode([]web.Lease{{Address: netip.MustParseAddr("198.18.0.100"), MAC: mac}})
			return
		}
		_ = json.NewEncoder(w).Encode(web.Status{View: v})
	}))
	defer appliance.Close()
	for typed, want := range map[string]string{
		"explain ":                     mac.String() + "\tt1",
		"status --device ":             "t1\tboots debian",
		"streamer drain ":              "s1\tactive",
		"device remove ":               "t1\tboots debian",
		"device remove t1 ":            "",
		"device set t1 --collection ":  "lab",
		"collection set lab --vdisk ":  "debian",
		"vdisk set debian --server ":   "s1\tactive",
		"vdisk set debian --affinity ": "best-effort fixed",
		"image rollout --device ":      "t1\tboots debian",
		"image rollout --collection ":  "lab",
		"lease release ":               "198.18.0.100\t" + mac.String(),
	} {
		words := strings.Split(typed, " ")
		var out bytes.Buffer
		root := newRoot()
		root.SetOut(&out)
		root.SetErr(&bytes.Buffer{})
		root.SetArgs(append([]string{"__complete", "--api", appliance.URL}, words...))
		if err := root.Execute(); err != nil {
			t.Fatal(err)
		}
		i := strings.LastIndexByte(out.String(), ':')
		got, directive := out.String()[:i], out.String()[i+1:]
		if got = strings.Join(strings.Split(strings.TrimSpace(got), "\n"), " "); got != want || directive != "4\n" {
			t.Errorf("%q: got %q, directive %q; want %q", typed, got, directive, want)
		}
	}
}
