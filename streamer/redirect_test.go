package streamer_test

import (
	"errors"
	"testing"

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
