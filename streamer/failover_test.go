package streamer_test

import (
	"net/netip"
	"testing"
	"time"

	"everboot/site"
	"everboot/streamer"
)

func TestDeadStreamerClosesSessionAtOnce(t *testing.T) {
	f := newFleet(t, streamer.DirectorConfig{})
	_, kill1 := f.add("s1")
	s, _ := f.mustLogin(t1)
	f.add("s2")
	kill1()
	start := time.Now()
	_, err := s.ReadBlocks(t.Context(), 0, 1) // by its silence alone it would take longer than 350 ms
	if err == nil || time.Since(start) > 300*time.Millisecond {
		t.Errorf("error %v after %v, want one at once", err, time.Since(start))
	}
	again, name := f.mustLogin(t1) // the view still says that s1 is up
	if name != "s2" {
		t.Errorf("served by %s", name)
	}
	if took := time.Since(start); took > time.Second {
		t.Errorf("back after %v", took)
	}
	if _, err := again.ReadBlocks(t.Context(), 0, 1); err != nil {
		t.Error(err)
	}
	if !f.saw("failover", "from s1 to s2") || f.director.Sessions()[0].Failovers != 1 {
		t.Errorf("events %v, sessions %+v", f.events, f.director.Sessions())
	}
	eventually(t, "the stall is known", func() bool { s := f.director.Sessions()[0]; return s.Stall > 0 && s.StallAt.After(start) })
}

func TestUpdateClosesSessionsOfWhatIsDown(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(f *fleet)
	}{
		{"down", func(f *fleet) { f.set("s1", health(site.Down)) }},
		{"gone", func(f *fleet) { f.change(func(v *site.View) { delete(v.Streamers, "s1") }) }},
		{"draining", func(f *fleet) { f.set("s1", func(s *site.Streamer) { s.State = site.Draining }) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFleet(t, streamer.DirectorConfig{})
			f.add("s1")
			s, _ := f.mustLogin(t1)
			tt.change(f)
			if _, err := s.ReadBlocks(t.Context(), 0, 1); err != nil {
				t.Fatalf("closed although nobody else could serve it: %v", err)
			}
			f.add("s2")
			eventually(t, "the end of the session", func() bool { return len(f.director.Sessions()) == 0 })
			if _, err := s.ReadBlocks(t.Context(), 0, 1); err == nil {
				t.Error("the session still reads")
			}
			if _, name := f.mustLogin(t1); name != "s2" {
				t.Errorf("served by %s", name)
			}
		})
	}
}

func TestUpdateClosesSessionsOfAReplicaThatIsAnotherNow(t *testing.T) {
	f := newFleet(t, streamer.DirectorConfig{})
	f.add("s1")
	s, _ := f.mustLogin(t1)
	f.add("s2")
	f.set("s1", func(s *site.Streamer) {
		s.Replicas = []site.Replica{{VDisk: "debian", Version: 1, Digest: "f" + digest[1:]}}
	})
	eventually(t, "the end of the session", func() bool { return f.saw("closed", "replica is another") })
	if _, err := s.ReadBlocks(t.Context(), 0, 1); err == nil {
		t.Error("the session still reads")
	}
	if _, name := f.mustLogin(t1); name != "s2" {
		t.Errorf("served by %s", name)
	}
}

// TestStreamerThatHangsIsLeft: its kernel takes every byte and its program answers pings, but a request gets no answer.
func TestStreamerThatHangsIsLeft(t *testing.T) {
	f := newFleet(t, streamer.DirectorConfig{})
	hanging, _ := f.add("s1")
	s, _ := f.mustLogin(t1)
	hanging.Hang = make(chan struct{})
	defer close(hanging.Hang)
	f.add("s2")
	start := time.Now()
	if _, err := s.ReadBlocks(t.Context(), 0, 1); err == nil || time.Since(start) < 2*time.Second || time.Since(start) > 5*time.Second {
		t.Errorf("the request ends with %v after %v", err, time.Since(start))
	}
	again, name := f.mustLogin(t1)
	if name != "s2" || !f.saw("failover", "did not answer a request") {
		t.Errorf("served by %s; events %v", name, f.events)
	}
	if f.director.Sessions()[0].Stall != 0 {
		t.Error("the stall ended before the first block came")
	}
	if _, err := again.ReadBlocks(t.Context(), 0, 1); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the block is told", func() bool { return f.saw("block", "from s2, after a stall of ") })
	last, _ := f.director.Last(t1)
	if waited := time.Since(start); last.Stall < 1900*time.Millisecond || last.Stall > waited+jiffy {
		t.Errorf("a stall of %v; it waited for %v", last.Stall, waited)
	}
}

// jiffy is how far the kernel's times of a connection can be off.
const jiffy = 20 * time.Millisecond

func TestTargetsSpreadOverAStreamersNICs(t *testing.T) {
	f := newFleet(t, streamer.DirectorConfig{})
	first, _ := f.add("s1")
	one := f.view.Load().Streamers["s1"].Addresses[0]
	second, _ := f.add("s1") // of the same name, at another port
	f.set("s1", func(s *site.Streamer) {
		s.Networks = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("198.18.0.0/24")}
		s.Addresses = append(s.Addresses, one)
	})
	for i := range 6 {
		mac := t1
		mac[5] = byte(i + 1)
		f.mustLogin(mac)
	}
	if first.DeviceLogins() != 3 || second.DeviceLogins() != 3 {
		t.Errorf("%d and %d of 6 logins", first.DeviceLogins(), second.DeviceLogins())
	}
	f.change(func(v *site.View) {
		d := v.VDisks["debian"]
		d.Affinity = site.BestEffort
		v.VDisks = map[string]site.VDisk{"debian": d}
	})
	for i := range 4 {
		mac := t1
		mac[5] = byte(i + 10)
		f.mustLogin(mac)
	}
	if first.DeviceLogins() != 3 || second.DeviceLogins() != 7 {
		t.Errorf("%d and %d of 10 logins, want 3 and 7: the latter is in the targets' subnet", first.DeviceLogins(), second.DeviceLogins())
	}
}
