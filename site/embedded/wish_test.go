package embedded

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"everboot/site"
)

func TestNewerWish(t *testing.T) {
	for _, tt := range []struct {
		w, old Wish
		want   bool
	}{
		{Wish{site.Active, 2}, Wish{site.Draining, 1}, true},
		{Wish{site.Active, 1}, Wish{site.Draining, 2}, false},
		{Wish{site.Draining, 1}, Wish{site.Active, 1}, true},
		{Wish{site.Active, 1}, Wish{site.Draining, 1}, false},
		{Wish{site.Active, 1}, Wish{site.Active, 1}, false},
		{Wish{site.Active, 1}, Wish{}, true},
	} {
		if got := tt.w.newer(tt.old); got != tt.want {
			t.Errorf("%v newer than %v: %v", tt.w, tt.old, got)
		}
	}
}

func TestSaidLaterWinsWhateverTheClocksSay(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	fixed, err := newStatic(site.Content{}, "berlin", "")
	if err != nil {
		t.Fatal(err)
	}
	a := state{fixed: fixed, live: map[string]announced{}, ttl: DefaultTTL}
	b := state{fixed: fixed, live: map[string]announced{}, ttl: DefaultTTL}
	// A's clock is an hour ahead and says drain; the streamer tells B, where the operator says resume.
	ahead := now.Add(time.Hour)
	if err := a.put(ahead, site.KindStreamerState, "s1", []byte(`"draining"`)); err != nil {
		t.Fatal(err)
	}
	wish, err := a.announce(ahead, announcement{Streamer: streamer("s1")})
	if err != nil || wish.State != site.Draining {
		t.Fatal(wish, err)
	}
	if wish, err = b.announce(now, announcement{Streamer: streamer("s1"), Follows: &wish}); err != nil || wish.State != site.Draining {
		t.Fatal(wish, err)
	}
	if got := names(b.content().Streamers); got != "s1=draining" {
		t.Errorf("B's content: %s", got)
	}
	if err := b.remove(now, site.KindStreamerState, "s1"); err != nil { // to delete is to resume
		t.Fatal(err)
	}
	if wish, err = b.announce(now, announcement{Streamer: streamer("s1"), Follows: &wish}); err != nil || wish.State != site.Active {
		t.Fatal(wish, err)
	}
	if wish, err = a.announce(ahead, announcement{Streamer: streamer("s1"), Follows: &wish}); err != nil || wish.State != site.Active {
		t.Errorf("A holds on to %v (%v)", wish, err)
	}
}

func TestWishFromTheFutureIsNotTaken(t *testing.T) {
	now := time.Now()
	fixed, _ := newStatic(site.Content{}, "berlin", "")
	s := state{fixed: fixed, live: map[string]announced{}, ttl: DefaultTTL}
	wish, err := s.announce(now, announcement{Streamer: streamer("s1"), Follows: &Wish{site.Draining, now.Add(48 * time.Hour).UnixMilli()}})
	if err != errFuture || wish.State != "" {
		t.Errorf("got %v, %v", wish, err)
	}
	if got := names(s.content().Streamers); got != "s1=active" {
		t.Errorf("content: %s", got)
	}
}

// TestDrainReachesTheOtherAppliance is the whole way: said at A, carried by the streamer, kept by B.
func TestDrainReachesTheOtherAppliance(t *testing.T) {
	var addresses []string
	var registries []*Registry
	dirs := []string{t.TempDir(), t.TempDir()}
	var changes []<-chan told
	for _, dir := range dirs {
		r, c := start(t, Config{Dir: dir})
		server := httptest.NewServer(r.Handler())
		t.Cleanup(server.Close)
		addresses, registries, changes = append(addresses, server.URL), append(registries, r), append(changes, c)
	}
	client, err := NewClient(ClientConfig{Addresses: addresses})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	me := streamer("s1")
	announce := func(want site.StreamerState) {
		t.Helper()
		got, err := client.Announce(t.Context(), me)
		if err != nil || got != want {
			t.Fatalf("wanted: got %s (%v), want %s", got, err, want)
		}
		me.State = got
	}
	announce(site.Active)
	if err := registries[0].Put(t.Context(), site.KindStreamerState, "s1", []byte(`"draining"`)); err != nil {
		t.Fatal(err)
	}
	announce(site.Draining) // A tells the streamer
	announce(site.Draining) // which tells B
	for i, c := range changes {
		var last told
		for len(c) > 0 {
			last = <-c
		}
		if got := names(last.content.Streamers); got != "s1=draining" {
			t.Errorf("appliance %d: %s", i, got)
		}
		if o, _, err := (file{dirs[i]}).load(); err != nil || o.Wishes["s1"].State != site.Draining {
			t.Errorf("appliance %d keeps %v (%v)", i, o.Wishes, err)
		}
	}
	if err := registries[1].Put(t.Context(), site.KindStreamerState, "s1", []byte(`"active"`)); err != nil {
		t.Fatal(err)
	}
	announce(site.Active)
	announce(site.Active)
	if err := client.Withdraw(t.Context(), "s1"); err != nil {
		t.Fatal(err)
	}
	for i, c := range changes {
		var log []string
		for len(c) > 0 {
			log = append(log, names((<-c).content.Streamers))
		}
		if n := len(log); n < 2 || log[n-2] != "s1=active" || log[n-1] != "" {
			t.Errorf("appliance %d: %q", i, log)
		}
	}
}

func TestClientNeedsOneAppliance(t *testing.T) {
	r, _ := start(t, Config{})
	var token string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		token = req.Header.Get("Authorization")
		r.Handler().ServeHTTP(w, req)
	}))
	t.Cleanup(server.Close)
	gone := httptest.NewServer(http.NotFoundHandler())
	address := gone.URL
	gone.Close()
	silent := make(chan struct{})
	hole := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) { <-silent }))
	t.Cleanup(func() { close(silent); hole.Close() })
	client, err := NewClient(ClientConfig{Addresses: []string{address, hole.URL, server.URL}, Token: "secret", Timeout: 300 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	if wanted, err := client.Announce(t.Context(), streamer("s1")); err != nil || wanted != site.Active {
		t.Errorf("got %s, %v", wanted, err)
	}
	if token != "Bearer secret" {
		t.Errorf("token %q", token)
	}
	lonely, err := NewClient(ClientConfig{Addresses: []string{address}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(lonely.Close)
	if _, err := lonely.Announce(t.Context(), streamer("s1")); err == nil {
		t.Error("an announcement that nobody took is no error")
	}
	if err := lonely.Withdraw(t.Context(), "s1"); err == nil {
		t.Error("a withdrawal that nobody heard is no error")
	}
	wrong := streamer("s1")
	wrong.Site = "paris"
	if _, err := client.Announce(t.Context(), wrong); err == nil {
		t.Error("another site's announcement was taken")
	} else {
		t.Log(err)
	}
}

func TestClientConfigIsChecked(t *testing.T) {
	for _, addresses := range [][]string{
		nil, {""}, {"198.18.0.2:8667"}, {"ftp://198.18.0.2"}, {"http://198.18.0.2:8667/api"}, {"http://u:p@198.18.0.2"}, {"http://a", "http://a/"},
	} {
		if _, err := NewClient(ClientConfig{Addresses: addresses}); err == nil {
			t.Errorf("addresses %q were taken", addresses)
		}
	}
	if _, err := NewClient(ClientConfig{Addresses: []string{"http://a"}, Timeout: -1}); err == nil {
		t.Error("a negative timeout was taken")
	}
}
