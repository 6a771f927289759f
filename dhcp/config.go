package dhcp

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"everboot/dhcp/leases"
)

// Defaults of Config and Subnet.
const (
	DefaultLease = time.Hour
	// DefaultQueueLength is about 0.5 s of work for one core: a client that waits longer has sent its message again.
	DefaultQueueLength = 4096
	minLease           = time.Minute
)

// Config says where and what the server serves.
type Config struct {
	Interface     string     // to listen on
	ServerAddress netip.Addr // this node's own address on it: the server identifier (option 54), and the source of every answer
	Subnets       []Subnet   // the one with ServerAddress in it is the interface's; the others are reached through relay agents
	// Peers are the server addresses of the other appliances of the site. Each appliance has a list like this, with the others in it; the pools are
	// shared out by it. When the list changes, some addresses get another owner, who does not know who has them: change it on all
	// appliances, and let those leases run out.
	Peers []netip.Addr
	// Taken are further addresses of the appliances that no client may be given: floating ones, and those of this host, for which its kernel answers no ARP request
	// of its own.
	Taken []netip.Addr
	// ServerID is the server identifier (option 54), the same on all appliances: an address that always one of them answers at, so that
	// renewals reach whoever lives. Default: ServerAddress.
	ServerID netip.Addr
	// Tell sends a message to all peers, in a datagram that may be lost; what they send comes to PeerChanged. With it the nodes are one
	// service; nil: each answers everybody from its own part of the pools.
	Tell func(message []byte) `json:"-"`
	// Seen reports whether something else than the peer channel says that a peer is alive now. It may be nil.
	Seen func(peer netip.Addr) bool `json:"-"`
	// Recall returns what was written down of leases elsewhere, and whether that is all. It is asked once, if the lease file is new, and comes back within seconds. It may be nil.
	Recall func() (list []leases.Lease, all bool) `json:"-"`
	// Kept is called with leases that have changed, when they are on our disk. It must not block, and may be nil.
	Kept        func([]leases.Lease) `json:"-"`
	LeaseFile   string               // a file of this node alone
	QueueLength int                  // messages that may wait for an answer; more are dropped and counted. Default DefaultQueueLength
}

// Subnet is a network that the server serves.
type Subnet struct {
	Network netip.Prefix
	Range   [2]netip.Addr   // first and last address of the pool; both zero: none
	Ranges  [][2]netip.Addr // further pools; without any there are reservations only
	Exclude [][2]netip.Addr // first and last of those that are not given, though in a pool
	Router  netip.Addr      // option 3; zero: none
	DNS     []netip.Addr    // option 6
	Domain  string          // option 15
	Lease   time.Duration   // default DefaultLease
}

// serverID returns what stands in option 54.
func (c Config) serverID() netip.Addr { return cmp.Or(c.ServerID, c.ServerAddress) }

// longest returns the longest lease of all pools. A reserved address is for one device, however long it has it.
func (c Config) longest() (longest time.Duration) {
	for _, s := range c.Subnets {
		if s.hasRange() {
			longest = max(longest, s.lease())
		}
	}
	return longest
}

func (s Subnet) lease() time.Duration {
	if s.Lease == 0 {
		return DefaultLease
	}
	return s.Lease
}

func (s Subnet) hasRange() bool {
	return s.Range[0].IsValid() || s.Range[1].IsValid() || len(s.Ranges) > 0
}

// ranges returns all ranges as they are configured.
func (s Subnet) ranges() [][2]netip.Addr {
	if s.Range[0].IsValid() || s.Range[1].IsValid() {
		return append([][2]netip.Addr{s.Range}, s.Ranges...)
	}
	return s.Ranges
}

func (s Subnet) inRange(a netip.Addr) bool {
	in := func(r [2]netip.Addr) bool { return r[0].Compare(a) <= 0 && a.Compare(r[1]) <= 0 }
	return a.IsValid() && (in(s.Range) || slices.ContainsFunc(s.Ranges, in)) && !slices.ContainsFunc(s.Exclude, in)
}

// pools returns the ranges without what is excluded.
func (s Subnet) pools() [][2]netip.Addr {
	pools := slices.Clone(s.ranges())
	for _, x := range s.Exclude {
		var left [][2]netip.Addr
		for _, p := range pools {
			if x[1].Less(p[0]) || p[1].Less(x[0]) {
				left = append(left, p)
				continue
			}
			if p[0].Less(x[0]) {
				left = append(left, [2]netip.Addr{p[0], x[0].Prev()})
			}
			if x[1].Less(p[1]) {
				left = append(left, [2]netip.Addr{x[1].Next(), p[1]})
			}
		}
		pools = left
	}
	return pools
}

// Validate returns an error with one line for each thing that is wrong with the configuration by itself.
func (c Config) Validate() error { return errors.Join(c.problems()...) }

