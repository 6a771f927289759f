package consul_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"everboot/internal/lab"
	"everboot/internal/lab/consulagent"
	"everboot/site"
	"everboot/site/consul"
)

func TestConsulObjectsAndStreamers(t *testing.T) {
	l := lab.ForTest(t)
	agent := consulagent.Start(t, l.Host("c1"))
	w := watch(t, agent)
	w.wait("the empty content is told", func(got told) bool { return got.about.Reachable && got.about.Kind == "consul" })

	t.Run("objects", func(t *testing.T) {
		begin := time.Now()
		w.put(site.KindDevice, mac1, `{"mac":"`+mac1+`","name":"t1"}`)
		got := w.wait("the device is told", func(got told) bool { return len(got.content.Devices) == 1 && got.content.Devices[0].Name == "t1" })
		t.Logf("put to told: %v", got.at.Sub(begin))
		for key, name := range map[string]string{mac1: "", "52:54:00:00:00:0b": "t2"} { // only what is not there is added
			if err := w.Add(t.Context(), site.KindDevice, key, []byte(`{"mac":"`+key+`","name":"`+name+`"}`)); err != nil {
				t.Fatal(err)
			}
		}
		w.wait("the other device is told", func(got told) bool {
			d := got.content.Devices
			return len(d) == 2 && (d[0].Name == "t1" && d[1].Name == "t2" || d[0].Name == "t2" && d[1].Name == "t1")
		})
		if err := w.Delete(t.Context(), site.KindDevice, "52:54:00:00:00:0b"); err != nil {
			t.Fatal(err)
		}
		w.put(site.KindCollection, "lab", `{"name":"lab"}`)
		w.put(site.KindVDisk, "debian", `{"name":"debian","versions":[{"number":1}]}`)
		w.wait("all are told", func(got told) bool { return len(got.content.Collections) == 1 && len(got.content.VDisks) == 1 })
		if err := w.Put(t.Context(), site.KindVDisk, "debian", []byte(`{"name":"other"}`)); err == nil {
			t.Error("a bad object was taken")
		}
		if err := w.Delete(t.Context(), site.KindVDisk, "debian"); err != nil {
			t.Fatal(err)
		}
		w.wait("the vDisk is gone", func(got told) bool { return len(got.content.VDisks) == 0 && len(got.content.Devices) == 1 })
		if err := w.Delete(t.Context(), "leases", "x"); err == nil {
			t.Error("a kind that is none was deleted")
		}
		if err := w.Delete(t.Context(), site.KindDevice, "52-54-00-00-00-0A"); err == nil {
			t.Error("a device was deleted by a key that it has not")
		}
	})

	t.Run("malformed keys are left out", func(t *testing.T) {
		kv := client(t, agent).KV()
		for _, key := range []string{"devices/x", "devices/", "streamers/s9", "streamer-states/s9"} {
			if _, err := kv.Put(&api.KVPair{Key: "everboot/berlin/" + key, Value: []byte(`{"half`)}, nil); err != nil {
				t.Fatal(err)
			}
		}
		w.put(site.KindVDisk, "fine", `{"name":"fine"}`)
		got := w.wait("the good key is told and the bad ones are named", func(got told) bool {
			return len(got.content.VDisks) == 1 && strings.Contains(got.about.Error, "3 keys left out")
		})
		if !got.about.Reachable || len(got.content.Devices) != 1 {
			t.Errorf("told %+v", got)
		}
		t.Log(got.about.Error)
		for _, key := range []string{"devices/x", "streamers/s9", "streamer-states/s9"} {
			if _, err := kv.Delete("everboot/berlin/"+key, nil); err != nil {
				t.Fatal(err)
			}
		}
		w.wait("the warning is gone", func(got told) bool { return got.about.Error == "" })
	})

	t.Run("a streamer announces itself, drains, resumes and withdraws", func(t *testing.T) {
		r, me := registrar(t, agent), streamer("s1")
		announce := func(want site.StreamerState) {
			t.Helper()
			if err := lab.Eventually(timeout, "the streamer hears "+string(want), func() error {
				got, err := r.Announce(t.Context(), me)
				if err == nil && got != want {
					err = fmt.Errorf("wanted: %s", got)
				}
				return err
			}); err != nil {
				t.Fatal(err)
			}
			me.State = want
		}
		announce(site.Active)
		got := w.wait("the streamer is told", streamers("s1=active/0"))
		if s := got.content.Streamers[0]; len(s.Replicas) != 1 || s.Replicas[0] != me.Replicas[0] {
			t.Errorf("told %+v", s)
		}
		w.put(site.KindStreamerState, "s1", `"draining"`)
		w.wait("it drains", streamers("s1=draining/0"))
		announce(site.Draining)
		if err := w.Delete(t.Context(), site.KindStreamerState, "s1"); err != nil {
			t.Fatal(err)
		}
		announce(site.Active)
		announce(site.Active)
		w.wait("it is active", streamers("s1=active/0"))
		services, _, err := client(t, agent).Health().Service("everboot-streamer", "", true, nil)
		if err != nil || len(services) != 1 || services[0].Service.Address != "198.18.0.21" || services[0].Service.Meta["site"] != "berlin" {
			t.Errorf("services: %+v (%v)", services, err)
		}
		if err := r.Withdraw(t.Context(), "s1"); err != nil {
			t.Fatal(err)
		}
		w.wait("it is gone", streamers(""))
	})

	t.Run("the content is told only when it changes", func(t *testing.T) {
		before := len(w.all())
		w.put(site.KindDevice, mac1, `{"name":"t1", "mac":"`+mac1+`"}`) // the same in other words
		w.put(site.KindVDisk, "last", `{"name":"last"}`)
		w.wait("the last is told", func(got told) bool { return len(got.content.VDisks) == 2 })
		if n := len(w.all()) - before; n != 1 {
			t.Errorf("told %d times, want once", n)
		}
	})

	t.Run("a folder that vanished is told as it is", func(t *testing.T) {
		if _, err := client(t, agent).KV().DeleteTree("everboot/", nil); err != nil {
			t.Fatal(err)
		}
		w.wait("all is gone", func(got told) bool {
			return got.about.Reachable && len(got.content.Devices)+len(got.content.VDisks)+len(got.content.Collections) == 0
		})
	})
}

