package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"everboot/appliance/web"
	"everboot/site"
)

// importSite is an appliance of a site with three devices, which refuses one; written is what it was told, in order.
func importSite(t *testing.T, refused string) (url string, devices map[string]site.Device, written *[]string) {
	t.Helper()
	v := site.Empty("berlin", "consul")
	devices, written = map[string]site.Device{}, new([]string)
	for i := byte(1); i <= 3; i++ {
		mac := site.MAC{0x52, 0x54, 0, 0, 0, i}
		v.Devices[mac] = site.Device{MAC: mac, Name: fmt.Sprintf("t%d", i), Address: netip.AddrFrom4([4]byte{198, 18, 0, 50 + i}), VDisk: "debian"}
		devices[mac.String()] = v.Devices[mac]
	}
	var mu sync.Mutex
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			_ = json.NewEncoder(w).Encode(web.Status{View: v})
			return
		}
		key := strings.TrimPrefix(r.URL.Path, "/api/v1/devices/")
		if key == refused {
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(w, `{"error": "no"}`)
			return
		}
		mu.Lock() // several come at a time
		defer mu.Unlock()
		var d site.Device
		if delete(devices, key); json.NewDecoder(r.Body).Decode(&d) == nil {
			devices[key] = d
		}
		*written = append(*written, strings.TrimSuffix(r.Method+" "+key[15:]+" "+r.URL.RawQuery, " "))
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(server.Close)
	return server.URL, devices, written
}

// TestImport: all devices of a file or none, and the appliance is asked to wait for its view once only, at the end.
func TestImport(t *testing.T) {
	four := "mac,name,address\n52:54:00:00:00:02,x2,198.18.0.62\n52:54:00:00:00:03,x3,198.18.0.63\n52:54:00:00:00:04,x4,198.18.0.64\n52:54:00:00:00:05,x5,198.18.0.65\n"
	for name, c := range map[string]struct {
		text, refused, says string
		written             []string
		known               int
	}{
		"all": {four, "", "4 reservations imported", []string{"PUT 02 more", "PUT 03 more", "PUT 04 more", "PUT 05"}, 5},
		"the last is refused": {four, "52:54:00:00:00:05", "nothing is imported",
			[]string{"PUT 02 more", "PUT 02 more", "PUT 03 more", "PUT 03 more", "PUT 04 more", "DELETE 04"}, 3},
		"the first is refused": {four, "52:54:00:00:00:02", "nothing is imported", nil, 3}, // some of the others may be under way
		"another's address": {"mac,name,address\n52:54:00:00:00:04,x4,198.18.0.51\n", "",
			"52:54:00:00:00:04: its address 198.18.0.51 is that of device 52:54:00:00:00:01 of the site", []string{}, 3},
		"another's name":       {"mac,name,address\n52:54:00:00:00:04,t1,198.18.0.64\n", "", "its name t1 is that of device 52:54:00:00:00:01 of the site", []string{}, 3},
		"what another had":     {"mac,name,address\n52:54:00:00:00:01,t9,198.18.0.59\n52:54:00:00:00:04,t1,198.18.0.51\n", "", "2 reservations", []string{"PUT 01 more", "PUT 04"}, 4},
		"one, and no name":     {"mac,address\n52:54:00:00:00:01,198.18.0.59\n", "", "1 reservations", []string{"PUT 01"}, 3},
		"its own all the same": {"mac,name,address\n52:54:00:00:00:01,t1,198.18.0.51\n", "", "1 reservations", []string{"PUT 01"}, 3},
	} {
		url, devices, written := importSite(t, c.refused)
		before := maps.Clone(devices)
		file := filepath.Join(t.TempDir(), "file.csv")
		if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := runCommand(t, url, "device import --format csv "+file)
		if err != nil {
			out = err.Error()
			if !reflect.DeepEqual(before, devices) {
				t.Errorf("%s: the site has %v", name, devices)
			}
		}
		if n := len(*written) - 1; n > 0 && !strings.HasSuffix((*written)[n], "more") {
			slices.Sort((*written)[:n]) // several are under way at a time; the last comes after all
		}
		if c.written != nil && !slices.Equal(*written, c.written) || !strings.Contains(out, c.says) || len(devices) != c.known {
			t.Errorf("%s: wrote %q and said %q, and %d are known; want %q, %q, %d", name, *written, out, len(devices), c.written, c.says, c.known)
		}
	}
}
