package peers

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
)

func TestMessageComesBackAsItWas(t *testing.T) {
	b := marshal("a", Leases, []byte("body"))
	from, topic, body, ok := parse(b)
	if !ok || from != "a" || topic != Leases || string(body) != "body" {
		t.Errorf("parse(%q) = %q %d %q %t", b, from, topic, body, ok)
	}
}

func TestWholeComesBackAsItWas(t *testing.T) {
	parts := []part{{Connections, []byte("one")}, {Leases, bytes.Repeat([]byte("x"), 70000)}, {Transfers, []byte{}}}
	from, got, ok := parseWhole(marshalWhole("node-b", parts))
	if !ok || from != "node-b" || !reflect.DeepEqual(got, parts) {
		t.Errorf("parseWhole: from %q, %d parts, ok %t", from, len(got), ok)
	}
}

func TestMalformedIsRefused(t *testing.T) {
	for _, b := range []string{
		"", "\x01", "\x02\x01a\x01", "\x01\x00\x01body", "\x01\x05ab", "\x01\x01a", "\x01\xff" + strings.Repeat("n", 255) + "\x01",
	} {
		if from, _, _, ok := parse([]byte(b)); ok {
			t.Errorf("parse(%q) was taken, from %q", b, from)
		}
	}
	for _, b := range []string{"", "\x01\x01a\x01", "\x01\x01a\x01\x00\x00\x00\x02x", "\x01\x01a\x01\xff\xff\xff\xffx"} {
		if _, parts, ok := parseWhole([]byte(b)); ok {
			t.Errorf("parseWhole(%q) was taken: %v", b, parts)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(marshal("a", Leases, []byte("body")))                                         // a message
	f.Add(marshalWhole("b", []part{{Connections, []byte("one")}, {Leases, []byte{1}}})) // a whole
	f.Add([]byte("\x01\x01a\x01\xff\xff\xff\xffx"))                                     // a length that overflows an int32
	f.Fuzz(func(t *testing.T, b []byte) {
		if from, topic, body, ok := parse(b); ok && !bytes.Equal(marshal(from, topic, body), b) {
			t.Errorf("parse and marshal of %q differ", b)
		}
		if from, parts, ok := parseWhole(b); ok && !bytes.Equal(marshalWhole(from, parts), b) {
			t.Errorf("parseWhole and marshalWhole of %q differ", b)
		}
	})
}