func TestConsulRegistrar(t *testing.T) {
	l := lab.ForTest(t)
	agent := consulagent.Start(t, l.Host("c1"))
	w := watch(t, agent)
	kv := client(t, agent).KV()
	key := "everboot/berlin/streamers/s1"
	pair := func() *api.KVPair {
		t.Helper()
		p, _, err := kv.Get(key, nil)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	repeat := func(r *consul.Registrar, s site.Streamer, d time.Duration) {
		t.Helper()
		for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
			if _, err := r.Announce(t.Context(), s); err != nil {
				t.Fatal(err)
			}
		}
	}

	first, me := registrar(t, agent), streamer("s1")
	repeat(first, me, 5*time.Second) // more than twice the TTL
	w.wait("the streamer is told", streamers("s1=active/0"))
	written := pair()
	if written == nil || written.ModifyIndex != written.CreateIndex {
		t.Fatalf("an announcement that does not change was written again: %+v", written)
	}

	// Sessions change with each announcement: written at once, then no more than every 5 s.
	index, writes := written.ModifyIndex, 0
	for i := range 70 {
		me.Sessions = i + 1
		repeat(first, me, 90*time.Millisecond)
		if p := pair(); p.ModifyIndex != index {
			index, writes = p.ModifyIndex, writes+1
		}
	}
	if writes < 1 || writes > 3 {
		t.Errorf("70 counts of sessions in 7 s were written %d times", writes)
	}
	me.Power = 2 // anything else at once
	repeat(first, me, 50*time.Millisecond)
	if p := pair(); p.ModifyIndex == index || !strings.Contains(string(p.Value), `"power":2`) {
		t.Error("a change of power was not written at once")
	}

	// Somebody deletes the key: it comes back, and the content does not miss it since the service is there.
	if _, err := kv.Delete(key, nil); err != nil {
		t.Fatal(err)
	}
	repeat(first, me, 2*time.Second)
	if pair() == nil {
		t.Error("a key that was deleted does not come back")
	}
	for _, got := range w.all() {
		if len(got.content.Streamers) == 0 && got.at.After(w.all()[0].at.Add(3*time.Second)) {
			t.Error("the streamer left the content though its service was there")
		}
	}

	// The streamer dies and starts again before Consul noticed: the key is its own.
	second := registrar(t, agent)
	repeat(second, me, 200*time.Millisecond)
	// One elsewhere with the same name is refused.
	other := streamer("s1")
	other.Addresses = []netip.AddrPort{netip.MustParseAddrPort("198.18.0.22:3260")}
	if _, err := registrar(t, agent).Announce(t.Context(), other); err == nil || !strings.Contains(err.Error(), "one of this name is at 198.18.0.21:3260") {
		t.Errorf("another streamer of the same name: %v", err)
	}
	if _, err := second.Announce(t.Context(), streamer("s2")); err == nil {
		t.Error("one registrar announces two streamers")
	}
	wrong := streamer("s1")
	wrong.Site = "paris"
	if _, err := second.Announce(t.Context(), wrong); err == nil {
		t.Error("a streamer of another site was announced")
	}

	// It dies for good: the session ends, the key and the streamer go.
	begin := time.Now()
	w.wait("the dead streamer is gone", streamers(""))
	t.Logf("gone %v after its last word, with a TTL of 2s", time.Since(begin))
	if p := pair(); p != nil {
		t.Errorf("its key is still there: %s", p.Value)
	}
}

