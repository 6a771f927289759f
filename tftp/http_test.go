package tftp_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"everboot/site"
	"everboot/tftp"

	"go.uber.org/goleak"
)

// fakeMedia has a medium for anybody but 52:54:00:00:00:02.
func fakeMedia(mac site.MAC, collection string) (io.ReadSeeker, string, error) {
	if mac[5] == 2 {
		return nil, "", errors.New("isolinux is missing")
	}
	return strings.NewReader("medium of " + mac.String() + " in " + collection), `"tag"`, nil
}

func TestHTTP(t *testing.T) {
	files, _ := newFiles(t)
	var events []site.Event
	h, err := tftp.NewHTTP(tftp.HTTPConfig{MediaKey: "a-key-of-our-own", Media: fakeMedia}, files, exampleView, func(e site.Event) { events = append(events, e) }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, method, target string
		header               http.Header
		status               int
		body                 string // a part of it
	}{
		{"script", "GET", "/boot?mac=52:54:00:00:00:01&platform=pcbios&arch=i386", nil, 200, "sanboot --drive 0x80 iscsi:198.18.0.10::3260:1:iqn"},
		{"script, escaped MAC", "GET", "/boot?mac=52%3A54%3A00%3A00%3A00%3A01", nil, 200, "t1 boots debian"},
		{"stranger", "GET", "/boot?mac=52:54:00:00:00:99", nil, 200, "cannot boot now (unknown-device)"},
		{"own medium", "GET", "/boot?mac=52:54:00:00:00:01&site=berlin&key=a-key-of-our-own", nil, 200, "t1 boots debian"},
		{"another site's medium", "GET", "/boot?mac=52:54:00:00:00:01&site=munich", nil, 403, "of site munich, and this is site berlin"},
		{"a medium with another key", "GET", "/boot?mac=52:54:00:00:00:01&site=berlin&key=a-key-of-somebody", nil, 403, "another key"},
		{"a medium with no key of ours", "GET", "/boot?mac=52:54:00:00:00:01&key=%0A", nil, 400, "no key of a boot medium"},
		{"a medium with no site of ours", "GET", "/boot?mac=52:54:00:00:00:01&site=a%20b", nil, 400, "is no name"},
		{"medium", "GET", "/bdm/52-54-00-00-00-01.iso", nil, 200, "medium of 52:54:00:00:00:01"},
		{"a part of a medium", "GET", "/bdm/boot.iso", http.Header{"Range": {"bytes=0-5"}}, 206, "medium"},
		{"a medium by a wrong name", "GET", "/bdm/t1.iso", nil, 404, "is called by the target's MAC"},
		{"a medium by another ending", "GET", "/bdm/52-54-00-00-00-01.img", nil, 404, "is called by the target's MAC"},
		{"a collection's medium", "GET", "/bdm/collection/lab.iso", nil, 200, "medium of 00:00:00:00:00:00 in lab"},
		{"a medium of no collection", "GET", "/bdm/collection/none.iso", nil, 404, "is called by the target's MAC"},
		{"a stranger with a collection's medium", "GET", "/boot?mac=52:54:00:00:00:99&collection=lab", nil, 200, "cannot boot now (unknown-device)"},
		{"a medium with no collection of ours", "GET", "/boot?mac=52:54:00:00:00:99&collection=%0A", nil, 400, "is no name"},
		{"no medium", "GET", "/bdm/52-54-00-00-00-02.iso", nil, 404, "isolinux is missing"},
		{"no MAC", "GET", "/boot", nil, 400, "not a MAC address"},
		{"POST", "POST", "/boot?mac=52:54:00:00:00:01", nil, 405, "read-only"},
		{"bootstrap", "GET", "/bootstrap.ipxe", nil, 200, "set s0 http://198.18.0.10\nset s1 http://198.18.0.2\n"},
		{"file", "GET", "/sub/kernel?mac=52:54:00:00:00:01", nil, 200, "kernel"},
		{"range", "GET", "/sub/kernel", http.Header{"Range": {"bytes=1-3"}}, 206, "ern"},
		{"bad range", "GET", "/sub/kernel", http.Header{"Range": {"bytes=9-"}}, 416, ""},
		{"no file", "GET", "/none", nil, 404, "file not found"},
		{"no listing", "GET", "/sub/", nil, 404, "file not found"},
		{"no index", "GET", "/", nil, 400, "no name"},
		{"out", "GET", "/..%2fsecret", nil, 400, `".."`},
		{"out by a link", "GET", "/outside", nil, 403, "cannot be read"},
	} {
		r := httptest.NewRequestWithContext(t.Context(), c.method, c.target, nil)
		r.Host = "198.18.0.2"
		for k, v := range c.header {
			r.Header[k] = v
		}
		w := httptest.NewRecorder()
		before := len(events)
		h.ServeHTTP(w, r)
		for _, e := range events[before:] { // a refused medium, or a file, takes no stranger in and begins no boot
			if strings.Contains(c.target, "collection=lab") != (e.Collection == "lab") {
				t.Errorf("%s: a stranger becomes a device of %q", c.name, e.Collection)
			}
			if boots := strings.HasPrefix(c.target, "/boot?") && w.Code == 200; e.Begins != boots {
				t.Errorf("%s: begins a boot: %v", c.name, e.Begins)
			}
		}
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.body) {
			t.Errorf("%s: %d %q, want %d %q", c.name, w.Code, w.Body, c.status, c.body)
		}
	}
	if len(events) == 0 || events[0].MAC != t1 || events[0].Detail != "script (pcbios i386) to 192.0.2.1" {
		t.Errorf("events: %+v", events)
	}
	if want := (tftp.HTTPStats{Scripts: 3, Waits: 2, Files: 7, NotFound: 9, Bad: 5, Foreign: 2}); h.Stats() != want {
		t.Errorf("counters %+v, want %+v", h.Stats(), want)
	}
}

