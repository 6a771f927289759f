// Package vip keeps floating addresses on exactly one of several hosts. They elect the owner by VRRP version 3
// (RFC 9568); package vip/vrrp is the election, this package the owner of the addresses and its edge to Linux.
//
// No address survives its owner. A Router that stops takes its addresses away. When its process dies, a Guard in the
// process that started it does. And every address carries a lifetime in the kernel that only a working Router renews:
// when all else fails the kernel itself removes it after about three seconds.
package vip

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"everboot/site"
	"everboot/vip/vrrp"
)

// maxPreemptDelay is what keepalived allows, too.
const maxPreemptDelay = 1000 * time.Second

// Defaults of Config.
const (
	DefaultPriority = 100 // RFC 9568 §5.2.4
	DefaultInterval = 100 * time.Millisecond
)

// SickPriority is the highest of the priorities that mean: this node is sick and serves only until another one can. Give
// them to SetPriority when health is bad. Other nodes take over from it even without Preempt, and it serves until they
// have; when there is no other node it goes on alone. A configured priority is above.
const SickPriority = 9

// Config is what a Router is told. Interface, Addresses and VRID must be given.
type Config struct {
	Interface string
	// Addresses are the floating addresses with the net that they are in. On the interface they have 32 bits (IPv6: 128): with the
	// bits of the net Linux would make them secondary to the node's own address, and take them away together with it. They are
	// all IPv4 or all IPv6; IPv6 ones need a link-local one among them, or get vrrp.LinkLocal.
	Addresses []netip.Prefix
	VRID      int // 1 to 255; the same on all nodes, and of no other group on the segment
	// Priority is 10 to 254, or 255 for the router that waits for nobody. The highest is elected. 0: DefaultPriority.
	Priority int
	// AdvertInterval is from 10ms to 40.95s in steps of 10ms. A silent owner is missed after three to four of the
	// intervals that it announced itself. 0: DefaultInterval.
	AdvertInterval time.Duration
	// Preempt says that this node takes the addresses back from a well node of lower priority, PreemptDelay for how long it lets
	// that node go on first.
	Preempt      bool
	PreemptDelay time.Duration
	// Peers are the other nodes' own addresses, for networks that carry no multicast: advertisements go to each of them, and only
	// theirs count. None: multicast.
	Peers []netip.Addr
	// VirtualMAC puts the addresses on a macvlan with the virtual router's MAC address (RFC 9568 §7.3), which moves with them: what
	// neighbours know stays true. IPv4 and multicast only; the kernel must be told what belongs to whom (Check says it).
	VirtualMAC bool `json:",omitempty"`
	// Checksum is vrrp.PseudoHeader for groups with keepalived, vrrp.MessageOnly for routers that heed RFC 9568 to the
	// letter. Both are understood.
	Checksum vrrp.Checksum
	// Key authenticates advertisements (vrrp.Auth): vrrp.MinKey to vrrp.MaxKey bytes, the same on all nodes. With a router in the group
	// that knows nothing of it there must be none. Empty: no authentication.
	Key []byte `json:",omitempty"`
	// Counter numbers the advertisements that are sealed with Key; all processes of a node share one. nil: the clock alone counts.
	Counter *Counter `json:"-"`
	// Heard keeps over restarts what was heard under Key. nil: a restart forgets it.
	Heard *Heard `json:"-"`
	// Patience is for how long the router may be silent towards its guard before that takes the addresses away. A router that
	// finds that it did not run for nearly as long lets go by itself. The same for all routers of a process; 0: Patience of
	// this configuration.
	Patience time.Duration `json:",omitzero"`
	// Beat is called several times in Patience, as long as the router is at work. It must not block. nil: nobody listens.
	Beat func() `json:"-"`
	// Connections returns the TCP connections that clients have with the floating addresses, on whichever node: when the addresses
	// come here their clients are told that the connections are gone. It may block. nil: there are none.
	Connections func() []site.Connection `json:"-"`
}

