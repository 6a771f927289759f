package consul

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/consul/api"

	"everboot/site"
)

func streamer(name string) site.Streamer {
	return site.Streamer{Name: name, Site: "berlin", Addresses: []netip.AddrPort{netip.MustParseAddrPort("198.18.0.21:3260")}, Power: 1, State: site.Active}
}

func announcement(t *testing.T, key string, s site.Streamer) entry {
	t.Helper()
	value, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return entry{key: key, value: value, index: 7}
}

func TestReadFolder(t *testing.T) {
	bad := streamer("s2")
	bad.Power = 0
	cheat := streamer("s1")
	cheat.Registered, cheat.Check = true, site.Check{Health: site.Up}
	tests := []struct {
		name     string
		kind     site.Kind
		entries  []entry
		good     int
		problems string // parts of their texts
	}{
		{"folder key", site.KindDevice, []entry{{key: ""}}, 0, ""},
		{"devices", site.KindDevice, []entry{{key: "52:54:00:00:00:01", value: []byte(`{"mac":"52:54:00:00:00:01"}`)}, {key: "x", value: []byte(`{}`)}}, 1, "its key is x"},
		{"nested key", site.KindVDisk, []entry{{key: "a/b", value: []byte(`{"name":"a"}`)}}, 0, `its key is "a/b"`},
		{"unknown keys are of a later everboot", site.KindVDisk, []entry{{key: "a", value: []byte(`{"name":"a","colour":"red"}`)}}, 1, ""},
		{"streamers", kindStreamer, []entry{announcement(t, "s1", cheat), announcement(t, "s2", bad), announcement(t, "s4", streamer("s3")), {key: "s5", value: []byte("x")}}, 1,
			"power 0|at the key of|reading the announcement of streamer s5"},
		{"wishes", site.KindStreamerState, []entry{{key: "s1", value: []byte(`"draining"`)}, {key: "s2", value: []byte(`draining`)}, {key: "S", value: []byte(`"active"`)}}, 1,
			"reading the state of streamer s2|streamer name"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := readFolder(tt.kind, "berlin", tt.entries)
			if n := len(p.content.Devices) + len(p.content.VDisks) + len(p.content.Streamers) + len(p.wishes); n != tt.good {
				t.Errorf("%d good entries, want %d", n, tt.good)
			}
			var want []string
			if tt.problems != "" {
				want = strings.Split(tt.problems, "|")
			}
			if len(p.problems) != len(want) {
				t.Fatalf("problems %+v, want %q", p.problems, want)
			}
			for i, w := range want {
				if !strings.Contains(p.problems[i].text, w) {
					t.Errorf("problem %q, want one with %q", p.problems[i].text, w)
				}
			}
			for _, s := range p.content.Streamers {
				if s.Registered || s.Check != (site.Check{}) {
					t.Errorf("a streamer says of itself: %+v", s)
				}
			}
		})
	}
}

func TestContentKeepsWhoseServiceIsThere(t *testing.T) {
	here, gone := readFolder(kindStreamer, "berlin", []entry{announcement(t, "s1", streamer("s1"))}), readFolder(kindStreamer, "berlin", nil)
	draining := readFolder(site.KindStreamerState, "berlin", []entry{{key: "s1", value: []byte(`"draining"`)}})
	alive := map[string]bool{"s1": true}
	a := answers{parts: map[site.Kind]part{}}
	for i, step := range []struct {
		key  part
		wish part
		live map[string]bool
		want []site.StreamerState
	}{
		{gone, part{}, alive, nil}, // a service alone has no replicas
		{here, part{}, nil, []site.StreamerState{site.Active}},
		{gone, part{}, alive, []site.StreamerState{site.Active}}, // session lost
		{gone, draining, alive, []site.StreamerState{site.Draining}},
		{gone, part{}, alive, []site.StreamerState{site.Active}},
		{gone, part{}, nil, nil},
		{gone, part{}, alive, nil}, // forgotten
	} {
		a.parts[kindStreamer], a.parts[site.KindStreamerState], a.alive = step.key, step.wish, step.live
		var got []site.StreamerState
		for _, s := range a.content().Streamers {
			got = append(got, s.State)
		}
		if !reflect.DeepEqual(got, step.want) {
			t.Errorf("step %d: %v, want %v", i, got, step.want)
		}
	}
}

func TestWarningIsOneShortLine(t *testing.T) {
	if got := warning(nil); got != "" {
		t.Errorf("no problem: %q", got)
	}
	p := problem{site.KindDevice, "x", 1, "bad"}
	if got, want := warning([]problem{p, p, p, p, p}), "5 keys left out: devices/x: bad; devices/x: bad; devices/x: bad; and 2 more"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestConfigIsChecked(t *testing.T) {
	for _, address := range []string{"127.0.0.1:8500", "http://127.0.0.1:8500", "https://consul.example:8501", "[::1]:8500"} {
		if _, err := New(Config{Address: address, Site: "berlin"}); err != nil {
			t.Error(err)
		}
	}
	for _, address := range []string{"", "127.0.0.1", "unix:///run/consul", "http://127.0.0.1:8500/v1", "ftp://a:1", "a:b"} {
		if _, err := New(Config{Address: address, Site: "berlin"}); err == nil {
			t.Errorf("address %q was taken", address)
		}
	}
	if _, err := New(Config{Address: "127.0.0.1:8500", Site: "../x"}); err == nil {
		t.Error("site ../x was taken")
	}
	if _, err := NewRegistrar(RegistrarConfig{Config: Config{Address: "127.0.0.1:8500", Site: "berlin"}, SessionTTL: -1}); err == nil {
		t.Error("a negative TTL was taken")
	}
}

func TestErrorsSayWhatToDo(t *testing.T) {
	cfg := Config{Address: "127.0.0.1:8500", Site: "berlin"}
	for want, err := range map[string]error{
		`key_prefix "everboot/berlin/"`: api.StatusError{Code: 403},
		"512 KiB":                       api.StatusError{Code: 413},
		"start its agent":               &net.OpError{Op: "dial", Err: errors.New("refused")},
		"mend address":                  context.DeadlineExceeded,
		"Consul at 127.0.0.1:8500":      errors.New("something else"),
	} {
		if got := cfg.explain("writing x", err); !strings.Contains(got.Error(), want) || !errors.Is(got, err) {
			t.Errorf("got %v, want an error with %q", got, want)
		}
	}
	if err := cfg.explain("writing x", nil); err != nil {
		t.Error(err)
	}
}

// TestNobodyAnswers: no agent at all. It is told after the grace, and Run ends with all its goroutines when it shall.
func TestNobodyAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var dials atomic.Int64 // the transport dials from goroutines of its own
		r, err := New(Config{Address: "198.18.0.1:8500", Site: "berlin", Dial: func(context.Context, string, string) (net.Conn, error) {
			dials.Add(1)
			return nil, &net.OpError{Op: "dial", Err: errors.New("refused")}
		}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		begin, calls := time.Now(), 0
		err = r.Run(ctx, func(c site.Content, about site.Registry) {
			calls++
			if took := time.Since(begin); about.Reachable || took != grace || !strings.Contains(about.Error, "start its agent") || len(c.Devices) != 0 {
				t.Errorf("after %v: %+v", took, about)
			}
		})
		if err != nil || calls != 1 {
			t.Errorf("Run: %v, %d calls", err, calls)
		}
		// A minute of attempts, at last one every 2 s, each with at most one dial a watcher.
		if n, least, most := int(dials.Load()), 25, 40*(len(kinds)+2); n < least || n > most {
			t.Errorf("%d dials in a minute, want %d to %d", n, least, most)
		}
	})
}
