package streamer

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"everboot/internal/iscsi"
	"everboot/site"
)

// TestStopEndsWhatIsUnderWay: a stop waits for the logins, and all sessions for it, so none may take longer than its last words.
func TestStopEndsWhatIsUnderWay(t *testing.T) {
	offer := iscsi.Keys{{Name: "AuthMethod", Value: "CHAP"}}.Append(nil)
	for _, tt := range []struct {
		name string
		do   func(ctx context.Context, d *Director, conn net.Conn)
	}{
		{"the first PDU", func(ctx context.Context, d *Director, conn net.Conn) { d.read(ctx, conn) }},
		{"a proof", func(ctx context.Context, d *Director, conn net.Conn) {
			d.authenticate(ctx, &caller{conn: conn, login: iscsi.Login{Request: iscsi.LoginRequest{Data: offer}}}, CHAP{})
		}},
		{"an answer", func(ctx context.Context, d *Director, conn net.Conn) {
			d.answer(ctx, conn, iscsi.Login{}, iscsi.StatusAuthentication)
		}},
	} {
		for _, late := range []bool{false, true} { // the stop comes first, or while it waits
			t.Run(tt.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					d, err := NewDirector(DirectorConfig{}, func() *site.View { return nil }, nil, slog.New(slog.DiscardHandler))
					if err != nil {
						t.Fatal(err)
					}
					ours, theirs := net.Pipe()
					defer theirs.Close()
					go io.Copy(io.Discard, theirs)
					ctx, stop := context.WithCancel(t.Context())
					defer stop()
					done := make(chan struct{})
					if !late {
						stop()
					}
					go func() { defer close(done); defer ours.Close(); tt.do(ctx, d, ours) }()
					synctest.Wait()
					stop()
					stopped := time.Now()
					<-done
					if took := time.Since(stopped); took != lastWords {
						t.Errorf("ended %v after the stop", took)
					}
				})
			})
		}
	}
}

// TestPortalThatIsGoneIsPingedNoMore: one that is silent is pinged until it answers, unless no streamer has it any more.
func TestPortalThatIsGoneIsPingedNoMore(t *testing.T) {
	const portal = "127.0.0.1:3260"
	v := site.Empty("berlin", "embedded")
	d, err := NewDirector(DirectorConfig{}, func() *site.View { return v }, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	life, cancel := context.WithCancel(t.Context())
	w := &watcher{Director: d, pulses: map[string]*pulse{portal: {streamer: "s1", cancel: cancel}}}
	silent := map[string]bool{portal: true}
	v.Streamers["s1"] = site.Streamer{Name: "s1", Addresses: []netip.AddrPort{netip.MustParseAddrPort(portal)}}
	w.follow(t.Context(), nil, silent, nil)
	if life.Err() != nil || len(w.pulses) != 1 {
		t.Error("a silent portal is given up")
	}
	delete(v.Streamers, "s1")
	w.follow(t.Context(), nil, silent, nil)
	if life.Err() == nil || len(w.pulses) != 0 {
		t.Error("a portal that is gone is pinged for ever")
	}
}

// TestStopWaitsForNoTargetThatWasMoved: a target that has not come back yet does not hold up the end.
func TestStopWaitsForNoTargetThatWasMoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, err := NewDirector(DirectorConfig{}, func() *site.View { return nil }, nil, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		stop()
		start := time.Now()
		if err := d.back(ctx, new(session)); err == nil || time.Since(start) > lastWords {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}
