package iscsi_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"everboot/internal/iscsi"
	"everboot/internal/iscsi/iscsitest"
)

const (
	initiator = "iqn.2026-11.internal.everboot:device:52-54-00-00-00-01"
	target    = "iqn.2026-11.internal.everboot:berlin:debian:1:0123456789abcdef"
)

func login(keys iscsi.Keys) iscsi.LoginRequest {
	return iscsi.LoginRequest{
		Transit: true, Current: iscsi.StageSecurity, Next: iscsi.StageOperational, ISID: [6]byte{0x40, 0, 0x27, 0x23, 1, 2},
		TSIH: 3, CID: 4, TaskTag: 5, CmdSN: 6, ExpStatSN: 7, Data: keys.Append(nil),
	}
}

func TestParseLogin(t *testing.T) {
	names := iscsi.Keys{{Name: "InitiatorName", Value: initiator}, {Name: "TargetName", Value: target}}
	good := login(names).PDU()
	notLogin, both, more := good, good, good
	notLogin.Header[0] = byte(iscsi.OpTextRequest)
	both.Header[1] |= 0x40
	more.Header[1] = more.Header[1]&^0x80 | 0x40
	more.Data = append(bytes.Clone(good.Data), "MaxBurst"...)
	cut := good
	cut.Data = good.Data[:len(good.Data)-1]
	for _, tt := range []struct {
		name string
		pdu  iscsi.PDU
		want iscsi.Login
		err  error
	}{
		{"normal", good, iscsi.Login{Initiator: initiator, Target: target}, nil},
		{"discovery", login(iscsi.Keys{{Name: "InitiatorName", Value: initiator}, {Name: "SessionType", Value: "Discovery"}}).PDU(),
			iscsi.Login{Initiator: initiator, Discovery: true}, nil},
		{"goes on in the next PDU", more, iscsi.Login{Initiator: initiator, Target: target}, nil},
		{"another opcode", notLogin, iscsi.Login{}, iscsi.ErrNotLogin},
		{"T and C bit", both, iscsi.Login{}, iscsi.ErrNotLogin},
		{"last pair without end", cut, iscsi.Login{}, iscsi.ErrKeys},
		{"no target", login(names[:1]).PDU(), iscsi.Login{Initiator: initiator}, iscsi.ErrMissingName},
		{"no initiator", login(names[1:]).PDU(), iscsi.Login{Target: target}, iscsi.ErrMissingName},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := iscsi.ParseLogin(tt.pdu)
			if !errors.Is(err, tt.err) {
				t.Fatalf("error %v, want %v", err, tt.err)
			}
			got.Request = iscsi.LoginRequest{}
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestParseKeysBounds(t *testing.T) {
	for _, tt := range []struct {
		name, data string
		want       int
		ok         bool
	}{
		{"none", "", 0, true},
		{"empty value", "A=\x00", 1, true},
		{"padding inside", "A=1\x00\x00\x00B=2\x00", 2, true},
		{"equals in the value", "A=b=c\x00", 1, true},
		{"no equals", "A\x00", 0, false},
		{"no name", "=1\x00", 0, false},
		{"long name", strings.Repeat("a", 64) + "=1\x00", 0, false},
		{"long value", "A=" + strings.Repeat("a", 8193) + "\x00", 0, false},
		{"many", strings.Repeat("A=1\x00", 65), 64, false},
		{"not ended", "A=1\x00B=2", 1, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			keys, err := iscsi.ParseKeys([]byte(tt.data))
			if len(keys) != tt.want || (err == nil) != tt.ok {
				t.Errorf("got %d keys and error %v, want %d and ok=%v", len(keys), err, tt.want, tt.ok)
			}
		})
	}
}

func TestReadPDUBounds(t *testing.T) {
	long := iscsi.PDU{Data: make([]byte, 9000)}.Append(nil)
	if _, err := iscsi.ReadPDU(bytes.NewReader(long), iscsi.MaxLoginData); !errors.Is(err, iscsi.ErrTooLong) {
		t.Errorf("too long: %v", err)
	}
	extra := iscsi.PDU{}.Append(nil)
	extra[4] = 1
	if _, err := iscsi.ReadPDU(bytes.NewReader(extra), iscsi.MaxLoginData); !errors.Is(err, iscsi.ErrAHS) {
		t.Errorf("additional header: %v", err)
	}
	cut := iscsi.PDU{Data: make([]byte, 10)}.Append(nil)
	if _, err := iscsi.ReadPDU(bytes.NewReader(cut[:50]), iscsi.MaxLoginData); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("cut: %v", err)
	}
}

func serve(t *testing.T, target *iscsitest.Target) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); target.Serve(l) }()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().String()
}

