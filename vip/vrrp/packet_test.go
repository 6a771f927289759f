package vrrp

import (
	"encoding/hex"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

var (
	a2 = netip.MustParseAddr("198.18.0.2")
	a3 = netip.MustParseAddr("198.18.0.3")
	v4 = []netip.Addr{netip.MustParseAddr("198.18.0.10"), netip.MustParseAddr("198.18.0.11")}
)

// fromKeepalived is an advertisement of keepalived 2.2.7, captured on its way from 198.18.0.2 to 224.0.0.18.
const fromKeepalived = "31336402 000a37de c612000a c612000b"

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestMarshalIsWhatKeepalivedSends(t *testing.T) {
	a := Advertisement{VRID: 51, Priority: 100, Interval: 100 * time.Millisecond, Addresses: v4}
	b, err := a.Marshal(a2, Group4())
	if err != nil {
		t.Fatal(err)
	}
	if want := unhex(t, fromKeepalived); !reflect.DeepEqual(b, want) {
		t.Errorf("got  %x\nwant %x", b, want)
	}
}

func TestParseKeepsWhatMarshalWrote(t *testing.T) {
	six := []netip.Addr{netip.MustParseAddr("fe80::10"), netip.MustParseAddr("2001:db8::10")}
	link, group6 := netip.MustParseAddr("fe80::2"), netip.MustParseAddr("ff02::12")
	for name, c := range map[string]struct {
		a        Advertisement
		src, dst netip.Addr
	}{
		"pseudo-header":    {Advertisement{VRID: 1, Priority: 255, Interval: MinInterval, Addresses: v4}, a2, Group4()},
		"message only":     {Advertisement{VRID: 255, Priority: 1, Interval: MaxInterval, Addresses: v4[:1], Checksum: MessageOnly}, a2, Group4()},
		"to a unicast":     {Advertisement{VRID: 7, Interval: time.Second, Addresses: v4}, a2, a3},
		"resignation":      {Advertisement{VRID: 7, Interval: time.Second, Addresses: v4}, a2, Group4()},
		"IPv6, link-local": {Advertisement{VRID: 7, Priority: 100, Interval: time.Second, Addresses: six}, link, group6},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := c.a.Marshal(c.src, c.dst)
			if err != nil {
				t.Fatal(err)
			}
			got, reason := Parse(Packet{Source: c.src, Destination: c.dst, TTL: TTL, Payload: b})
			if reason != Accepted || !reflect.DeepEqual(got, c.a) {
				t.Errorf("got %+v, %q, want %+v", got, reason, c.a)
			}
		})
	}
}