func TestHTTPConditional(t *testing.T) {
	files, root := newFiles(t)
	h, err := tftp.NewHTTP(tftp.HTTPConfig{}, files, exampleView, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	get := func(path, key, value string) *http.Response {
		r := httptest.NewRequestWithContext(t.Context(), "GET", path, nil)
		if key != "" {
			r.Header.Set(key, value)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Result()
	}
	for _, path := range []string{"/sub/kernel", "/undionly.kpxe", "/bootstrap.ipxe"} {
		tag := get(path, "", "").Header.Get("ETag")
		if r := get(path, "If-None-Match", tag); r.StatusCode != http.StatusNotModified {
			t.Errorf("%s with its tag %s: %s", path, tag, r.Status)
		}
	}
	// A download that is resumed must not be put together from two files.
	tag := get("/sub/kernel", "", "").Header.Get("ETag")
	if err := os.WriteFile(filepath.Join(root, "sub", "kernel"), []byte("another kernel"), 0o644); err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequestWithContext(t.Context(), "GET", "/sub/kernel", nil)
	r.Header.Set("Range", "bytes=3-")
	r.Header.Set("If-Range", tag)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != http.StatusOK || w.Body.String() != "another kernel" {
		t.Errorf("resumed: %d %s", w.Code, w.Body)
	}
	for path, want := range map[string]string{"/snponly.efi": "application/efi", "/bootstrap.ipxe": "text/plain; charset=utf-8", "/undionly.kpxe": "application/octet-stream"} {
		if got := get(path, "", "").Header.Get("Content-Type"); got != want {
			t.Errorf("%s: type %s, want %s", path, got, want)
		}
	}
}

// TestAskedHost: the Host header comes from outside and stands in a script.
func TestAskedHost(t *testing.T) {
	files, _ := newFiles(t)
	h, err := tftp.NewHTTP(tftp.HTTPConfig{}, files, exampleView, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]string{
		"198.18.0.2": "http://198.18.0.2/boot", "198.18.0.2:8080": "http://198.18.0.2:8080/boot", "[2001:db8::2]:81": "http://[2001:db8::2]:81/boot",
		"boot.example.net": "http://boot.example.net/boot", "x y": "http://127.0.0.9:81/boot", "x||shell": "http://127.0.0.9:81/boot", "": "http://127.0.0.9:81/boot",
	} {
		local := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 9), Port: 81}
		r := httptest.NewRequestWithContext(context.WithValue(t.Context(), http.LocalAddrContextKey, local), "GET", "/boot?mac=52:54:00:00:00:01", nil)
		r.Host = host
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if !strings.Contains(w.Body.String(), "--replace "+want+"?") {
			t.Errorf("host %q: want %s in\n%s", host, want, w.Body)
		}
	}
}

func TestHTTPRun(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	files, root := newFiles(t)
	if err := os.Truncate(filepath.Join(root, "ipxe.efi"), 5<<20); err != nil { // more than one piece
		t.Fatal(err)
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	h, err := tftp.NewHTTP(tftp.HTTPConfig{Listen: address}, files, exampleView, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	<-h.Ready()
	client := &http.Client{Transport: &http.Transport{}}
	resp, err := client.Get("http://" + address + "/ipxe.efi")
	if err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	if err != nil || n != 5<<20 {
		t.Errorf("%d bytes, %v", n, err)
	}
	if errs := tftp.CheckHTTP(tftp.HTTPConfig{Listen: address}); len(errs) != 1 || !strings.Contains(errs[0].Error(), "has the port") {
		t.Error(errs)
	}
	client.CloseIdleConnections()
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("Run goes on after its context ended")
	}
}

func TestConfigSaysWhatToMend(t *testing.T) {
	for _, err := range []error{
		tftp.Config{Listen: "nonsense"}.Validate(), tftp.Config{MaxTransfers: -1}.Validate(), tftp.HTTPConfig{Listen: "1.2.3.4"}.Validate(),
	} {
		if err == nil || !strings.Contains(err.Error(), "use ") {
			t.Error(err)
		}
	}
	if errs := tftp.Check(tftp.Config{Listen: "192.0.2.1:6969"}); len(errs) != 1 || !strings.Contains(errs[0].Error(), "no interface of this host") {
		t.Error(errs)
	}
}
