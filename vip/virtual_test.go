package vip

import (
	"encoding/hex"
	"net"
	"net/netip"
	"strings"
	"testing"

	"everboot/vip/vrrp"
)

func TestAdvertisementFrame(t *testing.T) {
	got := advertisementFrame(virtualMAC(51), []byte{0x31, 51}, netip.MustParseAddr("198.18.0.2"), vrrp.Group4())
	// The header's checksum: 45c0 + 0016 + ff70 + c612 + 0002 + e000 + 0012 = 2eb6c, folded eb6e, its complement 1491.
	want := "01005e000012" + "00005e000133" + "0800" + "45c0001600000000ff701491c6120002e0000012" + "3133"
	if hex.EncodeToString(got) != want {
		t.Errorf("got %x, want %s", got, want)
	}
}

// TestVirtualName: Linux has room for 15 bytes.
func TestVirtualName(t *testing.T) {
	if name := virtualName(&net.Interface{Index: 999999}, 255); len(name) > 15 {
		t.Errorf("%s is too long", name)
	}
}

func TestWhatDoesNotGoWithAVirtualMAC(t *testing.T) {
	for _, c := range []struct {
		change func(*Config)
		want   string // empty: it is good
	}{
		{func(*Config) {}, ""},
		{func(c *Config) { c.Addresses = []netip.Prefix{netip.MustParsePrefix("2001:db8::10/64")} }, "virtual_mac is for IPv4"},
		{func(c *Config) { c.Peers = []netip.Addr{netip.MustParseAddr("198.18.0.3")} }, "virtual_mac goes with multicast"},
	} {
		cfg := good()
		cfg.VirtualMAC = true
		c.change(&cfg)
		if err := cfg.Validate(); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %q", err, c.want)
		}
	}
}
