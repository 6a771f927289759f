package site

import (
	"net/netip"
	"testing"
)

func TestConnectionComesBackAsItWas(t *testing.T) {
	for _, c := range []Connection{
		{},
		{Local: netip.MustParseAddrPort("198.18.0.10:3260"), Remote: netip.MustParseAddrPort("198.18.0.51:49152")},
		{Local: netip.MustParseAddrPort("[2001:db8::10]:80"), Remote: netip.MustParseAddrPort("[2001:db8::51]:1")},
		{Local: netip.MustParseAddrPort("0.0.0.0:3260")},
	} {
		b := c.Append(nil)
		if got, ok := ParseConnection(b); !ok || got != c {
			t.Errorf("%v came back as %v, %t", c, got, ok)
		}
		if _, ok := ParseConnection(b[1:]); ok || len(b) != ConnectionLen {
			t.Errorf("%v: %d bytes; one less is taken: %t", c, len(b), ok)
		}
	}
}
