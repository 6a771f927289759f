package reserve

import (
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"everboot/site"
)

var devices = []site.Device{
	{MAC: site.MAC{0x52, 0x54, 0, 0, 0, 1}, Name: "t1", Address: netip.MustParseAddr("198.18.0.51")},
	{MAC: site.MAC{0x52, 0x54, 0, 0, 0, 2}, Name: "t2", Address: netip.MustParseAddr("198.18.0.52")},
}

// clients are devices with client identifiers: a text, and one with the hardware type.
var clients = []site.Device{
	{MAC: site.MAC{0x52, 0x54, 0, 0, 0, 1}, Name: "t1", Address: netip.MustParseAddr("198.18.0.51"), ClientID: "desk 7"},
	{MAC: site.MAC{0x52, 0x54, 0, 0, 0, 2}, Name: "t2", Address: netip.MustParseAddr("198.18.0.52"), ClientID: "\x01RT\x00\x00\x00\x02"},
}

// nameless are devices without a name, and some whose names could have been made for one.
var nameless = []site.Device{
	{MAC: site.MAC{0x52, 0x54, 0, 0, 0, 1}, Address: netip.MustParseAddr("198.18.0.51"), Address6: netip.MustParseAddr("2001:db8::51")},
	{MAC: site.MAC{0x52, 0x54, 0, 0, 0, 2}, Name: "host-525400000003", Address: netip.MustParseAddr("198.18.0.52")},
	{MAC: site.MAC{0x52, 0x54, 0, 0, 0, 5}, Name: "host-525400000005", Address: netip.MustParseAddr("198.18.0.55"), Address6: netip.MustParseAddr("2001:db8::55")},
	{MAC: site.MAC{0x52, 0x54, 0, 0, 0, 6}, Name: "host-525400000005-v6", Address: netip.MustParseAddr("198.18.0.56")},
	{MAC: site.MAC{0x52, 0x54, 0, 0, 0, 4}, Address6: netip.MustParseAddr("2001:db8::54")},
}

func TestReadBackWhatIsWritten(t *testing.T) {
	for _, f := range Formats {
		if got, _, err := Parse(f, "file", Write(f, clients)); err != nil || !reflect.DeepEqual(got, clients) {
			t.Errorf("%s, with client identifiers: %v, %v\n%s", f, got, err, Write(f, clients))
		}
		if got, _, err := Parse(f, "file", Write(f, nameless)); err != nil || !reflect.DeepEqual(got, nameless) {
			t.Errorf("%s, without names: %v, %v\n%s", f, got, err, Write(f, nameless))
		}
		text := Write(f, append(devices, site.Device{MAC: site.MAC{2}, Name: "without an address"}))
		got, _, err := Parse(f, "file", text)
		if err != nil || !reflect.DeepEqual(got, devices) {
			t.Errorf("%s: %v, %v\n%s", f, got, err, text)
		}
	}
}

// TestOtherServersFiles are files as people have them.
func TestOtherServersFiles(t *testing.T) {
	for f, text := range map[Format]string{
		ISC: `# site
option domain-name "x { y";
subnet 198.18.0.0 netmask 255.255.255.0 { range 198.18.0.100 198.18.0.199; }
group { next-server 198.18.0.10;
  host t1 { hardware ethernet 52:54:00:00:00:01; fixed-address 198.18.0.51; option host-name "t1"; }
  host t2 {   # the second
    fixed-address 198.18.0.52;
    hardware ethernet 52:54:0:0:0:2;
  }
}`,
		Kea: `// Kea's own configuration
{ "Dhcp4": { # comments of three kinds
  "subnet4": [ { "subnet": "198.18.0.0/24", /* the pool
   is elsewhere */ "reservations": [
     { "hw-address": "52:54:00:00:00:01", "ip-address": "198.18.0.51", "hostname": "t1" },
     { "hw-address": "52:54:00:00:00:02", "ip-address": "198.18.0.52", "hostname": "t2", "option-data": [] } ] } ] } }`,
		Dnsmasq: "interface=eth0\ndhcp-host=52:54:00:00:00:01,t1,198.18.0.51,infinite\n# old\ndhcp-host=set:red,52:54:00:00:00:02,198.18.0.52,t2,12h # new\n",
		CSV:     "name,address,mac,room\nt1,198.18.0.51,52-54-00-00-00-01,7\nt2,198.18.0.52,525400000002,8\n",
	} {
		got, lines, err := Parse(f, "file", []byte(text))
		if err != nil || !reflect.DeepEqual(got, devices) {
			t.Errorf("%s: %v, %v", f, got, err)
		}
		for i, line := range lines {
			if at := strings.Split(text, "\n")[line-1]; !strings.Contains(at, got[i].Name) {
				t.Errorf("%s: %s stands at line %d: %s", f, got[i].Name, line, at)
			}
		}
	}
}