const (
	// patienceMin and patienceMax bound Patience. A process that gets no processor for a third of a second is nothing rare on a
	// busy host. The kernel takes addresses away after three seconds; the guard must not be later.
	patienceMin = 300 * time.Millisecond
	patienceMax = 2500 * time.Millisecond
	// beats is how often in Patience a router shows that it is at work.
	beats = 5
)

// Patience returns for how long the routers of a process may be silent before they count as frozen: as long as the others wait
// for the quickest of them, and two intervals more, so that what the guard calls frozen has lost the election, too.
func Patience(configs ...Config) time.Duration {
	p := patienceMax
	for _, c := range configs {
		p = min(p, c.withDefaults().Patience)
	}
	return p
}

// Validate returns an error that says everything that is wrong with the configuration by itself. Check looks at the host.
func (c Config) Validate() error {
	c = c.withDefaults()
	var errs []error
	add := func(format string, args ...any) { errs = append(errs, fmt.Errorf("vip: "+format, args...)) }
	if c.Interface == "" {
		add("no interface is given")
	}
	if c.VRID < 1 || c.VRID > 255 {
		add("vrid %d: use 1 to 255, the same on all nodes of the group", c.VRID)
	}
	if c.Priority <= SickPriority || c.Priority > vrrp.Owner {
		add("priority %d: use %d to 254 (the highest is elected), or 255 for a node that waits for nobody", c.Priority, SickPriority+1)
	}
	switch {
	case c.AdvertInterval < vrrp.MinInterval || c.AdvertInterval > vrrp.MaxInterval:
		add("advertisement interval %s: use %s to %s", c.AdvertInterval, vrrp.MinInterval, vrrp.MaxInterval)
	case c.AdvertInterval%vrrp.MinInterval != 0:
		add("advertisement interval %s: use a multiple of %s", c.AdvertInterval, vrrp.MinInterval)
	}
	if n := len(c.Key); n > 0 && (n < vrrp.MinKey || n > vrrp.MaxKey) {
		add("the key has %d bytes: use %d to %d", n, vrrp.MinKey, vrrp.MaxKey)
	}
	if c.PreemptDelay < 0 || c.PreemptDelay > maxPreemptDelay {
		add("preempt delay %s: use up to %s", c.PreemptDelay, maxPreemptDelay)
	}
	errs = append(errs, checkAddresses(c.Addresses)...)
	if err := c.checkVirtual(); err != nil {
		errs = append(errs, err)
	}
	for _, p := range c.Peers {
		if p.Is6() != c.is6() || c.floats(p) {
			add("peer %s: use the own address of another node, of the family of the floating addresses", p)
		}
	}
	return errors.Join(errs...)
}

func checkAddresses(prefixes []netip.Prefix) []error {
	var errs []error
	if len(prefixes) == 0 || len(prefixes) > 255 {
		errs = append(errs, fmt.Errorf("vip: %d addresses: give 1 to 255", len(prefixes)))
	}
	seen := map[netip.Addr]bool{}
	for _, p := range prefixes {
		a := p.Addr()
		switch {
		case !p.IsValid() || a.Is4In6():
			errs = append(errs, fmt.Errorf("vip: address %s: use an address with its net, such as 198.18.0.10/24", p))
		case a.Is4() != prefixes[0].Addr().Is4():
			errs = append(errs, fmt.Errorf("vip: address %s is of another family than %s: give IPv4 and IPv6 addresses to virtual routers of their own", p, prefixes[0]))
		case a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
			errs = append(errs, fmt.Errorf("vip: address %s is not the address of a host", a))
		case a.Is6() && p.Bits() < 127 && a == p.Masked().Addr():
			errs = append(errs, fmt.Errorf("vip: address %s is every router's of its net (RFC 4291 §2.6.1), not a host's", p))
		case a.Is4() && p.Bits() < 31 && (a == p.Masked().Addr() || a == broadcast(p)):
			errs = append(errs, fmt.Errorf("vip: address %s names the whole net, not a host in it", p))
		case seen[a]:
			errs = append(errs, fmt.Errorf("vip: address %s is given twice", a))
		}
		seen[a] = true
	}
	return errs
}