// TestConsulPages: what an appliance writes down of its leases comes back as it was, and each beat is seen as a new one.
func TestConsulPages(t *testing.T) {
	l := lab.ForTest(t)
	agent := consulagent.Start(t, l.Host("c1"))
	r, err := consul.New(config(t, agent))
	if err != nil {
		t.Fatal(err)
	}
	ctx, a, b := t.Context(), netip.MustParseAddr("198.18.0.2"), netip.MustParseAddr("198.18.0.20") // whose name begins as the other's
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	if n, err := r.Beats(ctx, a); n != 0 || err != nil {
		t.Errorf("before the first beat: %d, %v", n, err)
	}
	large := []byte(strings.Repeat("\x00\xff", 200<<10))
	must(r.PutPage(ctx, a, "198.18.0.0", large))
	must(r.PutPage(ctx, a, "198.18.4.0", []byte("x")))
	must(r.PutPage(ctx, a, "198.18.4.0", nil))
	must(r.PutPage(ctx, b, "198.18.8.0", []byte("y")))
	var last uint64
	for range 2 {
		must(r.Beat(ctx, a, time.Now()))
		n, err := r.Beats(ctx, a)
		if err != nil || n <= last {
			t.Errorf("a beat: %d after %d, %v", n, last, err)
		}
		last = n
	}
	pages, err := r.Pages(ctx, a)
	if err != nil || len(pages) != 1 || string(pages["198.18.0.0"]) != string(large) {
		t.Errorf("%d pages, %v", len(pages), err)
	}
	w := watch(t, agent)
	if got := w.wait("the site is told", func(got told) bool { return got.about.Reachable }); got.about.Error != "" || len(got.content.Devices) > 0 {
		t.Errorf("leases are content: %+v", got)
	}
	if err := r.PutPage(ctx, a, "198.18.0.0", make([]byte, 600<<10)); err == nil {
		t.Error("a value of 600 KiB was taken")
	}
}
