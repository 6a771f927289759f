package vip

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

func prefixes(list ...string) []netip.Prefix {
	var ps []netip.Prefix
	for _, s := range list {
		ps = append(ps, netip.MustParsePrefix(s))
	}
	return ps
}

func good() Config {
	return Config{Interface: "eth0", Addresses: prefixes("198.18.0.10/24"), VRID: 51}
}

func TestValidate(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Config)
		want   string // a part of the error; empty: none
	}{
		"defaults":               {func(*Config) {}, ""},
		"all the extremes":       {func(c *Config) { c.VRID, c.Priority, c.AdvertInterval = 255, 255, 40950*time.Millisecond }, ""},
		"10 ms":                  {func(c *Config) { c.AdvertInterval = 10 * time.Millisecond }, ""},
		"one address of a /32":   {func(c *Config) { c.Addresses = prefixes("198.18.0.0/32") }, ""},
		"no interface":           {func(c *Config) { c.Interface = "" }, "no interface is given"},
		"VRID 0":                 {func(c *Config) { c.VRID = 0 }, "vrid 0: use 1 to 255"},
		"VRID 256":               {func(c *Config) { c.VRID = 256 }, "vrid 256"},
		"priority 256":           {func(c *Config) { c.Priority = 256 }, "priority 256: use 10 to 254"},
		"priority of the sick":   {func(c *Config) { c.Priority = 9 }, "priority 9: use 10 to 254"},
		"5 ms":                   {func(c *Config) { c.AdvertInterval = 5 * time.Millisecond }, "interval 5ms: use 10ms to 40.95s"},
		"41 s":                   {func(c *Config) { c.AdvertInterval = 41 * time.Second }, "interval 41s: use 10ms to 40.95s"},
		"negative interval":      {func(c *Config) { c.AdvertInterval = -time.Second }, "interval -1s"},
		"15 ms":                  {func(c *Config) { c.AdvertInterval = 15 * time.Millisecond }, "15ms: use a multiple of 10ms"},
		"no address":             {func(c *Config) { c.Addresses = nil }, "0 addresses: give 1 to 255"},
		"256 addresses":          {func(c *Config) { c.Addresses = make([]netip.Prefix, 256) }, "256 addresses"},
		"IPv6":                   {func(c *Config) { c.Addresses = prefixes("2001:db8::10/64") }, ""},
		"both families":          {func(c *Config) { c.Addresses = prefixes("198.18.0.10/24", "2001:db8::10/64") }, "of another family"},
		"the anycast address":    {func(c *Config) { c.Addresses = prefixes("2001:db8::/64") }, "every router's of its net"},
		"IPv4 in IPv6":           {func(c *Config) { c.Addresses = prefixes("::ffff:198.18.0.10/120") }, "use an address with its net"},
		"a peer":                 {func(c *Config) { c.Peers = []netip.Addr{netip.MustParseAddr("198.18.0.3")} }, ""},
		"a peer of IPv6":         {func(c *Config) { c.Peers = []netip.Addr{netip.MustParseAddr("fe80::3")} }, "peer fe80::3: use the own address"},
		"the VIP as a peer":      {func(c *Config) { c.Peers = []netip.Addr{netip.MustParseAddr("198.18.0.10")} }, "peer 198.18.0.10"},
		"a negative delay":       {func(c *Config) { c.PreemptDelay = -1 }, "preempt delay -1ns"},
		"the net itself":         {func(c *Config) { c.Addresses = prefixes("198.18.0.0/24") }, "names the whole net"},
		"the broadcast address":  {func(c *Config) { c.Addresses = prefixes("198.18.1.255/23") }, "names the whole net"},
		"multicast":              {func(c *Config) { c.Addresses = prefixes("224.0.0.18/4") }, "not the address of a host"},
		"twice, in two nets":     {func(c *Config) { c.Addresses = prefixes("198.18.0.10/24", "198.18.0.10/25") }, "given twice"},
		"everything is reported": {func(c *Config) { c.VRID, c.Interface = 0, "" }, "vrid 0"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := good()
			c.change(&cfg)
			err := cfg.Validate()
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestPickPrimary(t *testing.T) {
	for name, c := range map[string]struct {
		floating, own []netip.Prefix
		want          string // an address, or a part of the error
	}{
		"the address in the net":        {prefixes("198.18.0.10/24"), prefixes("198.18.9.2/24", "198.18.0.2/24"), "198.18.0.2"},
		"the first floating one counts": {prefixes("198.18.0.10/24", "198.18.9.10/24"), prefixes("198.18.9.2/24", "198.18.0.2/24"), "198.18.0.2"},
		"a leftover is not our own":     {prefixes("198.18.0.10/24"), prefixes("198.18.0.10/24", "198.18.0.2/24"), "198.18.0.2"},
		"only a leftover":               {prefixes("198.18.0.10/24"), prefixes("198.18.0.10/24"), "no address of that family of its own"},
		"nothing":                       {prefixes("198.18.0.10/24"), nil, "address 198.18.0.10/24 is in no net of interface eth0"},
		"another net":                   {prefixes("198.18.0.10/24"), prefixes("198.18.9.2/24"), "it has 198.18.9.2/24"},
		"the second in no net":          {prefixes("198.18.0.10/24", "198.18.7.1/24"), prefixes("198.18.0.2/24"), "198.18.7.1/24 is in no net"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := good()
			cfg.Addresses = c.floating
			got, err := cfg.pickPrimary(c.own)
			if err == nil && got.String() != c.want || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %s, %v, want %q", got, err, c.want)
			}
		})
	}
}
