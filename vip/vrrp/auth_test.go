package vrrp

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"testing"
	"time"
)

func sealed(t *testing.T, a *Auth, counter uint64) Packet {
	t.Helper()
	b, err := Advertisement{VRID: 51, Priority: 100, Interval: time.Second, Addresses: v4}.Marshal(a2, Group4())
	if err != nil {
		t.Fatal(err)
	}
	return Packet{Source: a2, Destination: Group4(), TTL: TTL, Payload: a.Seal(counter, a2, Group4(), b)}
}

func TestWhoKnowsTheKeyIsHeardOnce(t *testing.T) {
	ours, peer := NewAuth([]byte("key")), NewAuth([]byte("key"))
	p := sealed(t, peer, 7)
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
	guard := NewAuth([]byte("key")) // another process on the same node
	if _, reason := ours.Open(sealed(t, guard, 9)); reason != Accepted {
		t.Errorf("the guard's: %q", reason)
	}
	if _, reason := ours.Open(sealed(t, peer, 8)); reason != Replayed {
		t.Errorf("one from before: %q", reason)
	}
}

// TestAReceiverThatStartsAnewTakesNoReplay: what was recorded before its restart would hold it down, or make it resign.
func TestAReceiverThatStartsAnewTakesNoReplay(t *testing.T) {
	ours, peer := NewAuth([]byte("key")), NewAuth([]byte("key"))
	recorded := sealed(t, peer, 7)
	if _, reason := ours.Open(recorded); reason != Accepted {
		t.Fatalf("refused: %q", reason)
	}
	again := NewAuth([]byte("key"))
	again.Resume(ours.Heard(nil))
	if _, reason := again.Open(recorded); reason != Replayed {
		t.Errorf("what was recorded: %q", reason)
	}
	if _, reason := again.Open(sealed(t, peer, 8)); reason != Accepted {
		t.Errorf("what is new: %q", reason)
	}
}

func TestSendersAreRememberedInBounds(t *testing.T) {
	a := NewAuth([]byte("key"))
	heard := map[netip.Addr]uint64{}
	for i := range 3 * MaxSenders {
		heard[netip.AddrFrom4([4]byte{198, 18, 1, byte(i)})] = uint64(i)
	}
	a.Resume(heard)
	got := a.Heard(map[netip.Addr]uint64{a2: 1})
	if len(got) != MaxSenders {
		t.Errorf("%d senders are remembered", len(got))
	}
	for sender, counter := range got {
		if counter < 2*MaxSenders {
			t.Errorf("%s, which was heard long ago, is remembered", sender)
		}
	}
}

func TestWhoDoesNotKnowTheKeyIsNotHeard(t *testing.T) {
	ours := NewAuth([]byte("key"))
	p := sealed(t, NewAuth([]byte("kez")), 7)
	if _, reason := ours.Open(p); reason != BadAuth {
		t.Errorf("another key: %q", reason)
	}
	p = sealed(t, NewAuth([]byte("key")), 7)
	for i := range p.Payload {
		changed := p
		changed.Payload = bytes.Clone(p.Payload)
		changed.Payload[i] ^= 1
		opened, reason := ours.Open(changed)
		if i/2 == checksumAt/2 { // not authenticated, but it must be right
			_, reason = Parse(opened)
			if reason != BadChecksum {
				t.Errorf("with byte %d changed: %q", i, reason)
			}
			ours = NewAuth([]byte("key"))
			continue
		}
		if reason != BadAuth {
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
	if _, reason := Parse(sealed(t, ours, 7)); reason != BadLength {
		t.Errorf("to a router without the key: %q", reason)
	}
}

// TestSealIsThatOfKeepalived has the two packets that keepalived's own test of auth_hmac knows: key 00 to 1f, VRID 51, priority 200.
func TestSealIsThatOfKeepalived(t *testing.T) {
	key := make([]byte, 32)
	for i := range key {
		key[i] = byte(i)
	}
	const counter = 0x6800000080000000
	for _, c := range []struct{ src, dst, vip, image string }{
		{"198.51.100.10", "224.0.0.18", "192.0.2.100", "3133c80100644402c0000264" + "010100006800000080000000" + "1b84bc4e8e43892dc6d98448f8ee2265"},
		{"fe80::10", "fe80::20", "fe80::100", "3133c8010064a2e9fe800000000000000000000000000100" + "010100006800000080000000" + "c8c56146ebfd66ee10ec4d8186461b78"},
	} {
		src, dst := netip.MustParseAddr(c.src), netip.MustParseAddr(c.dst)
		adv := Advertisement{VRID: 51, Priority: 200, Interval: time.Second, Addresses: []netip.Addr{netip.MustParseAddr(c.vip)}, Checksum: MessageOnly}
		message, err := adv.Marshal(src, dst)
		if err != nil {
			t.Fatal(err)
		}
		sealed := NewAuth(key).Seal(counter, src, dst, message)
		if got := hex.EncodeToString(sealed); got != c.image {
			t.Errorf("from %s:\n%s, want\n%s", c.src, got, c.image)
		}
		image, err := hex.DecodeString(c.image)
		if err != nil {
			t.Fatal(err)
		}
		p, reason := NewAuth(key).Open(Packet{Source: src, Destination: dst, TTL: TTL, Payload: image})
		if reason != Accepted {
			t.Fatalf("from %s: refused: %q", c.src, reason)
		}
		if got, reason := Parse(p); reason != Accepted || got.Priority != 200 {
			t.Errorf("from %s: %v, %q", c.src, got, reason)
		}
		if c.src == "fe80::10" {
			image[checksumAt] ^= 1
			if _, reason := NewAuth(key).Open(Packet{Source: src, Destination: dst, TTL: TTL, Payload: image}); reason != BadChecksum {
				t.Errorf("with a wrong checksum: %q", reason)
			}
		}
	}
}

func FuzzOpen(f *testing.F) {
	f.Add([]byte(nil))
	f.Add(make([]byte, trailerLen+headerLen))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, reason := NewAuth([]byte("key")).Open(Packet{Source: a2, Destination: a3, TTL: TTL, Payload: b}); reason != BadAuth {
			t.Errorf("%x was accepted: %q", b, reason)
		}
	})
}
