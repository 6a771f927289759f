package web

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"everboot/site"
	"everboot/streamer"
)

type fakeBackend struct{ put map[string]string }

func (f *fakeBackend) Status() Status {
	v := site.Empty("berlin", "embedded")
	v.Streamers["s1"] = site.Streamer{Name: "s1", Check: site.Check{Reason: "<script>alert(1)</script>"}}
	return Status{Node: "a", View: v, Media: []MediumReport{{Device: "t1", Medium: "vda4", Has: 3, Wants: 4, State: MediumFailed, Problem: "mounted"}}}
}

func (f *fakeBackend) Device(who string) (DeviceStatus, error) {
	e, err := f.Explain(who)
	if who == "redirected" {
		return DeviceStatus{Explanation: e, Last: &streamer.Last{Streamer: "s3", Redirected: true, Elsewhere: true}}, err
	}
	return DeviceStatus{
		Now: time.Unix(100, 0), Explanation: e,
		Sessions: []Session{{VDisk: "debian", Version: 1, Streamer: "s2", Since: time.Unix(40, 0), Stall: 0.0421, StallAt: time.Unix(90, 0)}},
		Boots: []Boot{
			{Began: time.Unix(10, 0), Events: []site.Event{{At: time.Unix(10, 0), What: "discover"}}},
			{Began: time.Unix(20, 0), Events: []site.Event{{At: time.Unix(20, 0), What: "discover"}, {At: time.Unix(21, 5e8), What: "block", Detail: "<the first>"}}},
		},
	}, err
}

func (f *fakeBackend) Explain(who string) (Explanation, error) {
	if who == "" {
		return Explanation{}, errors.New("nobody was named")
	}
	return Explanation{Device: who}, nil
}

func (f *fakeBackend) Offer(q site.BootRequest) BootOffer {
	return BootOffer{Offer: site.Offer{File: fmt.Sprint(q.MAC, q.Client, q.Arch)}, Reason: site.Offered}
}

func (f *fakeBackend) Leases() []Lease {
	return []Lease{{Address: netip.MustParseAddr("198.18.0.100"), State: "bound"}}
}

func (f *fakeBackend) ReleaseLease(_ context.Context, addr netip.Addr) error {
	f.put["released"] = addr.String()
	return nil
}

func (f *fakeBackend) Put(_ context.Context, kind site.Kind, key string, value []byte) error {
	f.put[string(kind)+"/"+key] = string(value)
	return nil
}

func (f *fakeBackend) Delete(_ context.Context, kind site.Kind, key string) error {
	delete(f.put, string(kind)+"/"+key)
	return nil
}

func (f *fakeBackend) AwaitShown(_ context.Context, kind site.Kind, key string, value []byte) {
	f.put["shown"] = fmt.Sprintf("%s/%s=%s", kind, key, value)
}

func (f *fakeBackend) Rebalance(context.Context) (streamer.Rebalancing, error) {
	return streamer.Rebalancing{Moved: 3}, nil
}

func serve(t *testing.T, token string) (url string, backend *fakeBackend) {
	t.Helper()
	backend = &fakeBackend{put: map[string]string{}}
	announce := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusTeapot) })
	s, err := NewServer(Config{Listen: "127.0.0.1:0", Token: token, Announce: announce, Metrics: announce}, backend, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	<-s.Ready()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return "http://" + s.Addr().String(), backend
}

func TestEverythingButHealthzNeedsTheToken(t *testing.T) {
	const token = "0123456789abcdef"
	url, _ := serve(t, token)
	tests := []struct {
		method, path string
		open         bool
		code         int // with the token
	}{
		{"GET", "/healthz", true, 200},
		{"GET", "/", false, 200},
		{"GET", "/metrics", false, 418},
		{"GET", "/api/v1/status", false, 200},
		{"GET", "/api/v1/explain?who=t1", false, 200},
		{"GET", "/api/v1/explain", false, 400},
		{"GET", "/device?who=t1", false, 200},
		{"GET", "/api/v1/device?who=t1", false, 200},
		{"POST", "/api/v1/rebalance", false, 200},
		{"GET", "/api/v1/leases", false, 200},
		{"DELETE", "/api/v1/leases/198.18.0.100", false, 204},
		{"PUT", "/api/v1/devices/52:54:00:00:00:01", false, 204},
		{"DELETE", "/api/v1/devices/52:54:00:00:00:01", false, 204},
		{"POST", "/api/v1/streamers", false, 418},
		{"DELETE", "/api/v1/streamers/s1", false, 418},
		{"GET", "/nonsense", false, 404},
		{"POST", "/api/v1/status", false, 405},
	}
	for _, tt := range tests {
		for header, want := range map[string]int{"": 401, "Bearer wrong": 401, "Bearer " + token: tt.code} {
			if tt.open {
				want = tt.code
			}
			r, err := http.NewRequest(tt.method, url+tt.path, strings.NewReader("{}"))
			if err != nil {
				t.Fatal(err)
			}
			if header != "" {
				r.Header.Set("Authorization", header)
			}
			response, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			response.Body.Close()
			if response.StatusCode != want {
				t.Errorf("%s %s with %q: %d, want %d", tt.method, tt.path, header, response.StatusCode, want)
			}
		}
	}
}

