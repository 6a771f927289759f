package streamer_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"everboot/internal/iscsi"
	"everboot/site"
	"everboot/streamer"
)

var (
	openISCSI = [6]byte{0x00, 0x02, 0x3d, 0x01, 0x02, 0x03}
	iPXE      = [6]byte{0x40, 0x00, 0x27, 0x23, 0x01, 0x02}
)

// ask logs in as somebody, and returns where it is sent; empty: the session goes through the director.
func (f *fleet) ask(mac site.MAC, isid [6]byte) string {
	f.t.Helper()
	c := f.config(mac)
	c.ISID = isid
	s, err := iscsi.Dial(f.t.Context(), f.address, c)
	var moved *iscsi.LoginError
	switch {
	case err == nil:
		f.t.Cleanup(func() { s.Close() })
		return ""
	case errors.As(err, &moved) && moved.Status == iscsi.StatusMovedTemporarily:
		return moved.Address
	}
	f.t.Fatal(err)
	return ""
}

// iPXE would write the streamer's address into the iBFT, and nobody knows what others do: only open-iscsi is sent away, if the site says so.
func TestWhoIsRedirected(t *testing.T) {
	for _, tt := range []struct {
		name     string
		redirect bool
		isid     [6]byte
		sent     bool
	}{
		{"open-iscsi", true, openISCSI, true},
		{"open-iscsi, where it is not wanted", false, openISCSI, false},
		{"iPXE", true, iPXE, false},
		{"another", true, [6]byte{0x80, 1, 2, 3}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFleet(t, streamer.DirectorConfig{Redirect: tt.redirect})
			f.add("s1")
			want, sessions := "", 1
			if tt.sent {
				want, sessions = f.view.Load().Streamers["s1"].Addresses[0].String(), 0
			}
			if got := f.ask(t1, tt.isid); got != want {
				t.Errorf("sent to %q, want %q", got, want)
			}
			last, ok := f.director.Last(t1)
			if !ok || last.Redirected != tt.sent || last.Streamer != "s1" || f.saw("redirect", "to s1 at "+want) != tt.sent {
				t.Errorf("last %+v, events %v", last, f.events)
			}
			if s := f.director.Stats(); s.Sessions != sessions || s.Logins[site.Picked] != 1 || int(s.Redirects) != 1-sessions {
				t.Errorf("stats %+v", s)
			}
		})
	}
}

// One that is back at once cannot reach its streamer, or has lost it: to send it there again would go on for ever.
func TestRedirectedInitiatorThatComesBackIsForwarded(t *testing.T) {
	f := newFleet(t, streamer.DirectorConfig{Redirect: true})
	_, kill := f.add("s1")
	if f.ask(t1, openISCSI) == "" {
		t.Fatal("it is forwarded at first")
	}
	f.add("s2")
	kill()
	if to := f.ask(t1, openISCSI); to != "" {
		t.Errorf("sent to %s again", to)
	}
	if last, _ := f.director.Last(t1); last.Redirected || last.Streamer != "s2" || last.Failovers != 1 || !f.saw("failover", "from s1 to s2 which it was redirected to") {
		t.Errorf("last %+v, events %v", last, f.events)
	}
}

// The firmware's session is another one: it still loads the system that is sent away.
func TestRedirectEndsNoOtherSession(t *testing.T) {
	f := newFleet(t, streamer.DirectorConfig{Redirect: true})
	f.add("s1")
	if f.ask(t1, iPXE) != "" || f.ask(t1, openISCSI) == "" {
		t.Fatal("firmware is sent away, or the system is not")
	}
	if n := len(f.director.Sessions()); n != 1 {
		t.Errorf("%d sessions, want the firmware's", n)
	}
	if last, _ := f.director.Last(t1); last.Failovers != 0 {
		t.Errorf("the system's login counts as a failover: %+v", last)
	}
}

// roam plays an initiator that goes wherever it is redirected to, and comes back to the director whenever it loses that one. The returned function says which
// streamer it reads from.
func (f *fleet) roam(mac site.MAC) (from func() string) {
	ctx, cancel := context.WithCancel(f.t.Context())
	var done sync.WaitGroup
	var serial atomic.Value
	serial.Store("")
	f.t.Cleanup(func() { cancel(); done.Wait() })
	done.Go(func() {
		c := f.config(mac)
		c.ISID = openISCSI
		for ctx.Err() == nil {
			s, err := iscsi.Dial(ctx, f.address, c)
			if moved := new(iscsi.LoginError); errors.As(err, &moved) {
				s, err = iscsi.Dial(ctx, moved.Address, c)
			}
			if err != nil {
				continue
			}
			for err == nil {
				var page []byte
				if page, err = s.InquiryPage(ctx, 0x80); err == nil {
					serial.Store(string(page[4:]))
				}
			}
			s.Close()
			serial.Store("")
		}
	})
	return func() string { return serial.Load().(string) }
}

// A streamer that drains is left by those that it was told to send away, too, and they are redirected again: that they are back soon is not their fault.
func TestDrainOfRedirected(t *testing.T) {
	f := newFleet(t, streamer.DirectorConfig{Redirect: true, DialTimeout: 10 * time.Second})
	f.add("s1")
	from := f.roam(t1)
	eventually(t, "it streams from s1", func() bool { return from() == "s1" })
	f.set("s1", func(s *site.Streamer) { s.State = site.Draining })
	time.Sleep(20 * time.Millisecond)
	if last, _ := f.director.Last(t1); last.Streamer != "s1" || !last.Redirected || f.saw("recalled", "") {
		t.Errorf("it was sent away from the only streamer: %+v", last)
	}
	f.add("s2")
	eventually(t, "it streams from s2", func() bool { return from() == "s2" })
	if last, _ := f.director.Last(t1); !last.Redirected || last.Streamer != "s2" || last.Failovers != 1 {
		t.Errorf("last %+v", last)
	}
	eventually(t, "the timeline says why", func() bool { return f.saw("recalled", "s1: the streamer is draining") }) // the target may be quicker
}

// Of redirected targets nobody hears when they are switched off: as many as the streamers announce are moved.
func TestRebalanceOfRedirected(t *testing.T) {
	const live = 6
	f := newFleet(t, streamer.DirectorConfig{Redirect: true, DialTimeout: 10 * time.Second, DrainPace: time.Millisecond})
	f.add("s1")
	device := func(i int) site.MAC { mac := t1; mac[5] = byte(i + 1); return mac }
	for i := range 4 { // they were there once
		f.ask(device(50+i), openISCSI)
	}
	var from []func() string
	for i := range live {
		from = append(from, f.roam(device(i)))
	}
	at := func(name string) (n int) {
		for _, f := range from {
			if f() == name {
				n++
			}
		}
		return n
	}
	eventually(t, "all stream from s1", func() bool { return at("s1") == live })
	f.set("s1", func(s *site.Streamer) { s.Sessions = live })
	f.add("s2")
	r, err := f.director.Rebalance(t.Context())
	if err != nil || r.Moved != live/2 || r.Left != 0 {
		t.Errorf("%+v, %v", r, err)
	}
	eventually(t, "half stream from s2", func() bool { return at("s1") == live/2 && at("s2") == live/2 })
}
