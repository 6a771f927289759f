package wire

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestRequests(t *testing.T) {
	limits := Limits{Block: 1468, Window: 64}
	for _, c := range []struct {
		what, packet string
		oack         string // "" for a plain transfer
		block        int
		window       int
	}{
		{"plain", "\x00\x01file\x00octet\x00", "", 512, 1},
		{"iPXE", "\x00\x01file\x00octet\x00blksize\x001432\x00tsize\x000\x00", "blksize\x001432\x00tsize\x009000\x00", 1432, 1},
		{"EDK2", "\x00\x01file\x00octet\x00tsize\x000\x00blksize\x001468\x00windowsize\x004\x00", "tsize\x009000\x00blksize\x001468\x00windowsize\x004\x00", 1468, 4},
		{"case does not matter (RFC 2347)", "\x00\x01file\x00OCTET\x00BlkSize\x001024\x00TSIZE\x000\x00", "blksize\x001024\x00tsize\x009000\x00", 1024, 1},
		{"a block larger than a frame is cut", "\x00\x01file\x00octet\x00blksize\x0065464\x00", "blksize\x001468\x00", 1468, 1},
		{"one that no datagram could hold, too", "\x00\x01file\x00octet\x00blksize\x0070000\x00", "blksize\x001468\x00", 1468, 1},
		{"one that is too small is left out", "\x00\x01file\x00octet\x00blksize\x007\x00", "", 512, 1},
		{"the smallest", "\x00\x01file\x00octet\x00blksize\x008\x00", "blksize\x008\x00", 8, 1},
		{"a window larger than ours is cut", "\x00\x01file\x00octet\x00windowsize\x001000\x00", "windowsize\x0064\x00", 512, 64},
		{"no windows", "\x00\x01file\x00octet\x00windowsize\x000\x00windowsize\x0070000\x00", "", 512, 1},
		{"timeout", "\x00\x01file\x00octet\x00timeout\x003\x00timeout\x005\x00", "timeout\x003\x00", 512, 1},
		{"no timeouts", "\x00\x01file\x00octet\x00timeout\x000\x00timeout\x00256\x00timeout\x00-1\x00", "", 512, 1},
		{"what nobody knows is passed over", "\x00\x01file\x00octet\x00multicast\x00\x00blksize\x00x\x00tsize\x000\x00", "tsize\x009000\x00", 512, 1},
		{"a value without its end mark ends the options", "\x00\x01file\x00octet\x00tsize\x000\x00blksize\x001024", "tsize\x009000\x00", 512, 1},
	} {
		r, err := ParseRequest([]byte(c.packet))
		if err != nil || r.Write || r.Name != "file" || r.Mode != Octet {
			t.Errorf("%s: %+v, %v", c.what, r, err)
			continue
		}
		terms := r.Agree(9000, limits)
		if terms.Block != c.block || terms.Window != c.window || terms.Options != (c.oack != "") {
			t.Errorf("%s: %+v", c.what, terms)
		}
		if got := string(r.AppendOAck(nil, terms)); c.oack != "" && got != "\x00\x06"+c.oack {
			t.Errorf("%s: %q, want %q", c.what, got, c.oack)
		}
	}
}

// TestSizesThatClientsTake: what a client does that was told of another size than the file has, by its request.
func TestSizesThatClientsTake(t *testing.T) {
	for _, c := range []struct {
		what, options   string
		longer, shorter bool
	}{
		{"plain", "", true, true},
		{"EDK2, which has asked for the size before", "blksize\x001468\x00windowsize\x004\x00", true, true},
		{"iPXE", "blksize\x001432\x00tsize\x000\x00", true, false},
		{"PXELINUX", "tsize\x000\x00blksize\x001408\x00", false, false},
		{"GRUB", "blksize\x001024\x00tsize\x000\x00", false, false},
		{"somebody with iPXE's block", "tsize\x000\x00blksize\x001432\x00", false, false},
		{"and with windows", "blksize\x001432\x00tsize\x000\x00windowsize\x004\x00", false, false},
	} {
		r, err := ParseRequest([]byte("\x00\x01file\x00octet\x00" + c.options))
		if err != nil {
			t.Fatal(err)
		}
		if longer, shorter, same := r.Takes(5000, 5001), r.Takes(5000, 4999), r.Takes(5000, 5000); longer != c.longer || shorter != c.shorter || !same {
			t.Errorf("%s: longer %t, shorter %t, the same %t", c.what, longer, shorter, same)
		}
	}
}

