package streamer

import (
	"encoding/hex"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"everboot/internal/iscsi"
	"everboot/site"
)

// chapLogin plays an initiator against authenticate, and returns what it makes of the login.
func chapLogin(t *testing.T, want CHAP, offer string, answer func(id byte, challenge []byte) iscsi.Keys) (*caller, error) {
	t.Helper()
	d, err := NewDirector(DirectorConfig{LoginTimeout: 5 * time.Second}, func() *site.View { return nil }, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := net.Pipe()
	defer theirs.Close()
	first := iscsi.LoginRequest{Transit: true, Next: iscsi.StageOperational, ExpStatSN: 7, Data: iscsi.Keys{{Name: "AuthMethod", Value: offer}}.Append(nil)}
	c := &caller{conn: ours, login: iscsi.Login{Request: first, Initiator: "iqn.i", Target: "iqn.t"}}
	done := make(chan error, 1)
	go func() { done <- d.authenticate(t.Context(), c, want); ours.Close() }()
	say := func(transit bool, keys iscsi.Keys) iscsi.Keys {
		p, err := iscsi.ReadPDU(theirs, iscsi.MaxLoginData)
		if err != nil {
			return nil
		}
		a, _ := iscsi.ParseLoginResponse(p)
		r := first
		r.Transit, r.ExpStatSN, r.Data = transit, a.StatSN+1, keys.Append(nil)
		theirs.Write(r.PDU().Append(nil))
		got, _ := iscsi.ParseKeys(a.Data)
		return got
	}
	say(false, iscsi.Keys{{Name: "CHAP_A", Value: "7,5"}})
	p, err := iscsi.ReadPDU(theirs, iscsi.MaxLoginData)
	if err == nil {
		a, _ := iscsi.ParseLoginResponse(p)
		keys, _ := iscsi.ParseKeys(a.Data)
		text, _ := keys.Get("CHAP_C")
		challenge, _ := binaryValue(text)
		number, _ := keys.Get("CHAP_I")
		var id byte
		for _, digit := range number {
			id = id*10 + byte(digit-'0')
		}
		r := first
		r.Transit, r.ExpStatSN, r.Data = true, a.StatSN+1, answer(id, challenge).Append(nil)
		theirs.Write(r.PDU().Append(nil))
	}
	go io.Copy(io.Discard, theirs)
	return c, <-done
}

func TestCHAP(t *testing.T) {
	one := CHAP{User: "t1", Secret: "secret-of-the-device"}
	both := CHAP{User: "t1", Secret: "secret-of-the-device", MutualUser: "d", MutualSecret: "secret-of-the-director"}
	prove := func(user, secret string, more ...iscsi.Key) func(byte, []byte) iscsi.Keys {
		return func(id byte, challenge []byte) iscsi.Keys {
			return append(iscsi.Keys{{Name: "CHAP_N", Value: user}, {Name: "CHAP_R", Value: "0x" + hex.EncodeToString(chapResponse(id, secret, challenge))}}, more...)
		}
	}
	ask := []iscsi.Key{{Name: "CHAP_I", Value: "9"}, {Name: "CHAP_C", Value: "0x00112233"}}
	for _, tt := range []struct {
		name   string
		want   CHAP
		offer  string
		answer func(byte, []byte) iscsi.Keys
		good   bool
	}{
		{"one way", one, "CHAP,None", prove("t1", one.Secret), true},
		{"mutual", both, "CHAP", prove("t1", both.Secret, ask...), true},
		{"wrong secret", one, "CHAP", prove("t1", "another-secret-of-it"), false},
		{"wrong name", one, "CHAP", prove("t2", one.Secret), false},
		{"not offered", one, "None", prove("t1", one.Secret), false},
		{"mutual, but no secret for it", one, "CHAP", prove("t1", one.Secret, ask...), false},
		{"our challenge sent back", both, "CHAP", func(id byte, challenge []byte) iscsi.Keys {
			return prove("t1", both.Secret, iscsi.Key{Name: "CHAP_I", Value: "9"}, iscsi.Key{Name: "CHAP_C", Value: "0x" + hex.EncodeToString(challenge)})(id, challenge)
		}, false},
		{"nonsense", one, "CHAP", func(byte, []byte) iscsi.Keys { return iscsi.Keys{{Name: "CHAP_R", Value: "0xzz"}} }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.offer == "None" {
				d, _ := NewDirector(DirectorConfig{}, func() *site.View { return nil }, nil, slog.New(slog.DiscardHandler))
				c := &caller{login: iscsi.Login{Request: iscsi.LoginRequest{Data: iscsi.Keys{{Name: "AuthMethod", Value: "None"}}.Append(nil)}}}
				if d.authenticate(t.Context(), c, tt.want) == nil {
					t.Error("admitted")
				}
				return
			}
			c, err := chapLogin(t, tt.want, tt.offer, tt.answer)
			if (err == nil) != tt.good {
				t.Fatalf("got %v", err)
			}
			if !tt.good {
				return
			}
			answer, err := c.proof.goOn(iscsi.LoginResponse{StatSN: c.proof.stat, Data: iscsi.Keys{{Name: "AuthMethod", Value: "None"}}.Append(nil)})
			if err != nil || strings.Contains(string(answer), "AuthMethod") {
				t.Errorf("answer %q, %v", answer, err)
			}
			proof := "0x" + hex.EncodeToString(chapResponse(9, both.MutualSecret, []byte{0, 0x11, 0x22, 0x33}))
			if tt.want.MutualSecret != "" && !strings.Contains(string(answer), "CHAP_R="+proof) {
				t.Errorf("no proof of ours in %q", answer)
			}
			if _, err := c.proof.goOn(iscsi.LoginResponse{StatSN: c.proof.stat + 1}); err == nil {
				t.Error("a streamer that counts otherwise is taken")
			}
		})
	}
}

// A streamer asks for no proof: to be sent there would be a way round CHAP.
func TestWhoMustProveItselfIsNotRedirected(t *testing.T) {
	d, err := NewDirector(DirectorConfig{Redirect: true}, func() *site.View { return nil }, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	c := &caller{login: iscsi.Login{Request: iscsi.LoginRequest{ISID: [6]byte{0x00, 0x02, 0x3d}}}}
	if !d.redirects(c, time.Now()) {
		t.Error("nobody is redirected")
	}
	if c.proof = new(proof); d.redirects(c, time.Now()) {
		t.Error("a way round CHAP")
	}
}