func TestSession(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) })
	content := make([]byte, 64*512)
	for i := range content {
		content[i] = byte(i / 512)
	}
	address := serve(t, &iscsitest.Target{Name: target, Content: content, Serial: "s1"})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	s, err := iscsi.Dial(ctx, address, iscsi.Config{InitiatorName: initiator, TargetName: target})
	if err != nil {
		t.Fatal(err)
	}
	if b, err := s.ReadBlocks(ctx, 3, 5); err != nil || !bytes.Equal(b, content[3*512:8*512]) {
		t.Errorf("reading: %v", err)
	}
	if _, err := s.ReadBlocks(ctx, 60, 5); err == nil {
		t.Error("reading beyond the end succeeded")
	}
	var refused *iscsi.SCSIError
	_, err = s.Do(ctx, iscsi.WriteCommand(0, make([]byte, 512), 512))
	if !errors.As(err, &refused) || refused.Key != iscsi.SenseDataProtect {
		t.Errorf("writing: %v", err)
	}
	if b, err := s.InquiryPage(ctx, 0x80); err != nil || string(b[4:]) != "s1" {
		t.Errorf("serial number: %q, %v", b, err)
	}
	if err := s.Ping(ctx); err != nil {
		t.Error(err)
	}
	if err := s.Logout(ctx); err != nil {
		t.Error(err)
	}
}

func TestDiscovery(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) })
	address := serve(t, &iscsitest.Target{Name: target, Content: make([]byte, 512)})
	s, err := iscsi.Dial(t.Context(), address, iscsi.Config{InitiatorName: initiator})
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.SendTargets(t.Context())
	want := []iscsi.Target{{Name: target, Addresses: []string{address + ",1"}}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
	if err := s.Logout(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestLoginRefused(t *testing.T) {
	address := serve(t, &iscsitest.Target{Name: target, Refuse: iscsi.StatusUnavailable})
	_, err := iscsi.Dial(t.Context(), address, iscsi.Config{InitiatorName: initiator, TargetName: target})
	var refused *iscsi.LoginError
	if !errors.As(err, &refused) || refused.Status != iscsi.StatusUnavailable {
		t.Errorf("got %v", err)
	}
}

func TestCancelledSession(t *testing.T) {
	near, far := net.Pipe()
	go io.Copy(io.Discard, far)
	defer far.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := iscsi.NewSession(ctx, near, iscsi.Config{InitiatorName: initiator}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

// FuzzLogin: no input makes the parser panic, and what it accepts survives a round trip.
func FuzzLogin(f *testing.F) {
	f.Add(login(iscsi.Keys{{Name: "InitiatorName", Value: initiator}, {Name: "TargetName", Value: target}}).PDU().Append(nil))
	f.Add(login(nil).Reject(iscsi.StatusUnavailable).PDU().Append(nil))
	f.Add(make([]byte, 48))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := iscsi.ReadPDU(bytes.NewReader(b), iscsi.MaxLoginData)
		if err != nil {
			return
		}
		if got, err := iscsi.ReadPDU(bytes.NewReader(p.Append(nil)), iscsi.MaxLoginData); err != nil || !bytes.Equal(got.Data, p.Data) {
			t.Fatalf("round trip of the PDU: %v", err)
		}
		iscsi.ParseLoginResponse(p)
		l, err := iscsi.ParseLogin(p)
		if err != nil {
			return
		}
		again, err := iscsi.ParseLogin(l.Request.PDU())
		if err != nil || !reflect.DeepEqual(again, l) {
			t.Fatalf("round trip of the login: %+v, %v; want %+v", again, err, l)
		}
	})
}

// FuzzKeys: what is parsed and written again parses to the same.
func FuzzKeys(f *testing.F) {
	f.Add([]byte("A=1\x00B=\x00"))
	f.Add([]byte("=\x00\x00A"))
	f.Fuzz(func(t *testing.T, b []byte) {
		keys, err := iscsi.ParseKeys(b)
		if err != nil {
			return
		}
		if again, err := iscsi.ParseKeys(keys.Append(nil)); err != nil || !reflect.DeepEqual(again, keys) {
			t.Fatalf("got %v, %v; want %v", again, err, keys)
		}
	})
}

// FuzzTarget: an initiator that says anything after its login, and a target that does, make nobody panic or hang.
func FuzzTarget(f *testing.F) {
	f.Add(iscsi.PDU{}.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		rw := struct {
			io.Reader
			io.Writer
		}{bytes.NewReader(b), io.Discard}
		l := iscsi.Login{Initiator: initiator, Discovery: true, Request: iscsi.LoginRequest{Transit: true, Next: iscsi.StageFull}}
		if s, err := iscsi.Accept(rw, l); err == nil {
			s.ServeDiscovery([]iscsi.Target{{Name: target}})
		}
	})
}
