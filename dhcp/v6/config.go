// Package v6 is the DHCPv6 service (RFC 8415): addresses for a site's machines, and where those that boot load from (RFC 5970).
//
// There are no leases. A device has the address that is reserved for it, any other client the first free one of a few that a hash over the
// site, the client and its interface names. So every appliance of a site gives the same answer to the same question, under one server
// identifier, without a word to the others and without a disk. What is remembered of who uses what is a convenience: it keeps two clients
// whose hashes meet apart, and both appliances learn it from the same multicast messages. Where it fails, the client notices (RFC 4862
// §5.4), declines, and gets the next.
//
// Handle is the whole service as a function of the time, the site view, one message and what is remembered; Server owns the socket.
package v6

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// DefaultLease is the lifetime of an address unless Subnet says otherwise.
const DefaultLease = time.Hour

// Config says where and what the server serves.
type Config struct {
	Interface string // to listen on
	Site      string // its name makes the server identifier, and goes into the hash of each address
	Subnets   []Subnet
	// Addresses are what appliances have here, floating ones first. The subnet of the first of them that is in one is the interface's; where none
	// is, the only subnet is. Clients get none of these.
	Addresses []netip.Addr
}

// Subnet is a network that the server serves.
type Subnet struct {
	Network netip.Prefix
	Ranges  [][2]netip.Addr // first and last address of each pool; none: reservations only
	Exclude [][2]netip.Addr // first and last of those that are not given, though in a pool
	DNS     []netip.Addr    // option 23
	Lease   time.Duration   // how long an address is valid; default DefaultLease
}

func (s Subnet) lease() time.Duration {
	if s.Lease == 0 {
		return DefaultLease
	}
	return s.Lease
}

func within(list [][2]netip.Addr, a netip.Addr) bool {
	return slices.ContainsFunc(list, func(r [2]netip.Addr) bool { return r[0].Compare(a) <= 0 && a.Compare(r[1]) <= 0 })
}

// local returns the subnet of the interface.
func (c Config) local() (Subnet, bool) {
	for _, a := range c.Addresses {
		if s, ok := c.subnetOf(a); ok {
			return s, true
		}
	}
	if len(c.Subnets) == 1 {
		return c.Subnets[0], true
	}
	return Subnet{}, false
}

// Link returns the network of the interface; zero: it is not known.
func (c Config) Link() netip.Prefix {
	s, _ := c.local()
	return s.Network
}

// subnetOf returns the subnet that has the address in it.
func (c Config) subnetOf(a netip.Addr) (Subnet, bool) {
	i := slices.IndexFunc(c.Subnets, func(s Subnet) bool { return s.Network.Contains(a) })
	if i < 0 {
		return Subnet{}, false
	}
	return c.Subnets[i], true
}

// Validate returns an error with one line for each thing that is wrong with the configuration by itself.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("dhcp: "+format, args...)) }
	if c.Interface == "" {
		bad("no interface: name the one to serve")
	}
	if len(c.Subnets) == 0 {
		bad("no IPv6 subnet: add a [[dhcp.subnet]]")
	}
	for i, s := range c.Subnets {
		errs = append(errs, s.problems()...)
		for _, other := range c.Subnets[:i] {
			if other.Network.Overlaps(s.Network) {
				bad("subnets %s and %s overlap: a network may stand there once", other.Network, s.Network)
			}
		}
	}
	if _, ok := c.local(); !ok && len(c.Subnets) > 0 {
		bad("of several IPv6 subnets none is that of %s: give the node, or a [[vip.group]], an address in its own", c.Interface)
	}
	return errors.Join(errs...)
}

func (s Subnet) problems() (errs []error) {
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("dhcp subnet %s: "+format, append([]any{s.Network}, args...)...))
	}
	if !s.Network.IsValid() || !s.Network.Addr().Is6() || s.Network != s.Network.Masked() || s.Network.Bits() > 120 {
		bad("use an IPv6 network of 120 bits or fewer such as 2001:db8::/64")
		return errs
	}
	for i, r := range s.Ranges {
		switch {
		case !s.Network.Contains(r[0]) || !s.Network.Contains(r[1]):
			bad("range %s-%s: it is not inside the network", r[0], r[1])
		case r[1].Less(r[0]):
			bad("range %s-%s: the last address is below the first", r[0], r[1])
		case high(r[0]) != high(r[1]):
			bad("range %s-%s: the first 64 bits differ; use one range for each /64", r[0], r[1])
		}
		for _, o := range s.Ranges[:i] {
			if r[0].Compare(o[1]) <= 0 && o[0].Compare(r[1]) <= 0 {
				bad("ranges %s-%s and %s-%s overlap", o[0], o[1], r[0], r[1])
			}
		}
	}
	for _, d := range s.DNS {
		if !d.Is6() {
			bad("DNS server %s: use an IPv6 address", d)
		}
	}
	if s.Lease != 0 && s.Lease < time.Minute {
		bad("lease %s: use %s or more", s.Lease, time.Minute)
	}
	return errs
}