func TestMarshalRefuses(t *testing.T) {
	good := Advertisement{VRID: 51, Priority: 100, Interval: time.Second, Addresses: v4}
	for name, c := range map[string]struct {
		change func(*Advertisement)
		want   string
	}{
		"VRID 0":             {func(a *Advertisement) { a.VRID = 0 }, "VRID 0"},
		"no address":         {func(a *Advertisement) { a.Addresses = nil }, "0 addresses"},
		"256 addresses":      {func(a *Advertisement) { a.Addresses = make([]netip.Addr, 256) }, "256 addresses"},
		"interval of 5 ms":   {func(a *Advertisement) { a.Interval = 5 * time.Millisecond }, "5ms"},
		"interval of 15 ms":  {func(a *Advertisement) { a.Interval = 15 * time.Millisecond }, "15ms"},
		"interval of 41 s":   {func(a *Advertisement) { a.Interval = 41 * time.Second }, "41s"},
		"address of IPv6":    {func(a *Advertisement) { a.Addresses = []netip.Addr{netip.IPv6LinkLocalAllNodes()} }, "family"},
		"address of nothing": {func(a *Advertisement) { a.Addresses = []netip.Addr{{}} }, "family"},
	} {
		t.Run(name, func(t *testing.T) {
			a := good
			c.change(&a)
			if _, err := a.Marshal(a2, Group4()); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
	if _, err := good.Marshal(a2, netip.MustParseAddr("ff02::12")); err == nil {
		t.Error("an IPv4 source and an IPv6 group went together")
	}
}

// TestPacketsThatAreDropped is RFC 9568 §7.1, check by check.
func TestPacketsThatAreDropped(t *testing.T) {
	cfg := Config{VRID: 51, Priority: 100, Interval: time.Second, Primary: a3, Addresses: v4}
	good := Advertisement{VRID: 51, Priority: 100, Interval: time.Second, Addresses: v4}
	// resum mends the checksum after a change, so that only the change is at fault.
	resum := func(p *Packet) {
		p.Payload[6], p.Payload[7] = 0, 0
		s := ^sum(PseudoHeader, p.Source, p.Destination, p.Payload)
		p.Payload[6], p.Payload[7] = byte(s>>8), byte(s)
	}
	for name, c := range map[string]struct {
		change func(*Packet)
		want   Reason
	}{
		"nothing wrong":           {func(*Packet) {}, Accepted},
		"reserved bits are set":   {func(p *Packet) { p.Payload[4] |= 0xf0; resum(p) }, Accepted}, // §5.2.6: ignored
		"no pseudo-header":        {func(p *Packet) { a := good; a.Checksum = MessageOnly; p.Payload, _ = a.Marshal(a2, Group4()) }, Accepted},
		"TTL 254":                 {func(p *Packet) { p.TTL = 254 }, BadTTL},
		"TTL 0":                   {func(p *Packet) { p.TTL = 0 }, BadTTL},
		"empty":                   {func(p *Packet) { p.Payload = nil }, BadLength},
		"version 2":               {func(p *Packet) { p.Payload[0] = 2<<4 | 1 }, BadVersion},
		"version 4":               {func(p *Packet) { p.Payload[0] = 4<<4 | 1 }, BadVersion},
		"type 2":                  {func(p *Packet) { p.Payload[0] = 3<<4 | 2 }, BadType},
		"cut in the header":       {func(p *Packet) { p.Payload = p.Payload[:7] }, BadLength},
		"cut in the addresses":    {func(p *Packet) { p.Payload = p.Payload[:12] }, BadLength},
		"one byte too long":       {func(p *Packet) { p.Payload = append(p.Payload, 0) }, BadLength},
		"VRRPv2's authentication": {func(p *Packet) { p.Payload = append(p.Payload, make([]byte, 8)...) }, BadLength},
		"one bit wrong":           {func(p *Packet) { p.Payload[2] ^= 1 }, BadChecksum},
		"from another source":     {func(p *Packet) { p.Source = netip.MustParseAddr("198.18.0.9") }, BadChecksum},
		"no addresses":            {func(p *Packet) { p.Payload = p.Payload[:8]; p.Payload[3] = 0; resum(p) }, NoAddresses},
		"interval 0":              {func(p *Packet) { p.Payload[4], p.Payload[5] = 0, 0; resum(p) }, BadInterval},
		"VRID 0":                  {func(p *Packet) { p.Payload[1] = 0; resum(p) }, OtherVRID},
		"VRID 52":                 {func(p *Packet) { p.Payload[1] = 52; resum(p) }, OtherVRID},
		"our own address":         {func(p *Packet) { p.Source = a3; resum(p) }, FromSelf},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := good.Marshal(a2, Group4())
			if err != nil {
				t.Fatal(err)
			}
			p := Packet{Source: a2, Destination: Group4(), TTL: TTL, Payload: b}
			c.change(&p)
			if _, got := cfg.Accept(p); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestParseIPv4(t *testing.T) {
	header := "45c00024 00000000 ff700000 c6120002 e0000012"
	for name, c := range map[string]struct {
		packet string
		want   Reason
		length int
	}{
		"plain":                 {header + fromKeepalived, Accepted, 16},
		"padded by Ethernet":    {header + fromKeepalived + "0000", Accepted, 16},
		"with options":          {"46c00028 00000000 ff700000 c6120002 e0000012 94040000" + fromKeepalived, Accepted, 16},
		"empty":                 {"", BadLength, 0},
		"IPv6":                  {"65c00024 00000000 ff700000 c6120002 e0000012", BadLength, 0},
		"header of 16 bytes":    {"44c00024 00000000 ff700000 c6120002 e0000012", BadLength, 0},
		"longer than it is":     {header, BadLength, 0},
		"shorter than a header": {"45c00013 00000000 ff700000 c6120002 e0000012", BadLength, 0},
	} {
		t.Run(name, func(t *testing.T) {
			p, reason := ParseIPv4(unhex(t, c.packet))
			if reason != c.want || len(p.Payload) != c.length {
				t.Fatalf("got %q and %d bytes, want %q and %d", reason, len(p.Payload), c.want, c.length)
			}
			if reason == Accepted && (p.Source != a2 || p.Destination != Group4() || p.TTL != 255) {
				t.Errorf("got %+v", p)
			}
		})
	}
}

// FuzzParse holds that nothing from the wire makes Parse panic, and that what it accepts can be written and read again.
func FuzzParse(f *testing.F) {
	f.Add(uint8(255), unhex(f, fromKeepalived)) // good
	f.Add(uint8(254), unhex(f, fromKeepalived)) // good but for the TTL
	f.Add(uint8(255), unhex(f, "3133640200640000"))
	f.Add(uint8(255), unhex(f, "3133ff00000acb99"))                 // count 0
	f.Add(uint8(255), unhex(f, "21336401 0001 0000 c612000a"))      // version 2, no authentication
	f.Add(uint8(255), append([]byte{0x31, 51, 100, 255}, 0, 10, 0)) // says 255 addresses, has none; odd length
	f.Add(uint8(255), []byte{})
	f.Fuzz(func(t *testing.T, ttl uint8, payload []byte) {
		p := Packet{Source: a2, Destination: Group4(), TTL: ttl, Payload: payload}
		// Most inputs die of their checksum; mend it in a copy, so that the rest of the parser is reached.
		mended := p
		if len(payload) >= headerLen {
			mended.Payload = append([]byte(nil), payload...)
			mended.Payload[6], mended.Payload[7] = 0, 0
			s := ^sum(PseudoHeader, p.Source, p.Destination, mended.Payload)
			mended.Payload[6], mended.Payload[7] = byte(s>>8), byte(s)
		}
		for _, p := range []Packet{p, mended} {
			a, reason := Parse(p)
			if reason != Accepted {
				continue
			}
			b, err := a.Marshal(p.Source, p.Destination)
			if err != nil {
				t.Fatalf("marshalling what was accepted: %v", err)
			}
			again, reason := Parse(Packet{Source: p.Source, Destination: p.Destination, TTL: TTL, Payload: b})
			if reason != Accepted || !reflect.DeepEqual(a, again) {
				t.Errorf("got %+v (%q), want %+v", again, reason, a)
			}
		}
	})
}

// FuzzParseIPv4 holds that no header leads outside the packet.
func FuzzParseIPv4(f *testing.F) {
	f.Add(unhex(f, "45c00024 00000000 ff700000 c6120002 e0000012"+fromKeepalived))
	f.Add(unhex(f, "4fc0003c 00000000 ff700000 c6120002 e0000012")) // says that it has 40 bytes of options
	f.Add(unhex(f, "45c0ffff 00000000 ff700000 c6120002 e0000012")) // says that it has 65,535 bytes
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, reason := ParseIPv4(b); reason == Accepted {
			Parse(p)
		}
	})
}
