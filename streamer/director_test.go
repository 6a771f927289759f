package streamer_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"everboot/internal/iscsi"
	"everboot/internal/iscsi/iscsitest"
	"everboot/site"
	"everboot/streamer"
)

func TestSessionGoesThrough(t *testing.T) {
	f := newFleet(t, streamer.DirectorConfig{})
	f.add("s1")
	s, name := f.mustLogin(t1)
	if name != "s1" {
		t.Errorf("served by %s", name)
	}
	if b, err := s.ReadBlocks(t.Context(), 0, 64); err != nil || len(b) != 64*512 {
		t.Errorf("reading: %v", err)
	}
	eventually(t, "the first block is told", func() bool { return f.saw("block", "the first from s1") })
	list := f.director.Sessions()
	if len(list) != 1 || list[0].Device != t1 || list[0].Streamer != "s1" || list[0].BytesOut < 64*512 || list[0].BytesIn == 0 {
		t.Errorf("sessions: %+v", list)
	}
	if err := s.Logout(t.Context()); err != nil {
		t.Errorf("logout through the director: %v", err)
	}
	eventually(t, "the session's end", func() bool { return len(f.director.Sessions()) == 0 })
	if got := f.director.Stats(); got.Logins[site.Picked] != 1 || got.Failovers != 0 {
		t.Errorf("stats: %+v", got)
	}
	if !f.saw("login", "debian version 1 from s1") || list[0].FirstBlock.Before(list[0].Since) {
		t.Errorf("events: %v, sessions: %+v", f.events, list)
	}
	eventually(t, "the closing is told", func() bool { return f.saw("closed", "s1") })
}

func TestLoginRefused(t *testing.T) {
	unknown := site.MAC{0x52, 0x54, 0, 0, 9, 9}
	for _, tt := range []struct {
		name              string
		initiator, target string
		want              iscsi.Status
		reason            site.Reason
	}{
		{"unknown device", site.InitiatorName(unknown), target, iscsi.StatusAuthentication, site.UnknownDevice},
		{"not one of our names", "iqn.1993-08.org.debian:01:abc", target, iscsi.StatusAuthentication, site.MalformedInitiator},
		{"another vDisk", site.InitiatorName(t1), site.NameTarget("berlin", "windows", 1, digest).IQN(), iscsi.StatusAuthorization, site.NotItsVDisk},
		{"another site", site.InitiatorName(t1), site.NameTarget("paris", "debian", 1, digest).IQN(), iscsi.StatusNotFound, site.OtherSite},
		{"not a target", site.InitiatorName(t1), "iqn.2001-04.com.example:x", iscsi.StatusNotFound, site.MalformedTarget},
		{"a version that nobody has", site.InitiatorName(t1), site.NameTarget("berlin", "debian", 2, digest).IQN(), iscsi.StatusUnavailable, site.NoReplica},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFleet(t, streamer.DirectorConfig{Hold: 10 * time.Millisecond})
			f.add("s1")
			_, err := iscsi.Dial(t.Context(), f.address, iscsi.Config{InitiatorName: tt.initiator, TargetName: tt.target})
			var refused *iscsi.LoginError
			if !errors.As(err, &refused) || refused.Status != tt.want {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if !f.saw("refused", string(tt.reason)) || f.director.Stats().Logins[tt.reason] != 1 {
				t.Errorf("events %v, stats %+v: want reason %s", f.events, f.director.Stats(), tt.reason)
			}
		})
	}
}

