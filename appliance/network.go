package appliance

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// OwnAddress returns the node's own IPv4 address: the first of its interface that is no VIP.
func (c *Config) OwnAddress() (netip.Addr, error) { return AddressOf(c.Interface, c.VIP.Addresses) }

// AddressOf returns the first IPv4 address of an interface that is none of the floating ones.
func AddressOf(name string, floating []netip.Prefix) (netip.Addr, error) {
	addrs, err := interfaceAddrs(name)
	if err != nil {
		return netip.Addr{}, err
	}
	for _, a := range addrs {
		if !slices.ContainsFunc(floating, func(p netip.Prefix) bool { return p.Addr() == a.Addr() }) {
			return a.Addr(), nil
		}
	}
	return netip.Addr{}, fmt.Errorf("interface %s has no IPv4 address of its own; give it one: ip address add ADDRESS/BITS dev %s", name, name)
}

func interfaceAddrs(name string) ([]netip.Prefix, error) {
	link, err := net.InterfaceByName(name)
	if err != nil {
		return nil, fmt.Errorf("interface %s does not exist; this host has: %s", name, strings.Join(interfaceNames(), ", "))
	}
	addrs, err := link.Addrs()
	if err != nil {
		return nil, fmt.Errorf("reading the addresses of %s: %w", name, err)
	}
	var list []netip.Prefix
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() && !p.Addr().IsLoopback() {
			list = append(list, p)
		}
	}
	return list, nil
}

// hostAddrs returns all addresses of this host; none if it does not say.
func hostAddrs() (list []netip.Addr) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			list = append(list, p.Addr())
		}
	}
	return list
}

func interfaceNames() []string {
	links, err := net.Interfaces()
	if err != nil {
		return nil
	}
	var names []string
	for _, l := range links {
		names = append(names, l.Name)
	}
	return names
}
