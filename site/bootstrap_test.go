package site

import (
	"net/netip"
	"strings"
	"testing"

	"everboot/internal/golden"
)

func TestBootstrapScript(t *testing.T) {
	four := []string{"198.18.0.10", "198.18.0.2:8080", "[2001:db8::2]", "boot.example.net"}
	for name, b := range map[string]Bootstrap{
		"none": {},
		"four": {Hosts: four},
		"medium": {
			Hosts: []string{"198.18.0.10", "198.18.0.2"}, Site: "berlin", Key: "a-key-of-our-own", MAC: MAC{0x52, 0x54, 0, 0, 0, 1}, VLAN: 7,
			Address: netip.MustParsePrefix("198.18.0.51/24"), Gateway: netip.MustParseAddr("198.18.0.1"), DNS: netip.MustParseAddr("198.18.0.1"),
		},
		"first-link": {Hosts: []string{"198.18.0.10"}, Address: netip.MustParsePrefix("198.18.0.51/24")},
		"vlan":       {Hosts: []string{"198.18.0.10"}, VLAN: 7},
		"https":      {Hosts: []string{"https://boot.example.net", "198.18.0.10"}},
	} {
		if err := b.Check(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		golden.Compare(t, "bootstrap-"+name+".ipxe", b.Script())
	}
}

// TestBootstrapCheckRefuses: what is in a script must not be able to be more than one word of it.
func TestBootstrapCheckRefuses(t *testing.T) {
	address := netip.MustParsePrefix("198.18.0.51/24")
	for want, b := range map[string]Bootstrap{
		"login server":        {Hosts: []string{"198.18.0.10 && shell"}},
		`login server ""`:     {Hosts: []string{""}},
		`"http://`:            {Hosts: []string{"http://198.18.0.10"}},
		"site":                {Site: "a b"},
		"boot key":            {Key: "short"},
		"VLAN":                {VLAN: 4095},
		"without an address":  {Gateway: address.Addr()},
		"use an IPv4 address": {Address: netip.MustParsePrefix("2001:db8::1/64")},
		"network's own":       {Address: address.Masked()},
		"gateway":             {Address: address, Gateway: netip.MustParseAddr("198.18.1.1")},
		"DNS server":          {Address: address, DNS: netip.MustParseAddr("2001:db8::1")},
	} {
		if err := b.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want something about %q", b, err, want)
		}
	}
}

func TestHosts(t *testing.T) {
	addrs := []netip.Addr{netip.MustParseAddr("198.18.0.10"), netip.MustParseAddr("2001:db8::2")}
	for port, want := range map[uint16]string{80: "198.18.0.10 [2001:db8::2]", 8080: "198.18.0.10:8080 [2001:db8::2]:8080"} {
		if got := strings.Join(Hosts(addrs, port), " "); got != want {
			t.Errorf("port %d: %s, want %s", port, got, want)
		}
	}
}
