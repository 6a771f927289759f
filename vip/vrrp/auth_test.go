package vrrp

import (
	"bytes"
	"testing"
	"time"
)

func sealed(t *testing.T, a *Auth, at time.Time) Packet {
	t.Helper()
	b, err := Advertisement{VRID: 51, Priority: 100, Interval: time.Second, Addresses: v4}.Marshal(a2, Group4())
	if err != nil {
		t.Fatal(err)
	}
	return Packet{Source: a2, Destination: Group4(), TTL: TTL, Payload: a.Seal(at, a2, Group4(), b)}
}

func TestWhoKnowsTheKeyIsHeardOnce(t *testing.T) {
	ours, peer := NewAuth([]byte("key")), NewAuth([]byte("key"))
	p := sealed(t, peer, epoch.Add(time.Hour))
	got, reason := ours.Open(p)
	if reason != Accepted {
		t.Fatalf("refused: %q", reason)
	}
	if _, reason := Parse(got); reason != Accepted {
		t.Errorf("what was opened is refused: %q", reason)
	}
	if _, reason := ours.Open(p); reason != Replayed {
		t.Errorf("the same again: %q", reason)
	}
	if _, reason := ours.Open(sealed(t, peer, epoch)); reason != Accepted { // a clock that was set back
		t.Errorf("the next one: %q", reason)
	}
	guard := NewAuth([]byte("key")) // another process on the same node, later
	if _, reason := ours.Open(sealed(t, guard, epoch.Add(time.Hour+time.Second))); reason != Accepted {
		t.Errorf("the guard's: %q", reason)
	}
	if _, reason := ours.Open(sealed(t, NewAuth([]byte("key")), epoch.Add(time.Minute))); reason != Replayed {
		t.Errorf("one from before: %q", reason)
	}
}

func TestWhoDoesNotKnowTheKeyIsNotHeard(t *testing.T) {
	ours := NewAuth([]byte("key"))
	p := sealed(t, NewAuth([]byte("kez")), epoch.Add(time.Hour))
	if _, reason := ours.Open(p); reason != BadAuth {
		t.Errorf("another key: %q", reason)
	}
	p = sealed(t, NewAuth([]byte("key")), epoch.Add(time.Hour))
	for i := range p.Payload {
		changed := p
		changed.Payload = bytes.Clone(p.Payload)
		changed.Payload[i] ^= 1
		if _, reason := ours.Open(changed); reason != BadAuth {
			t.Errorf("with byte %d changed: %q", i, reason)
		}
	}
	moved := p
	moved.Source = a3
	if _, reason := ours.Open(moved); reason != BadAuth {
		t.Errorf("from another address: %q", reason)
	}
	p.Payload = p.Payload[:len(p.Payload)-trailerLen] // a foreign router's
	if _, reason := ours.Open(p); reason != BadAuth {
		t.Errorf("without a trailer: %q", reason)
	}
	if _, reason := Parse(sealed(t, ours, epoch)); reason != BadLength {
		t.Errorf("to a router without the key: %q", reason)
	}
}

func FuzzOpen(f *testing.F) {
	f.Add([]byte(nil))
	f.Add(make([]byte, trailerLen))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, reason := NewAuth([]byte("key")).Open(Packet{Source: a2, Destination: a3, TTL: TTL, Payload: b}); reason != BadAuth {
			t.Errorf("%x was accepted: %q", b, reason)
		}
	})
}
