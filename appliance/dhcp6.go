package appliance

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"everboot/appliance/web"
	"everboot/dhcp"
	"everboot/dhcp/leases"
	"everboot/dhcp/v6"
	"everboot/site"
)

// is6 reports whether it is a subnet that DHCPv6 serves.
func (s SubnetConfig) is6() bool { return s.Network.Addr().Is6() }

// serves6 reports whether the appliance is a DHCPv6 server.
func (c *Config) serves6() bool {
	return c.DHCP.Mode == "server" && slices.ContainsFunc(c.DHCP.Subnets, SubnetConfig.is6)
}

// serves4 reports whether it is a DHCPv4 one.
func (c *Config) serves4() bool {
	return c.DHCP.Mode == "server" && slices.ContainsFunc(c.DHCP.Subnets, func(s SubnetConfig) bool { return !s.is6() })
}

// dhcp6Config returns the DHCPv6 server's configuration; own are the node's own addresses.
func (c *Config) dhcp6Config(own []netip.Addr) v6.Config {
	d := v6.Config{Interface: c.Interface, Site: c.Site, Addresses: append(c.floating6(), own...)}
	for _, s := range c.DHCP.Subnets {
		if !s.is6() {
			continue
		}
		sub := v6.Subnet{Network: s.Network, Ranges: pairs(s.Ranges), Exclude: pairs(s.Exclude), DNS: s.DNS, Lease: time.Duration(s.Lease)}
		if !s.Range.IsZero() {
			sub.Ranges = append(pairs([]AddrRange{s.Range}), sub.Ranges...)
		}
		d.Subnets = append(d.Subnets, sub)
	}
	return d
}

// floating6 returns the floating IPv6 addresses of the node's interface that targets can be told of.
func (c *Config) floating6() (list []netip.Addr) {
	for _, g := range c.VIP.Groups {
		for _, p := range g.Addresses {
			if (g.Interface == "" || g.Interface == c.Interface) && p.Addr().Is6() && !p.Addr().IsLinkLocalUnicast() {
				list = append(list, p.Addr())
			}
		}
	}
	return list
}

// own6 returns the node's own IPv6 addresses that others can be told of. Without any, or without the interface, there are none.
func (c *Config) own6() (list []netip.Addr) {
	link, err := net.InterfaceByName(c.Interface)
	if err != nil {
		return nil
	}
	addrs, err := link.Addrs()
	if err != nil {
		return nil
	}
	floating := c.VIP.floating()
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err == nil && p.Addr().Is6() && !p.Addr().IsLinkLocalUnicast() && !p.Addr().IsLoopback() && !slices.Contains(floating, p.Addr()) {
			list = append(list, p.Addr())
		}
	}
	return list
}

// bootAddress6 returns the address that targets boot from over IPv6: the first floating one, or the node's own; none where DHCPv6 is not served.
func (c *Config) bootAddress6() netip.Addr {
	if !c.serves6() {
		return netip.Addr{}
	}
	if list := append(c.floating6(), c.own6()...); len(list) > 0 {
		return list[0]
	}
	return netip.Addr{}
}

// link6 returns the network of the interface that DHCPv6 serves, for router advertisements; zero: none.
func (c *Config) link6() netip.Prefix {
	if !c.serves6() {
		return netip.Prefix{}
	}
	return c.dhcp6Config(c.own6()).Link()
}

// checkDHCP6 returns what keeps this host from serving IPv6 targets.
func (c *Config) checkDHCP6() []error {
	own := c.own6()
	cfg := c.dhcp6Config(own)
	errs := v6.Check(cfg)
	link := cfg.Link()
	if !slices.ContainsFunc(own, link.Contains) {
		errs = append(errs, fmt.Errorf("interface %s has no address of its own in %s, so that it cannot probe where IPv6 targets boot from: give it one: ip address add ADDRESS/%d dev %s",
			c.Interface, link, link.Bits(), c.Interface))
	}
	return errs
}

func (w *worker) openDHCP6() (err error) {
	if !w.cfg.serves6() {
		return nil
	}
	note := func(d dhcp.Decision) {
		for _, e := range dhcp.Events(w.builder.View(), d) {
			w.event(e)
		}
	}
	var first func(string) bool
	if w.cfg.serves4() { // which is opened next
		note = func(d dhcp.Decision) { w.dhcp.Note(d) }
		first = func(duid string) bool { return w.dhcp.First(duid) }
	}
	w.dhcp6, err = v6.New(w.cfg.dhcp6Config(w.cfg.own6()), w.builder.View, first, note, w.log.With("room", "dhcp"))
	return err
}

// uses returns the IPv6 addresses that somebody was heard to use. They are no leases: DHCPv6 keeps none.
func (w *worker) uses() (list []web.Lease) {
	if w.dhcp6 == nil {
		return nil
	}
	v := w.builder.View()
	for _, u := range w.dhcp6.Uses() {
		d, reserved := v.Devices[u.MAC]
		state := string(leases.Bound)
		if u.Declined {
			state = string(leases.Declined)
		}
		list = append(list, web.Lease{
			Address: u.Address, MAC: u.MAC, Device: d.Name, State: state, Expires: u.Until, Reserved: reserved && d.Address6 == u.Address, Computed: true,
		})
	}
	return list
}

// explain6 says what a target gets over IPv6, and why; nil: DHCPv6 is not served.
func (w *worker) explain6(v *site.View, mac site.MAC) *web.Explanation6 {
	if w.dhcp6 == nil {
		return nil
	}
	e := &web.Explanation6{Address: v.Devices[mac].Address6}
	e.Reserved = e.Address.IsValid()
	for _, u := range w.dhcp6.Uses() {
		if u.MAC == mac && !u.Declined && !e.Address.IsValid() {
			e.Address = u.Address
		}
	}
	offer, reason := site.Boot(v, site.BootRequest{MAC: mac, Client: site.ClientIPXE, Six: true})
	e.Boots, e.Reason, e.Text = reason == site.Offered, reason, reason.Text()
	switch {
	case e.Boots:
		e.Server, e.File = offer.Server, offer.File
	case reason == site.TFTPDown:
		e.Text += prefixed(": ", v.Boot.TFTP6.Reason)
	case reason == site.HTTPDown:
		e.Text += prefixed(": ", v.Boot.HTTP6.Reason)
	}
	if d, ok := w.dhcp6.Last(mac); ok {
		e.Last, e.LastAt = d.String(), d.At
	}
	return e
}
