package tftp_test

import (
	"errors"
	"log/slog"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"everboot/site"
	"everboot/tftp"
)

// TestHTTPRenewal: a device of the site, at its own address, says what its medium is and is told what it shall be; nobody else is.
func TestHTTPRenewal(t *testing.T) {
	files, _ := newFiles(t)
	var said []tftp.MediumState
	renew := func(s tftp.MediumState) ([]byte, error) {
		said = append(said, s)
		switch {
		case s.Medium == "broken":
			return nil, errors.New("name fewer login servers")
		case s.Made.Version == 2:
			return nil, nil
		}
		return []byte("next"), nil
	}
	who := func(a netip.Addr) site.MAC {
		if a == netip.MustParseAddr("198.18.0.52") {
			return site.MAC{0x52, 0x54, 0, 0, 0, 2}
		}
		return site.MAC{}
	}
	h, err := tftp.NewHTTP(tftp.HTTPConfig{MediaKey: "a-key-of-our-own", Media: fakeMedia, Renew: renew, Who: who}, files, exampleView, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	const own, digest = "/bdm/52:54:00:00:00:01/next?", "&digest=9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
	const good = own + "bank=a" + digest + "&version=1&site=berlin&key=a-key-of-our-own&address=198.18.0.51/24&medium=vda4"
	for _, c := range []struct {
		name, target, from string
		status             int
		body               string
	}{
		{"behind", good, "", 200, "next"},
		{"current", strings.Replace(good, "version=1", "version=2", 1), "", 204, ""},
		{"cannot be written", good + "&problem=mounted", "", 200, "next"},
		{"no program", strings.Replace(good, "vda4", "broken", 1), "", 500, "fewer login servers"},
		{"a stranger", strings.Replace(good, ":01/next", ":09/next", 1), "", 403, "no device of site berlin"},
		{"another device's address", good, "198.18.0.52:999", 403, "address of another device"},
		{"another site's", strings.Replace(good, "site=berlin", "site=munich", 1), "", 403, "of site munich"},
		{"another key's", strings.Replace(good, "of-our-own", "of-somebody", 1), "", 403, "another key"},
		{"no MAC", "/bdm/t1/next?bank=a" + digest, "", 400, "not a MAC address"},
		{"no bank", own + "bank=c" + digest + "&medium=vda", "", 400, "bank"},
		{"no digest", own + "bank=a&digest=x&medium=vda", "", 400, "digest"},
		{"no name", own + "bank=a" + digest + "&medium=../vda", "", 400, "medium"},
		{"no such problem", good + "&problem=reboot", "", 400, "problem"},
		{"no address", own + "bank=a" + digest + "&medium=vda&address=198.18.0.51%0Areboot", "", 400, "was made for"},
		{"no query", own + "%zz", "", 400, "malformed"},
		{"much", good + strings.Repeat("x", 1024), "", 400, "too long"},
	} {
		r := httptest.NewRequestWithContext(t.Context(), "GET", c.target, nil)
		if c.from != "" {
			r.RemoteAddr = c.from
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.body) {
			t.Errorf("%s: %d %q, want %d %q", c.name, w.Code, w.Body, c.status, c.body)
		}
	}
	if len(said) != 4 || said[0].Made.Address != netip.MustParsePrefix("198.18.0.51/24") || said[2].Problem != "mounted" {
		t.Errorf("the appliance was told %+v", said)
	}
	if want := (tftp.HTTPStats{NotFound: 1, Bad: 8, Foreign: 4, Renewed: 2}); h.Stats() != want {
		t.Errorf("counters %+v, want %+v", h.Stats(), want)
	}
}

// FuzzRenewal: whatever a target says, it gets an answer, and what is taken of it is within its bounds.
func FuzzRenewal(f *testing.F) {
	files, err := tftp.NewFiles(tftp.FilesConfig{Root: f.TempDir()}, exampleView)
	if err != nil {
		f.Fatal(err)
	}
	h, err := tftp.NewHTTP(tftp.HTTPConfig{Media: fakeMedia, Renew: func(s tftp.MediumState) ([]byte, error) {
		if len(s.Medium) > 32 || len(s.Digest) != 64 || s.Made.Check() != nil {
			return nil, errors.New("it is out of bounds")
		}
		return nil, nil
	}}, files, exampleView, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		f.Fatal(err)
	}
	f.Add("bank=a&digest=9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08&version=1&address=198.18.0.51/24&medium=vda4")
	f.Fuzz(func(t *testing.T, query string) {
		r := httptest.NewRequestWithContext(t.Context(), "GET", "/bdm/52:54:00:00:00:01/next", nil)
		r.URL.RawQuery = query
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code >= 500 {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	})
}