func TestOtherSitesPagesCannotWrite(t *testing.T) {
	url, backend := serve(t, "")
	for name, value := range map[string]string{
		"Sec-Fetch-Site": "cross-site",
		"Origin":         "http://evil.example", // all that a browser says over plain HTTP
	} {
		r, err := http.NewRequest("PUT", url+"/api/v1/devices/x", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set(name, value)
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != http.StatusForbidden || len(backend.put) != 0 {
			t.Errorf("%s: %d, stored %v", name, response.StatusCode, backend.put)
		}
	}
}

func TestTheVIPIsReleasedOrTheReasonIsTold(t *testing.T) {
	var answer error
	s := &Server{cfg: Config{ReleaseVIP: func(context.Context) error { return answer }}}
	server := httptest.NewServer(s.routes())
	defer server.Close()
	c := Client{URL: server.URL}
	if err := c.ReleaseVIP(t.Context()); err != nil {
		t.Error(err)
	}
	answer = errors.New("nobody is there")
	if err := c.ReleaseVIP(t.Context()); err == nil || !strings.HasSuffix(err.Error(), "nobody is there") {
		t.Errorf("got %v", err)
	}
}

func TestClientSaysWhatTheApplianceSaid(t *testing.T) {
	url, backend := serve(t, "")
	c := Client{URL: url}
	c.More = true
	if err := c.Put(t.Context(), site.KindDevice, "52:54:00:00:00:02", site.Device{}); err != nil || backend.put["devices/52:54:00:00:00:02"] == "" || backend.put["shown"] != "" {
		t.Errorf("one of many: %v, %v", backend.put, err)
	}
	c.More = false
	if err := c.Delete(t.Context(), site.KindDevice, "52:54:00:00:00:02"); err != nil || backend.put["shown"] != "devices/52:54:00:00:00:02=" {
		t.Errorf("the last one of many: %v, %v", backend.put, err)
	}
	if err := c.Put(t.Context(), site.KindDevice, "52:54:00:00:00:01", site.Device{Name: "t1"}); err != nil || backend.put["devices/52:54:00:00:00:01"] == "" {
		t.Errorf("Put: %v, stored %v", err, backend.put)
	}
	if e, err := c.Explain(t.Context(), "t 1"); err != nil || e.Device != "t 1" {
		t.Errorf("Explain: %+v, %v", e, err)
	}
	if _, err := c.Explain(t.Context(), ""); err == nil || !strings.Contains(err.Error(), "nobody was named") {
		t.Errorf("the appliance's own words are lost: %v", err)
	}
	var offer BootOffer
	if err := c.do(t.Context(), http.MethodGet, "/api/v1/offer?mac=52-54-00-00-00-01&client=pxe&arch=7", nil, &offer); err != nil || offer.Offer.File != "52:54:00:00:00:01pxe7" {
		t.Errorf("offer: %+v, %v", offer, err)
	}
	for _, q := range []string{"mac=nobody&client=pxe&arch=7", "mac=52:54:00:00:00:01&client=pxe&arch=65536"} {
		if err := c.do(t.Context(), http.MethodGet, "/api/v1/offer?"+q, nil, &offer); err == nil {
			t.Errorf("offer: %s is taken", q)
		}
	}
	nobody := Client{URL: "http://127.0.0.1:1"}
	if _, err := nobody.Status(t.Context()); err == nil || !strings.Contains(err.Error(), "is it running there?") {
		t.Errorf("nobody there: %v", err)
	}
}

// The page of a target says what somebody wants to know of it, the newest boot first, and nothing in it is HTML of others.
func TestDevicePage(t *testing.T) {
	url, _ := serve(t, "")
	response, err := http.Get(url + "/device?who=t1")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	page, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	rest := string(page)
	for _, want := range []string{"s2", "for 1m0s", "42ms, 10s ago", time.Unix(20, 0).Format("15:04:05.000"), "1.500 s", "&lt;the first&gt;", time.Unix(10, 0).Format("15:04:05.000")} {
		_, after, ok := strings.Cut(rest, want)
		if !ok {
			t.Fatalf("%q is not in, or not in its place of %s", want, page)
		}
		rest = after
	}
	if response, err = http.Get(url + "/device?who=redirected"); err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if page, err = io.ReadAll(response.Body); err != nil || !strings.Contains(string(page), "from s3") || !strings.Contains(string(page), "it was redirected") {
		t.Errorf("a redirected target's page: %v, %s", err, page)
	}
	if r, err := http.Get(url + "/device?who="); err != nil || r.StatusCode != http.StatusNotFound {
		t.Errorf("nobody's page: %v, %v", r, err)
	}
}

func TestPageEscapesWhatOthersSay(t *testing.T) {
	url, _ := serve(t, "")
	response, err := http.Get(url + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	page, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	text := string(page)
	if strings.Contains(text, "<script>") || !strings.Contains(text, "&lt;script&gt;") {
		t.Error("a streamer's words are HTML in the page")
	}
	if !strings.Contains(text, "<td>3</td><td>4</td><td>failed: mounted</td>") {
		t.Error("the page does not say which boot medium a target has")
	}
}

func TestLeases(t *testing.T) {
	url, backend := serve(t, "")
	c := Client{URL: url}
	list, err := c.Leases(t.Context())
	if err != nil || len(list) != 1 || list[0].State != "bound" {
		t.Fatalf("%v %v", list, err)
	}
	if err := c.ReleaseLease(t.Context(), list[0].Address); err != nil || backend.put["released"] != "198.18.0.100" {
		t.Errorf("%v, released %q", err, backend.put["released"])
	}
}