// TestClientIdentifiers as other servers' files write them: as text and as bytes, beside a MAC or, of type 1, in place of one.
func TestClientIdentifiers(t *testing.T) {
	for f, text := range map[Format]string{
		ISC: `host t1 { hardware ethernet 52:54:00:00:00:01; option dhcp-client-identifier "desk 7"; fixed-address 198.18.0.51; }
host t2 { option dhcp-client-identifier 1:52:54:0:0:0:2; fixed-address 198.18.0.52; }`,
		Kea: `{"reservations": [
 {"hw-address": "52:54:00:00:00:01", "user-context": {"client-id": "'desk 7'"}, "ip-address": "198.18.0.51", "hostname": "t1"},
 {"client-id": "01525400000002", "ip-address": "198.18.0.52", "hostname": "t2"}]}`,
		Dnsmasq: "dhcp-host=52:54:00:00:00:01,id:desk 7,198.18.0.51,t1\ndhcp-host=id:01:52:54:00:00:00:02,198.18.0.52,t2\n",
		CSV:     "mac,name,address,client_id\n52:54:00:00:00:01,t1,198.18.0.51,6465736b2037\n,t2,198.18.0.52,01:52:54:00:00:00:02\n",
	} {
		got, _, err := Parse(f, "file", []byte(text))
		if err != nil || !reflect.DeepEqual(got, clients) {
			t.Errorf("%s: %+v, %v", f, got, err)
		}
	}
	if got, _, err := Parse(Dnsmasq, "file", []byte("dhcp-host=52:54:00:00:00:01,id:*,198.18.0.51,t1\n")); err != nil || got[0].ClientID != "" {
		t.Errorf("id:* %+v, %v", got, err)
	}
}

func TestBrokenFiles(t *testing.T) {
	for name, c := range map[string]struct {
		format Format
		text   string
		want   string
	}{
		"nothing in it":        {ISC, "\n\n", "f:1: no reservation"},
		"host without end":     {ISC, "\nhost a { hardware ethernet 52:54:00:00:00:01;", "f:2: host a has no closing }"},
		"host without MAC":     {ISC, "host a { fixed-address 198.18.0.5; }", "f:1: host a has no hardware ethernet"},
		"host without addr":    {ISC, "\n\nhost a { hardware ethernet 52:54:00:00:00:01; }", "f:3: host a has no fixed-address"},
		"a name for address":   {ISC, "host a { hardware ethernet 52:54:00:00:00:01; fixed-address a.example; }", `f:1: address "a.example"`},
		"twice the MAC":        {CSV, "mac,address\n52:54:00:00:00:01,198.18.0.5\n52:54:00:00:00:01,198.18.0.6\n", "f:3: 52:54:00:00:00:01 stands at line 2"},
		"twice the address":    {Dnsmasq, "dhcp-host=52:54:00:00:00:01,198.18.0.5\ndhcp-host=52:54:00:00:00:02,198.18.0.5\n", "f:2: 198.18.0.5 stands at line 1"},
		"no address":           {Dnsmasq, "\ndhcp-host=52:54:00:00:00:01,t1\n", "f:2: dhcp-host="},
		"half a line":          {CSV, "mac,address\n52:54:00:00:00:01\n", "f:2: wrong number of fields"},
		"a bare quote":         {CSV, "mac,address\na\"b,198.18.0.5\n", `f:2: bare "`},
		"no header":            {CSV, "52:54:00:00:00:01,198.18.0.5\n", "f:1: the header"},
		"an identifier alone":  {ISC, "\nhost a { option dhcp-client-identifier ff:01:02; fixed-address 198.18.0.5; }", "f:2: a client identifier and no MAC"},
		"bad identifier":       {Kea, "{\n\"reservations\": [\n{\"hw-address\": \"52:54:00:00:00:01\", \"client-id\": \"desk\", \"ip-address\": \"198.18.0.5\"}]}", "f:3: client identifier \"desk\""},
		"twice the identifier": {CSV, "mac,address,client_id\n52:54:00:00:00:01,198.18.0.5,ff:01\n52:54:00:00:00:02,198.18.0.6,ff:01\n", "f:3: client identifier ff:01 stands at line 2"},
		"bad JSON":             {Kea, "{\n\"reservations\": [\n{\"hw-address\": }]}", "f:3: "},
		"a MAC of a group":     {CSV, "mac,address\nzz:54:00:00:00:01,198.18.0.5\n", "f:2: "},
		"reservation of none":  {Kea, "{\n\n\"reservations\": [ {\"hw-address\": \"52:54:00:00:00:01\"} ]}", "f:3: a reservation without"},
	} {
		got, _, err := Parse(c.format, "f", []byte(c.text))
		if err == nil || !strings.HasPrefix(err.Error(), c.want) || got != nil {
			t.Errorf("%s: %v, %v; want %s", name, got, err, c.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for i, format := range Formats {
		f.Add(Write(format, devices), i)
	}
	f.Add([]byte(`host a { option dhcp-client-identifier "x y"; fixed-address 198.18.0.5; }`), slices.Index(Formats, ISC))
	f.Add([]byte("mac,address\na\"b,198.18.0.5\n"), slices.Index(Formats, CSV))
	f.Fuzz(func(t *testing.T, text []byte, i int) {
		format := Formats[(i%len(Formats)+len(Formats))%len(Formats)]
		list, _, err := Parse(format, "f", text)
		if (err == nil) != (len(list) > 0) {
			t.Errorf("%d devices, %v", len(list), err)
		}
	})
}
