package reserve

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"everboot/site"
)

// sixes are devices with an IPv6 address beside the other, and alone.
var sixes = []site.Device{
	{MAC: site.MAC{0x52, 0x54, 0, 0, 0, 1}, Name: "t1", Address: netip.MustParseAddr("198.18.0.51"), Address6: netip.MustParseAddr("2001:db8::51")},
	{MAC: site.MAC{0x52, 0x54, 0, 0, 0, 2}, Name: "t2", Address6: netip.MustParseAddr("2001:db8::52")},
}

func TestReadBackIPv6(t *testing.T) {
	for _, f := range Formats {
		if got, _, err := Parse(f, "file", Write(f, sixes)); err != nil || !reflect.DeepEqual(got, sixes) {
			t.Errorf("%s: %v, %v\n%s", f, got, err, Write(f, sixes))
		}
	}
	named := []site.Device{{MAC: site.MAC{2}, Name: "t3", Address6: netip.MustParseAddr("2001:db8::53"), ClientID: "desk 7"}}
	if got, _, err := Parse(Dnsmasq, "file", Write(Dnsmasq, named)); err != nil || got[0].ClientID != "" || got[0].Address6 != named[0].Address6 {
		t.Errorf("a client identifier became a DUID: %v, %v", got, err)
	}
}

// TestOtherServersIPv6 are files as people have them: by MAC and by DUID, with the IPv4 address in the same file and without.
func TestOtherServersIPv6(t *testing.T) {
	for f, text := range map[Format]string{
		ISC: `host t1 { hardware ethernet 52:54:00:00:00:01; fixed-address 198.18.0.51; }
host t1-six { hardware ethernet 52:54:00:00:00:01; fixed-address6 2001:db8::51; }
host t2 { host-identifier option dhcp6.client-id 0:1:0:1:4a:1f:ba:e3:52:54:0:0:0:2; fixed-address6 2001:db8::52; }`,
		Kea: `{ "Dhcp4": { "reservations": [ { "hw-address": "52:54:00:00:00:01", "ip-address": "198.18.0.51", "hostname": "t1" } ] },
 "Dhcp6": { "subnet6": [ { "reservations": [
  { "hw-address": "52:54:00:00:00:01", "ip-addresses": [ "2001:db8::51" ], "hostname": "t1" },
  { "duid": "00:03:00:01:52:54:00:00:00:02", "ip-addresses": [ "2001:db8::52" ], "prefixes": [], "hostname": "t2" } ] } ] } }`,
		Dnsmasq: "dhcp-host=52:54:00:00:00:01,198.18.0.51,[2001:db8::51],t1,12h\ndhcp-host=id:00:03:00:01:52:54:00:00:00:02,[2001:db8::52],t2\n",
		CSV:     "mac,name,address6,address\n52:54:00:00:00:01,t1,2001:db8::51,198.18.0.51\n52:54:00:00:00:02,t2,2001:db8:0::52,\n",
	} {
		if got, _, err := Parse(f, "file", []byte(text)); err != nil || !reflect.DeepEqual(got, sixes) {
			t.Errorf("%s: %v, %v", f, got, err)
		}
	}
}

func TestBrokenIPv6(t *testing.T) {
	for name, c := range map[string]struct {
		format Format
		text   string
		want   string
	}{
		"a DUID without a MAC":  {Kea, "{\n\"reservations\": [ {\"duid\": \"00:02:00:00:00:09:0c\", \"ip-addresses\": [\"2001:db8::5\"]} ]}", "f:2: a client identifier and no MAC"},
		"a bad DUID":            {Kea, "{\n\"reservations\": [ {\"duid\": \"zz\", \"ip-addresses\": [\"2001:db8::5\"]} ]}", "f:2: duid: "},
		"two addresses":         {Kea, "{\"reservations\": [ {\"hw-address\": \"52:54:00:00:00:01\", \"ip-addresses\": [\"2001:db8::5\", \"2001:db8::6\"]} ]}", "f:1: a reservation of 2"},
		"the other kind":        {ISC, "\nhost a { hardware ethernet 52:54:00:00:00:01; fixed-address6 198.18.0.5; }", `f:2: address "198.18.0.5": use a whole IPv6`},
		"a part of one":         {Dnsmasq, "dhcp-host=52:54:00:00:00:01,[::56]\n", `f:1: address "::56": use a whole IPv6`},
		"a network":             {Dnsmasq, "dhcp-host=52:54:00:00:00:01,[2001:db8::/64]\n", "f:1: dhcp-host="},
		"twice the address":     {CSV, "mac,address6\n52:54:00:00:00:01,2001:db8::5\n52:54:00:00:00:02,2001:db8::5\n", "f:3: 2001:db8::5 stands at line 2"},
		"twice the machine":     {CSV, "mac,address6\n52:54:00:00:00:01,2001:db8::5\n52:54:00:00:00:01,2001:db8::6\n", "f:3: 52:54:00:00:00:01 stands at line 2"},
		"its half has a name":   {CSV, "mac,address,address6,name\n52:54:00:00:00:01,198.18.0.5,,a\n52:54:00:00:00:02,198.18.0.6,,b\n52:54:00:00:00:01,,2001:db8::6,b\n", "f:4: name b stands at line 3"},
		"neither":               {CSV, "mac,address,address6\n52:54:00:00:00:01,,\n", `f:2: address "": use an IPv4`},
		"a column of addresses": {CSV, "mac,name\n52:54:00:00:00:01,a\n", "f:1: the header"},
	} {
		got, _, err := Parse(c.format, "f", []byte(c.text))
		if err == nil || !strings.HasPrefix(err.Error(), c.want) || got != nil {
			t.Errorf("%s: %v, %v; want %s", name, got, err, c.want)
		}
	}
}
