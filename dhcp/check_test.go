package dhcp

import (
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"everboot/site"
)

// TestBadConfig: each mistake is one line that names the thing and says what to do.
func TestBadConfig(t *testing.T) {
	subnet := func(f func(*Subnet)) func(*Config) { return func(c *Config) { f(&c.Subnets[0]) } }
	for want, f := range map[string]func(*Config){
		"":                           func(*Config) {},
		"no interface: name the one": func(c *Config) { c.Interface = "" },
		"server address invalid IP: use an IPv4 address of this node":             func(c *Config) { c.ServerAddress = netip.Addr{} },
		"no lease file: give the path":                                            func(c *Config) { c.LeaseFile = "" },
		"queue length -1: use 1 or more":                                          func(c *Config) { c.QueueLength = -1 },
		"peer 2001:db8::1: use an IPv4 address":                                   func(c *Config) { c.Peers = []netip.Addr{ip("2001:db8::1")} },
		"peer 198.18.0.2: this is the node itself":                                func(c *Config) { c.Peers = []netip.Addr{c.ServerAddress} },
		"peer 198.18.0.3: named twice":                                            func(c *Config) { c.Peers = append(c.Peers, c.Peers[0]) },
		"no subnet: add a [[dhcp.subnet]] for the network of 198.18.0.2":          func(c *Config) { c.Subnets = nil },
		"no subnet has the server's address 198.18.0.2 in it":                     func(c *Config) { c.Subnets = c.Subnets[1:] },
		"subnets 198.18.0.0/24 and 198.18.0.0/22 overlap":                         func(c *Config) { c.Subnets[1] = Subnet{Network: netip.MustParsePrefix("198.18.0.0/22")} },
		"subnet 2001:db8::/64: use an IPv4 network":                               func(c *Config) { c.Subnets[1].Network = netip.MustParsePrefix("2001:db8::/64") },
		"the address has bits outside the network; use 198.18.7.0/24":             func(c *Config) { c.Subnets[1].Network = netip.MustParsePrefix("198.18.7.5/24") },
		"has no room for clients":                                                 func(c *Config) { c.Subnets[2].Network = netip.MustParsePrefix("198.18.9.0/31") },
		"range 198.18.1.1-198.18.0.199: it is not inside the network":             subnet(func(s *Subnet) { s.Range[0] = ip("198.18.1.1") }),
		"range invalid IP-198.18.0.199: give the first and the last IPv4 address": subnet(func(s *Subnet) { s.Range[0] = netip.Addr{} }),
		"ranges 198.18.0.100-198.18.0.199 and 198.18.0.199-198.18.0.210 overlap": subnet(func(s *Subnet) {
			s.Ranges = [][2]netip.Addr{{ip("198.18.0.199"), ip("198.18.0.210")}}
		}),
		"exclude 198.18.1.1-198.18.1.2: it is not inside the network":            subnet(func(s *Subnet) { s.Exclude = [][2]netip.Addr{{ip("198.18.1.1"), ip("198.18.1.2")}} }),
		"range 198.18.0.199-198.18.0.100: the last address is below the first":   subnet(func(s *Subnet) { s.Range[0], s.Range[1] = s.Range[1], s.Range[0] }),
		"range 198.18.0.100-198.18.0.255: leave out 198.18.0.0 and 198.18.0.255": subnet(func(s *Subnet) { s.Range[1] = ip("198.18.0.255") }),
		"router 198.18.1.1 is not in the network":                                subnet(func(s *Subnet) { s.Router = ip("198.18.1.1") }),
		"DNS server ::1: use an IPv4 address":                                    subnet(func(s *Subnet) { s.DNS = []netip.Addr{ip("::1")} }),
		"17 DNS servers: use at most 16":                                         subnet(func(s *Subnet) { s.DNS = make([]netip.Addr, 17); fill(s.DNS, ip("198.18.0.1")) }),
		"is longer than 253 characters":                                          subnet(func(s *Subnet) { s.Domain = strings.Repeat("x", 254) }),
		"lease 1s: use 1m0s or more":                                             subnet(func(s *Subnet) { s.Lease = time.Second }),
	} {
		c := testConfig()
		f(&c)
		err := c.Validate()
		if want == "" {
			if err != nil {
				t.Errorf("a good one: %v", err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("want one line with %q, got %v", want, err)
		}
		if _, err := New(c, nil, nil, nil); err == nil {
			t.Errorf("New takes it: %s", want)
		}
	}
}

func fill(list []netip.Addr, a netip.Addr) {
	for i := range list {
		list[i] = a
	}
}

func TestBadReservations(t *testing.T) {
	view := testView()
	if errs := CheckReservations(testConfig(), view); len(errs) != 0 {
		t.Errorf("good ones: %v", errs)
	}
	for i, c := range []struct{ addr, want string }{
		{"198.18.0.51", "device 52:54:00:00:01:00: reserved address 198.18.0.51 is also that of device 52:54:00:00:00:01, which gets it"},
		{"203.0.113.5", "is in no [[dhcp.subnet]] (198.18.0.0/24, 198.18.7.0/24, 198.18.8.0/24)"},
		{"198.18.0.255", "is the network's own or its broadcast address"},
		{"198.18.0.1", "belongs to a router"},
		{"198.18.0.3", "an appliance"},
		{"198.18.0.10", "the VIP"},
		{"198.18.0.11", "the VIP"}, // a further one
		{"198.18.0.21", "a streamer"},
	} {
		v := testView()
		mac := site.MAC{0x52, 0x54, 0, 0, 1, byte(i)}
		if i == 0 {
			mac[5] = 0
		}
		v.Devices[mac] = site.Device{MAC: mac, Address: ip(c.addr)}
		errs := CheckReservations(testConfig(), v)
		if len(errs) != 1 || !strings.Contains(errs[0].Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.addr, errs, c.want)
		}
		// Whatever was refused is not given out either.
		p, _ := Handle(epoch, v, message(mac, discover), NewState(testConfig()))
		if p != nil && p.YourIPAddr.String() == c.addr {
			t.Errorf("%s was offered", c.addr)
		}
	}
}

func TestNoInterface(t *testing.T) {
	c := testConfig()
	c.Interface = "nosuch0"
	errs := Check(c, testView())
	if len(errs) != 1 || !strings.Contains(errs[0].Error(), "there is no interface nosuch0: use one of: ") {
		t.Errorf("%v", errs)
	}
	if _, err := os.Stat(c.LeaseFile); err == nil {
		t.Error("Check made the lease file")
	}
}

func TestHears(t *testing.T) {
	for at, want := range map[string]bool{
		"0.0.0.0":         true, // anybody
		"198.18.0.2":      true, // our address
		"255.255.255.255": true, // broadcasts
		"::":              true, // IPv6, and IPv4 with it
		"127.0.0.1":       false,
		"198.18.0.3":      false,
	} {
		if got := hears(ip(at), ip("198.18.0.2")); got != want {
			t.Errorf("%s: %v", at, got)
		}
	}
}
