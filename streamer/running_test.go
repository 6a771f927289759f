package streamer_test

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"everboot/internal/iscsi"
	"everboot/site"
	"everboot/streamer"
)

// TestDeviceThatWasGivenAnotherVDiskFailsOver: initiators take a refusal as final, so what a device runs stays admitted until it boots again.
func TestDeviceThatWasGivenAnotherVDiskFailsOver(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(v *site.View)
	}{
		{"another vDisk", func(v *site.View) { v.Devices = map[site.MAC]site.Device{t1: {MAC: t1, VDisk: "windows"}} }},
		{"removed", func(v *site.View) { v.Devices = nil }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFleet(t, streamer.DirectorConfig{})
			_, kill := f.add("s1")
			f.mustLogin(t1)
			f.change(tt.change)
			f.add("s2")
			kill()
			if _, name := f.mustLogin(t1); name != "s2" {
				t.Errorf("served by %s", name)
			}
			f.end()
			after := newFleet(t, streamer.DirectorConfig{}) // another appliance, or this one after a restart
			after.add("s2")
			after.change(tt.change)
			if _, err := after.login(t1); err == nil {
				t.Error("a director that knows nothing of it admits it")
			}
			after.director.PeerMerge("a", f.director.PeerWhole())
			after.mustLogin(t1)
			if !after.saw("failover", "after its appliance stopped") {
				t.Errorf("events: %v", after.events)
			}
		})
	}
}

func TestDirectorsTellEachOtherWhatDevicesRun(t *testing.T) {
	other := newFleet(t, streamer.DirectorConfig{})
	other.add("s1")
	f := newFleet(t, streamer.DirectorConfig{Tell: func(message []byte) { other.director.PeerChanged("a", message) }})
	f.add("s1")
	f.mustLogin(t1)
	other.change(func(v *site.View) { v.Devices = nil })
	other.mustLogin(t1)
	for _, bad := range []string{"", "\x02[]", "\x01{", "\x01[{}]", "\x01[{\"mac\":\"52:54:00:00:00:09\",\"target\":\"x\"}]"} {
		other.director.PeerChanged("b", []byte(bad))
	}
	if n := strings.Count(string(other.director.PeerWhole()), "mac"); n != 1 {
		t.Errorf("%d devices are known to run something, want 1: %s", n, other.director.PeerWhole())
	}
}

func FuzzPeerChanged(f *testing.F) {
	f.Add([]byte("\x01[{\"mac\":\"52:54:00:00:00:01\",\"target\":\"" + target + "\",\"since\":\"2026-11-25T18:00:00Z\"}]"))
	f.Add([]byte("\x02[]"))
	f.Fuzz(func(t *testing.T, message []byte) {
		view := func() *site.View { return site.Empty("berlin", "embedded") }
		d, err := streamer.NewDirector(streamer.DirectorConfig{}, view, func(site.Event) {}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		d.PeerChanged("a", message)
		whole := d.PeerWhole()
		d.PeerMerge("a", whole)
		if again := d.PeerWhole(); len(again) != len(whole) {
			t.Errorf("%s becomes %s", whole, again)
		}
	})
}

// TestStopTellsLoginsToComeBack: a connection that is reset before its first PDU can hang open-iscsi, so a director that stops still
// answers who has connected.
func TestStopTellsLoginsToComeBack(t *testing.T) {
	f := newFleet(t, streamer.DirectorConfig{Hold: 10 * time.Second})
	conns := make([]net.Conn, 2)
	for i := range conns {
		conn, err := net.Dial("tcp", f.address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conns[i] = conn
	}
	conns[0].Write(firstPDU(target))
	eventually(t, "the login is held", func() bool { return f.director.Stats().Holding == 1 })
	f.stop()
	conns[1].Write(firstPDU(target))
	for i, conn := range conns {
		conn.SetDeadline(time.Now().Add(5 * time.Second))
		p, err := iscsi.ReadPDU(conn, iscsi.MaxLoginData)
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		if answer, err := iscsi.ParseLoginResponse(p); err != nil || answer.Status != iscsi.StatusUnavailable {
			t.Errorf("connection %d is answered %v, %v", i, answer.Status, err)
		}
	}
}

// TestOthersKeepNoDeviceOut: who names a device and does not prove it, or may not log in, takes none of its few places.
func TestOthersKeepNoDeviceOut(t *testing.T) {
	for _, tt := range []struct {
		name, method string // that the others offer
		chap, holder bool   // what is wrong with them: they prove nothing, or come from another device's address
	}{
		{"silent", "CHAP", true, false},
		{"no CHAP", "None", true, false},
		{"another's address", "None", false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var good atomic.Bool
			f := newFleet(t, streamer.DirectorConfig{
				CHAP: func(site.MAC) (streamer.CHAP, bool) { return streamer.CHAP{}, tt.chap && !good.Load() },
				Who: func(netip.Addr) site.MAC {
					if tt.holder && !good.Load() {
						return site.MAC{2}
					}
					return site.MAC{}
				},
			})
			f.add("s1")
			keys := iscsi.Keys{
				{Name: "InitiatorName", Value: site.InitiatorName(t1)}, {Name: "TargetName", Value: target}, {Name: "AuthMethod", Value: tt.method},
			}
			for range 4 {
				conn, err := net.Dial("tcp", f.address)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				conn.Write(iscsi.LoginRequest{Transit: true, Next: iscsi.StageOperational, Data: keys.Append(nil)}.PDU().Append(nil))
				if _, err := iscsi.ReadPDU(conn, iscsi.MaxLoginData); err != nil { // it is answered, and goes on no further
					t.Fatal(err)
				}
			}
			good.Store(true)
			f.mustLogin(t1)
		})
	}
}

func TestLoginFromAnotherDevicesAddress(t *testing.T) {
	owner := site.MAC{2}
	f := newFleet(t, streamer.DirectorConfig{Who: func(netip.Addr) site.MAC { return owner }})
	f.add("s1")
	_, err := f.login(t1)
	var refused *iscsi.LoginError
	if !errors.As(err, &refused) || refused.Status != iscsi.StatusAuthorization || !f.saw("refused", string(site.NotItsAddress)) {
		t.Errorf("got %v", err)
	}
	owner = t1
	f.mustLogin(t1)
}

// TestNobodyTakesARunningDevicesSession: that a device runs its target admits it, not another device that names it.
func TestNobodyTakesARunningDevicesSession(t *testing.T) {
	f := newFleet(t, streamer.DirectorConfig{Who: func(from netip.Addr) site.MAC {
		if from == netip.MustParseAddr("127.0.0.2") {
			return site.MAC{2}
		}
		return site.MAC{}
	}})
	f.add("s1")
	s, _ := f.mustLogin(t1)
	cfg := f.config(t1)
	cfg.Dial = (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}).DialContext
	other, err := iscsi.Dial(t.Context(), f.address, cfg)
	if err == nil {
		other.Close()
	}
	var refused *iscsi.LoginError
	if !errors.As(err, &refused) || refused.Status != iscsi.StatusAuthorization {
		t.Errorf("another device at its own address is answered %v", err)
	}
	if _, err := s.ReadBlocks(t.Context(), 0, 1); err != nil {
		t.Errorf("the session that runs: %v", err)
	}
}