func (c Config) problems() []error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("dhcp: "+format, args...)) }
	if c.Interface == "" {
		bad("no interface: name the one to serve")
	}
	if !c.ServerAddress.Is4() || c.ServerAddress.IsUnspecified() {
		bad("server address %s: use an IPv4 address of this node", c.ServerAddress)
	}
	if c.ServerID.IsValid() && !c.ServerID.Is4() {
		bad("server identifier %s: use an IPv4 address", c.ServerID)
	}
	if c.LeaseFile == "" {
		bad("no lease file: give the path of one")
	}
	if c.QueueLength < 0 {
		bad("queue length %d: use 1 or more, or 0 for %d", c.QueueLength, DefaultQueueLength)
	}
	for i, p := range c.Peers {
		switch {
		case !p.Is4():
			bad("peer %s: use an IPv4 address", p)
		case p == c.ServerAddress:
			bad("peer %s: this is the node itself; name only the others", p)
		case slices.Contains(c.Peers[:i], p):
			bad("peer %s: named twice", p)
		}
	}
	if len(c.Subnets) == 0 {
		bad("no subnet: add a [[dhcp.subnet]] for the network of %s", c.ServerAddress)
	} else if c.ServerAddress.Is4() && !slices.ContainsFunc(c.Subnets, func(s Subnet) bool { return s.Network.Contains(c.ServerAddress) }) {
		bad("no subnet has the server's address %s in it: add a [[dhcp.subnet]] for the network of %s", c.ServerAddress, c.Interface)
	}
	for i, s := range c.Subnets {
		errs = append(errs, s.problems()...)
		for _, other := range c.Subnets[:i] {
			if other.Network.IsValid() && s.Network.IsValid() && other.Network.Overlaps(s.Network) {
				bad("subnets %s and %s overlap: a network may stand there once", other.Network, s.Network)
			}
		}
	}
	return errs
}

func (s Subnet) problems() []error {
	var errs []error
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("dhcp subnet %s: "+format, append([]any{s.Network}, args...)...))
	}
	if !s.Network.IsValid() || !s.Network.Addr().Is4() {
		bad("use an IPv4 network such as 198.18.0.0/24")
		return errs
	}
	if s.Network != s.Network.Masked() {
		bad("the address has bits outside the network; use %s", s.Network.Masked())
	}
	if s.Network.Bits() > 30 {
		bad("a network of %d bits has no room for clients; use 30 or fewer", s.Network.Bits())
	}
	errs = append(errs, s.rangeProblems()...)
	if s.Router.IsValid() && !s.Network.Contains(s.Router) {
		bad("router %s is not in the network", s.Router)
	}
	for _, d := range s.DNS {
		if !d.Is4() {
			bad("DNS server %s: use an IPv4 address", d)
		}
	}
	if len(s.DNS) > 16 {
		bad("%d DNS servers: use at most 16", len(s.DNS))
	}
	if len(s.Domain) > 253 {
		bad("domain %q is longer than 253 characters", s.Domain)
	}
	if s.Lease != 0 && s.Lease < minLease {
		bad("lease %s: use %s or more", s.Lease, minLease)
	}
	return errs
}

func (s Subnet) rangeProblems() (errs []error) {
	ranges := s.ranges()
	for i, r := range ranges {
		if errs = append(errs, s.rangeProblem("range", r)...); len(errs) > 0 {
			continue
		}
		for _, other := range ranges[:i] {
			if r[0].Compare(other[1]) <= 0 && other[0].Compare(r[1]) <= 0 {
				errs = append(errs, fmt.Errorf("dhcp subnet %s: ranges %s-%s and %s-%s overlap: an address may be in one", s.Network, other[0], other[1], r[0], r[1]))
			}
		}
	}
	for _, x := range s.Exclude {
		errs = append(errs, s.rangeProblem("exclude", x)...)
	}
	return errs
}

func (s Subnet) rangeProblem(key string, r [2]netip.Addr) []error {
	first, last := r[0], r[1]
	bad := func(format string, args ...any) []error {
		return []error{fmt.Errorf("dhcp subnet %s: %s %s-%s: "+format, append([]any{s.Network, key, first, last}, args...)...)}
	}
	switch {
	case !first.Is4() || !last.Is4():
		return bad("give the first and the last IPv4 address")
	case !s.Network.Contains(first) || !s.Network.Contains(last):
		return bad("it is not inside the network")
	case last.Less(first):
		return bad("the last address is below the first")
	case first == s.Network.Addr() || last == broadcast(s.Network):
		return bad("leave out %s and %s, the network's own and its broadcast address", s.Network.Addr(), broadcast(s.Network))
	}
	return nil
}

// broadcast returns the last address of an IPv4 network.
func broadcast(n netip.Prefix) netip.Addr {
	a := n.Masked().Addr().As4()
	for i := n.Bits(); i < 32; i++ {
		a[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(a)
}