func TestNoRequests(t *testing.T) {
	for packet, want := range map[string]error{
		"": ErrNoRequest, "\x00": ErrNoRequest, "\x00\x04\x00\x01": ErrNoRequest, "\x00\x63??": ErrNoRequest,
		"\x00\x01": ErrEnd, "\x00\x01name": ErrEnd, "\x00\x01name\x00": ErrEnd, "\x00\x01name\x00octet": ErrEnd,
		"\x00\x01\x00octet\x00": ErrFields, "\x00\x01name\x00\x00": ErrFields,
	} {
		if r, err := ParseRequest([]byte(packet)); !errors.Is(err, want) {
			t.Errorf("%q: %+v, %v, want %v", packet, r, err, want)
		}
	}
	for _, mode := range []string{"mail", "octets", "netascii "} {
		if r, err := ParseRequest([]byte("\x00\x02name\x00" + mode + "\x00")); err != nil || r.Mode != Unknown || !r.Write {
			t.Errorf("%s: %+v, %v", mode, r, err)
		}
	}
}

func TestErrors(t *testing.T) {
	long := strings.Repeat("x", 1000)
	p := AppendError(nil, CodeOptions, long)
	code, text, ok := ParseError(p)
	if !ok || code != CodeOptions || text != long[:maxErrorText] || len(p) > 512 {
		t.Errorf("%d %q %v", code, text, ok)
	}
	if _, _, ok := ParseError([]byte("\x00\x05\x00")); ok {
		t.Error("a short ERROR was taken")
	}
}

func FuzzRequest(f *testing.F) {
	for _, seed := range []string{
		"\x00\x01undionly.kpxe\x00octet\x00blksize\x001432\x00tsize\x000\x00", "\x00\x02x\x00netascii\x00", "\x00\x01x\x00OCTET\x00WINDOWSIZE\x0099999999999999999999\x00",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		r, err := ParseRequest(p)
		if err != nil {
			return
		}
		terms := r.Agree(1<<33, Limits{Block: 1468, Window: 64})
		if terms.Block < MinBlock || terms.Block > 1468 || terms.Window < 1 || terms.Window > 64 {
			t.Fatalf("%q: %+v", p, terms)
		}
		if oack := r.AppendOAck(nil, terms); terms.Options == (len(oack) == 2) || bytes.Count(oack, []byte{0})%2 != 1 {
			t.Fatalf("%q: OACK %q", p, oack)
		}
	})
}

// FuzzSession plays any events, at any times, in both kinds of session.
func FuzzSession(f *testing.F) {
	f.Add(uint32(5000), uint16(512), uint8(1), true, []byte{2, 0, 0, 1, 2, 1, 0, 9, 5, 0, 0, 200})
	f.Add(uint32(1<<20), uint16(8), uint8(4), false, []byte{2, 4, 0, 1, 2, 4, 0, 1, 2, 0, 1, 3})
	f.Fuzz(func(t *testing.T, size uint32, block uint16, window uint8, options bool, events []byte) {
		terms := Terms{Size: int64(size), Block: max(int(block), MinBlock), Window: max(int(window), 1), Options: options}
		for _, s := range []Session{NewSession(terms), NewAdopted(terms, uint64(block), true)} {
			now := time.Duration(0)
			s.Step(now, Event{Kind: Start})
			for e := events; len(e) >= 4 && s.Result() == Running; e = e[4:] {
				now += time.Duration(e[3]) * time.Millisecond
				before := s.Acked()
				a := s.Step(now, Event{Kind: EventKind(e[0] % 7), Block: uint16(e[1]) | uint16(e[2])<<8})
				if s.Acked() < before || s.Acked() > s.last || s.sent > s.last && s.Result() == Running {
					t.Fatalf("acked %d after %d, sent %d of %d", s.Acked(), before, s.sent, s.last)
				}
				if a.What == SendBlocks && (a.Count < 1 || a.Count > terms.Window || a.First != s.Acked()+1 || a.First+uint64(a.Count)-1 > s.last) {
					t.Fatalf("sends %+v with %d acknowledged, last %d", a, s.Acked(), s.last)
				}
				if s.Deadline() <= now && a.What == SendBlocks {
					t.Fatalf("a deadline that is over: %v at %v", s.Deadline(), now)
				}
			}
		}
	})
}
