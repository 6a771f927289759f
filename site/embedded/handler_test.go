package embedded

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"everboot/site"
)

// body returns the JSON of a good announcement with old replaced by new.
func body(t testing.TB, old, new string) string {
	t.Helper()
	raw, err := json.Marshal(announcement{Streamer: streamer("s1")})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(raw), old) {
		t.Fatalf("%q is not in %s", old, raw)
	}
	return strings.Replace(string(raw), old, new, 1)
}

func TestHandler(t *testing.T) {
	r, changes := start(t, Config{})
	<-changes
	handler := r.Handler()
	tests := []struct {
		name, method, path, body string
		status                   int
		refusal                  site.Refusal
	}{
		{"good", "POST", "/api/v1/streamers", body(t, "", ""), 200, ""},
		{"not its to say", "POST", "/api/v1/streamers", body(t, `"registered":false`, `"registered":true`), 200, ""},
		{"a twin", "POST", "/api/v1/streamers", body(t, "198.18.0.21", "198.18.0.22"), 422, Twin},
		{"empty", "POST", "/api/v1/streamers", "", 400, Malformed},
		{"not JSON", "POST", "/api/v1/streamers", "streamer=s1", 400, Malformed},
		{"of a newer streamer", "POST", "/api/v1/streamers", body(t, `{`, `{"colour":"red",`), 200, ""},
		{"wrong type", "POST", "/api/v1/streamers", body(t, `"power":1`, `"power":"1"`), 400, Malformed},
		{"two values", "POST", "/api/v1/streamers", body(t, "", "") + "{}", 400, Malformed},
		{"number out of range", "POST", "/api/v1/streamers", body(t, `"power":1`, `"power":1e999`), 400, Malformed},
		{"deep", "POST", "/api/v1/streamers", strings.Repeat("[", 100_000), 400, Malformed},
		{"too large", "POST", "/api/v1/streamers", `{"name":"` + strings.Repeat("a", maxBody) + `"}`, 413, TooLarge},
		{"too large behind", "POST", "/api/v1/streamers", body(t, "", "") + strings.Repeat(" ", maxBody), 413, TooLarge},
		{"site", "POST", "/api/v1/streamers", body(t, "berlin", "paris"), 422, site.WrongSite},
		{"name", "POST", "/api/v1/streamers", body(t, `"s1"`, `"S1"`), 422, site.BadName},
		{"address", "POST", "/api/v1/streamers", body(t, "198.18.0.21", "0.0.0.0"), 422, site.BadAddress},
		{"power", "POST", "/api/v1/streamers", body(t, `"power":1`, `"power":0`), 422, site.BadPower},
		{"digest", "POST", "/api/v1/streamers", body(t, "abab", "zzzz"), 422, site.BadReplica},
		{"wish", "POST", "/api/v1/streamers", body(t, `{`, `{"follows":{"state":"asleep","stamp":1},`), 422, BadWish},
		{"old wish", "POST", "/api/v1/streamers", body(t, `{`, `{"follows":{"state":"active","stamp":-1},`), 422, BadWish},
		{"withdraw", "DELETE", "/api/v1/streamers/s1", "", 204, ""},
		{"withdraw again", "DELETE", "/api/v1/streamers/s1", "", 204, ""},
		{"withdraw a bad name", "DELETE", "/api/v1/streamers/S_1", "", 422, site.BadName},
		{"read", "GET", "/api/v1/streamers", "", 405, ""},
		{"elsewhere", "POST", "/api/v1/devices", "", 404, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, httptest.NewRequest(tt.method, tt.path, strings.NewReader(tt.body)))
			if w.Code != tt.status {
				t.Errorf("status %d, want %d: %s", w.Code, tt.status, w.Body)
			}
			if w.Code == http.StatusMethodNotAllowed || w.Code == http.StatusNotFound || w.Code == http.StatusNoContent {
				return
			}
			var got refused
			if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
				t.Fatal(err)
			}
			if got.Refusal != tt.refusal || (got.Error == "") != (tt.status == 200) {
				t.Errorf("got %+v, want refusal %q", got, tt.refusal)
			}
		})
	}
	for _, want := range []string{"s1=active", ""} {
		if got := names((<-changes).content.Streamers); got != want {
			t.Errorf("content: %q, want %q", got, want)
		}
	}
}