func TestDeadStreamerClosesSessionAtOnce(t *testing.T) {
	f := newFleet(t, streamer.DirectorConfig{})
	_, kill1 := f.add("s1")
	s, _ := f.mustLogin(t1)
	f.add("s2")
	kill1()
	start := time.Now()
	_, err := s.ReadBlocks(t.Context(), 0, 1)
	if err == nil || time.Since(start) > 100*time.Millisecond {
		t.Errorf("error %v after %v, want one at once", err, time.Since(start))
	}
	again, name := f.mustLogin(t1) // the view still says that s1 is up
	if name != "s2" {
		t.Errorf("served by %s", name)
	}
	if took := time.Since(start); took > 200*time.Millisecond {
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

func TestLoginHeldUntilStreamerComes(t *testing.T) {
	f := newFleet(t, streamer.DirectorConfig{Hold: 10 * time.Second})
	done := make(chan error, 1)
	go func() { _, err := f.login(t1); done <- err }()
	eventually(t, "the login is held", func() bool { return f.director.Stats().Holding == 1 })
	f.add("s1")
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestNewViewLeavesALoginAloneThatAStreamerIsAnswering: the wake-up of held logins must not outlive the hold. It was left on the
// connection as an expired deadline, and the session ended at its first read.
func TestNewViewLeavesALoginAloneThatAStreamerIsAnswering(t *testing.T) {
	dialling, proceed := make(chan struct{}), make(chan struct{})
	f := newFleet(t, streamer.DirectorConfig{Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		dialling <- struct{}{}
		<-proceed
		return (&net.Dialer{}).DialContext(context.WithoutCancel(ctx), network, address)
	}})
	type answer struct {
		session *iscsi.Session
		err     error
	}
	done := make(chan answer, 1)
	go func() { s, err := f.login(t1); done <- answer{s, err} }()
	eventually(t, "the login is held", func() bool { return f.director.Stats().Holding == 1 })
	f.add("s1")
	<-dialling
	f.change(func(*site.View) {}) // whatever changed in the site
	close(proceed)
	a := <-done
	if a.err != nil {
		t.Fatal(a.err)
	}
	if _, err := a.session.ReadBlocks(t.Context(), 0, 1); err != nil {
		t.Errorf("the session does not read: %v", err)
	}
}

func TestLoginHeldUntilStreamerAnswersAgain(t *testing.T) {
	f := newFleet(t, streamer.DirectorConfig{Hold: 10 * time.Second})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close() // the view says that s1 is up, but it is not
	f.announce("s1", address, digest)
	done := make(chan error, 1)
	go func() { _, err := f.login(t1); done <- err }()
	eventually(t, "the login is held", func() bool { return f.director.Stats().Holding == 1 })
	if l, err = net.Listen("tcp", address); err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		(&iscsitest.Target{Name: target, Content: make([]byte, 512)}).Serve(l)
	}()
	defer func() { l.Close(); <-served }()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestHeldLoginEnds(t *testing.T) {
	f := newFleet(t, streamer.DirectorConfig{Hold: 120 * time.Millisecond})
	start := time.Now()
	_, err := f.login(t1)
	var refused *iscsi.LoginError
	if !errors.As(err, &refused) || refused.Status != iscsi.StatusUnavailable || time.Since(start) < 120*time.Millisecond {
		t.Errorf("got %v after %v", err, time.Since(start))
	}
	conn, err := net.Dial("tcp", f.address)
	if err != nil {
		t.Fatal(err)
	}
	conn.Write(firstPDU(target))
	eventually(t, "the login is held", func() bool { return f.director.Stats().Holding == 1 })
	conn.Close()
	eventually(t, "the hang-up is seen", func() bool { return f.director.Stats().Drops[streamer.DropHungUp] == 1 })
}

func firstPDU(target string) []byte {
	keys := iscsi.Keys{{Name: "InitiatorName", Value: site.InitiatorName(t1)}, {Name: "TargetName", Value: target}}
	return iscsi.LoginRequest{Transit: true, Next: iscsi.StageOperational, Data: keys.Append(nil)}.PDU().Append(nil)
}

func TestStreamerThatRefusesOrHangsIsPassedOver(t *testing.T) {
	f := newFleet(t, streamer.DirectorConfig{DialTimeout: 50 * time.Millisecond})
	refusing, _ := f.add("s1")
	refusing.Refuse = iscsi.StatusNotFound
	hanging, err := net.Listen("tcp", "127.0.0.1:0") // the kernel takes the connection, nobody answers
	if err != nil {
		t.Fatal(err)
	}
	defer hanging.Close()
	f.announce("s2", hanging.Addr().String(), digest)
	f.add("s3")
	f.set("s3", func(s *site.Streamer) { s.Sessions = 50 }) // the last choice
	if _, name := f.mustLogin(t1); name != "s3" {
		t.Errorf("served by %s", name)
	}
}

// TestBadLoginCostsNobodyElse: what a streamer says is the initiator's fault is told to it at once, and the streamer goes on for others.
func TestBadLoginCostsNobodyElse(t *testing.T) {
	f := newFleet(t, streamer.DirectorConfig{Hold: time.Minute})
	for _, name := range []string{"s1", "s2"} {
		s, _ := f.add(name)
		s.Refuse = iscsi.StatusInitiatorError
	}
	_, err := f.login(t1)
	var refused *iscsi.LoginError
	if !errors.As(err, &refused) || refused.Status != iscsi.StatusInitiatorError || !f.saw("refused", string(site.NotALogin)) {
		t.Errorf("got %v", err)
	}
	if failures := f.director.Stats().Failures; failures["s1"]+failures["s2"] != 0 {
		t.Errorf("failures of streamers: %v", failures)
	}
	f.add("s3") // in case it was their fault
	f.set("s3", func(s *site.Streamer) { s.Sessions = 50 })
	if _, name := f.mustLogin(t1); name != "s3" {
		t.Errorf("served by %s", name)
	}
}

func TestOtherDigestIsNeverPicked(t *testing.T) {
	f := newFleet(t, streamer.DirectorConfig{Hold: 60 * time.Millisecond})
	other, _ := f.add("s1")
	f.set("s1", func(s *site.Streamer) {
		s.Replicas = []site.Replica{{VDisk: "debian", Version: 1, Digest: "f" + digest[1:]}}
	})
	if _, err := f.login(t1); err == nil || other.DeviceLogins() != 0 {
		t.Errorf("login error %v, %d logins at the other digest", err, other.DeviceLogins())
	}
	if f.director.Stats().Logins[site.DigestDiffers] != 1 {
		t.Errorf("stats: %+v", f.director.Stats())
	}
}

func TestManyLoginsAtOnceSpreadEvenly(t *testing.T) {
	// On a busy machine no streamer shall seem dead.
	patient := func(_ context.Context, network, address string) (net.Conn, error) { return net.Dial(network, address) }
	f := newFleet(t, streamer.DirectorConfig{DialTimeout: 10 * time.Second, Dial: patient})
	targets := make(map[string]*iscsitest.Target)
	for i := range 4 {
		name := fmt.Sprintf("s%d", i)
		targets[name], _ = f.add(name)
	}
	var all sync.WaitGroup
	for i := range 100 {
		mac := t1
		mac[5] = byte(i + 1)
		all.Go(func() {
			if _, err := f.login(mac); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for name, s := range targets {
		if s.DeviceLogins() != 25 {
			t.Errorf("%s has %d of 100 logins", name, s.DeviceLogins())
		}
	}
}

func TestSecondLoginReplacesFirst(t *testing.T) {
	f := newFleet(t, streamer.DirectorConfig{})
	f.add("s1")
	f.add("s2")
	first, _ := f.mustLogin(t1)
	second, _ := f.mustLogin(t1)
	if _, err := first.ReadBlocks(t.Context(), 0, 1); err == nil {
		t.Error("the first session still reads")
	}
	if _, err := second.ReadBlocks(t.Context(), 0, 1); err != nil {
		t.Error(err)
	}
	eventually(t, "one session is left", func() bool { return len(f.director.Sessions()) == 1 })
}

func TestDiscoveryListsTheDevicesTarget(t *testing.T) {
	f := newFleet(t, streamer.DirectorConfig{})
	cfg := f.config(t1)
	cfg.TargetName = ""
	s, err := iscsi.Dial(t.Context(), f.address, cfg)
	if err != nil {
		t.Fatal(err)
	}
	list, err := s.SendTargets(t.Context())
	if err != nil || len(list) != 1 || list[0].Name != target || !slices.Equal(list[0].Addresses, []string{f.address + ",1"}) {
		t.Errorf("got %v, %v", list, err)
	}
	if err := s.Logout(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestHostileInput(t *testing.T) {
	long := iscsi.LoginRequest{Data: make([]byte, 10000)}.PDU().Append(nil)
	for _, tt := range []struct {
		name string
		send []byte
		hang bool
		want streamer.Drop
	}{
		{"nothing", nil, false, streamer.DropHungUp},
		{"silence", nil, true, streamer.DropSlow},
		{"half a header", make([]byte, 20), true, streamer.DropSlow},
		{"another opcode", make([]byte, 48), false, streamer.DropMalformed},
		{"too long", long, false, streamer.DropOversized},
		{"no names", iscsi.LoginRequest{}.PDU().Append(nil), false, streamer.DropMalformed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := streamer.DirectorConfig{}
			if tt.hang {
				cfg.LoginTimeout = 50 * time.Millisecond
			}
			f := newFleet(t, cfg)
			conn, err := net.Dial("tcp", f.address)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.Write(tt.send)
			if !tt.hang {
				conn.(*net.TCPConn).CloseWrite()
			}
			eventually(t, "the drop is counted", func() bool { return f.director.Stats().Drops[tt.want] == 1 })
			if _, err := io.ReadAll(conn); err != nil && !strings.Contains(err.Error(), "reset") {
				t.Errorf("the connection stays: %v", err)
			}
		})
	}
}

func TestBoundOfLogins(t *testing.T) {
	f := newFleet(t, streamer.DirectorConfig{MaxLogins: 2})
	f.add("s1")
	for range 3 {
		if conn, err := net.Dial("tcp", f.address); err == nil { // the third may be reset before Dial returns
			defer conn.Close()
		}
	}
	eventually(t, "the third is dropped", func() bool { return f.director.Stats().Drops[streamer.DropTooMany] == 1 })
}

// TestHalfOpenLoginsKeepNobodyOut: a flood of connections that say nothing is bounded, leaves nothing behind, and who says who it is gets in.
func TestHalfOpenLoginsKeepNobodyOut(t *testing.T) {
	const most, flood = 50, 1000
	f := newFleet(t, streamer.DirectorConfig{MaxLogins: most})
	f.add("s1")
	var conns []net.Conn
	for range flood {
		conn, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}).Dial("tcp", f.address)
		if err == nil { // it may be reset before Dial returns
			conns = append(conns, conn)
		}
	}
	f.mustLogin(t1)
	eventually(t, "the oldest are dropped", func() bool { return f.director.Stats().Drops[streamer.DropTooMany] >= flood-most })
	for _, conn := range conns {
		conn.Close()
	}
	eventually(t, "all are dropped", func() bool {
		drops := f.director.Stats().Drops
		return drops[streamer.DropTooMany]+drops[streamer.DropHungUp] == flood
	})
	if f.director.Stats().Sessions != 1 {
		t.Error("the session did not survive")
	}
}

func TestStrands(t *testing.T) {
	f := newFleet(t, streamer.DirectorConfig{})
	f.add("s1")
	if got := streamer.Strands(f.view.Load(), "s1"); len(got) != 1 || got[0].VDisk != "debian" {
		t.Errorf("alone: %v", got)
	}
	f.add("s2")
	if got := streamer.Strands(f.view.Load(), "s1"); len(got) != 0 {
		t.Errorf("with a second: %v", got)
	}
}

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
