package streamer_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
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