func TestStreamersAreBounded(t *testing.T) {
	r, changes := start(t, Config{})
	go drain(changes)
	var err error
	for i := range maxStreamers + 1 {
		s := streamer("s" + strings.Repeat("x", i%50) + string(rune('a'+i/50)))
		if _, err = r.Announce(t.Context(), s); err != nil {
			break
		}
	}
	var refused *site.AnnouncementError
	if !errors.As(err, &refused) || refused.Refusal != TooMany {
		t.Errorf("got %v", err)
	}
	if _, err := r.Announce(t.Context(), streamer("sa")); err != nil {
		t.Errorf("a streamer that is known: %v", err)
	}
}

// FuzzAnnouncement: a body is refused by name, or is an announcement that survives being written and read again.
func FuzzAnnouncement(f *testing.F) {
	f.Add([]byte(body(f, "", "")))
	f.Add([]byte(body(f, `{`, `{"follows":{"state":"draining","stamp":1700000000000},`)))
	f.Add([]byte(body(f, `{`, `{"follows":null,`)))
	f.Add([]byte(body(f, `"replicas":[`, `"replicas":[{},`)))
	f.Add([]byte(body(f, "198.18.0.21:3260", "[2001:db8::1]:3260")))
	f.Add([]byte(`{"name":"s1","site":"berlin","power":-0.0}`))
	f.Add([]byte(`null`))
	r, changes := start(f, Config{})
	go drain(changes)
	handler := r.Handler()
	f.Fuzz(func(t *testing.T, raw []byte) {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest("POST", StreamersPath, bytes.NewReader(raw)))
		var got refused
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
			t.Fatalf("answer %q: %v", w.Body, err)
		}
		a, err := readAnnouncement(bytes.NewReader(raw))
		if err == nil {
			err = a.check("berlin")
		}
		switch {
		case err != nil:
			var refusal *site.AnnouncementError
			if !errors.As(err, &refusal) || refusal.Refusal == "" || got.Refusal != refusal.Refusal {
				t.Fatalf("answer %d %+v, reading says %v", w.Code, got, err)
			}
			return
		case w.Code == http.StatusInsufficientStorage, got.Refusal == Twin: // the fuzzer made up a thousand names, or one twice
			return
		case w.Code != http.StatusOK:
			t.Fatalf("a good announcement got %d %+v", w.Code, got)
		}
		again, err := json.Marshal(a)
		if err != nil {
			t.Fatal(err)
		}
		b, err := readAnnouncement(bytes.NewReader(again))
		if err != nil {
			t.Fatal(err)
		}
		if twice, _ := json.Marshal(b); !bytes.Equal(again, twice) {
			t.Fatalf("%s became %s", again, twice)
		}
	})
}

// FuzzFile: a damaged file is an error or is read, never a panic.
func FuzzFile(f *testing.F) {
	f.Add([]byte(`{"format":1,"devices":{"52:54:00:00:00:01":{"mac":"52:54:00:00:00:01","name":"t1"}},"streamer-states":{"s1":{"state":"draining","stamp":5}}}`))
	f.Add([]byte(`{"format":1,"vdisks":{"debian":{"name":"debian","versions":[{"number":1}]}}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		o, err := decode(raw, lenient)
		if err != nil {
			return
		}
		dir := file{t.TempDir()}
		if err := dir.save(o); err != nil {
			t.Fatal(err)
		}
		if _, _, err := dir.load(); err != nil {
			t.Fatalf("what was read cannot be read again: %v", err)
		}
	})
}