func broadcast(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(b)
}

func (c Config) withDefaults() Config {
	if c.Priority == 0 {
		c.Priority = DefaultPriority
	}
	if c.AdvertInterval == 0 {
		c.AdvertInterval = DefaultInterval
	}
	if c.is6() && !slices.ContainsFunc(c.Addresses, isLinkLocal) && c.VRID > 0 && c.VRID < 256 {
		c.Addresses = append([]netip.Prefix{netip.PrefixFrom(vrrp.LinkLocal(uint8(c.VRID)), 64)}, c.Addresses...)
	} else if c.is6() {
		c.Addresses = slices.Clone(c.Addresses)
		slices.SortStableFunc(c.Addresses, func(a, b netip.Prefix) int { return cmp.Compare(rank(a), rank(b)) })
	}
	if c.Patience == 0 {
		c.Patience = max(patienceMin, min(patienceMax, vrrp.DownInterval(uint8(c.Priority), c.AdvertInterval)+2*c.AdvertInterval))
	}
	return c
}

func isLinkLocal(p netip.Prefix) bool { return p.Addr().IsLinkLocalUnicast() }

// rank sorts link-local addresses first (RFC 9568 §5.2.9).
func rank(p netip.Prefix) int {
	if isLinkLocal(p) {
		return 0
	}
	return 1
}

// is6 reports whether the floating addresses are of IPv6.
func (c Config) is6() bool { return len(c.Addresses) > 0 && c.Addresses[0].Addr().Is6() }

// destinations returns where advertisements go.
func (c Config) destinations() []netip.Addr {
	switch {
	case len(c.Peers) > 0:
		return c.Peers
	case c.is6():
		return []netip.Addr{vrrp.Group6()}
	}
	return []netip.Addr{vrrp.Group4()}
}

// addrs returns the floating addresses without their nets.
func (c Config) addrs() []netip.Addr {
	list := make([]netip.Addr, len(c.Addresses))
	for i, p := range c.Addresses {
		list[i] = p.Addr()
	}
	return list
}

// machine returns the configuration of the election; primary is the node's own address.
func (c Config) machine(primary netip.Addr) vrrp.Config {
	return vrrp.Config{
		VRID: uint8(c.VRID), Priority: uint8(c.Priority), Interval: c.AdvertInterval, Preempt: c.Preempt, Sick: SickPriority,
		PreemptDelay: c.PreemptDelay, Primary: primary, Addresses: c.addrs(), Checksum: c.Checksum, Peers: c.Peers,
	}
}

// pickPrimary returns the node's own address that its advertisements come from: the first in the net of the first
// floating address, which for IPv6 is a link-local one (RFC 9568 §5.1.2.1). own are the addresses of the interface.
func (c Config) pickPrimary(own []netip.Prefix) (netip.Addr, error) {
	primary := netip.Addr{}
	var nets []string
	for _, p := range own {
		if !c.floats(p.Addr()) {
			nets = append(nets, p.String())
		}
	}
	has := "it has " + strings.Join(nets, ", ")
	if len(nets) == 0 {
		has = "it has no address of that family of its own; give it one"
	}
	var errs []error
	for i, f := range c.Addresses {
		home := c.home(f.Addr(), own)
		switch {
		case !home.IsValid():
			errs = append(errs, fmt.Errorf("vip: address %s is in no net of interface %s: %s", f, c.Interface, has))
		case i == 0:
			primary = home
		}
	}
	return primary, errors.Join(errs...)
}

func (c Config) home(floating netip.Addr, own []netip.Prefix) netip.Addr {
	for _, p := range own {
		if p.Contains(floating) && !c.floats(p.Addr()) {
			return p.Addr()
		}
	}
	return netip.Addr{}
}

func (c Config) floats(a netip.Addr) bool {
	for _, p := range c.Addresses {
		if p.Addr() == a {
			return true
		}
	}
	return false
}
