package appliance

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"everboot/dhcp"
	"everboot/site"
	"everboot/site/consul"
)

// Validate returns an error that names the first thing that is wrong with the configuration by itself.
func (c *Config) Validate() error {
	checks := []func() error{c.checkNode, c.checkRegistry, c.checkPeers, c.checkVIP, c.checkDHCP, c.checkBoot, c.checkListeners, c.checkSite}
	for _, check := range checks {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (c *Config) checkNode() error {
	if c.Node == "" {
		return fmt.Errorf("node is missing; give this node a name of its own, such as node = \"a\"")
	}
	if err := site.CheckName("node", c.Node); err != nil {
		return err
	}
	if err := site.CheckName("site", c.Site); err != nil {
		return err
	}
	if c.Interface == "" {
		return fmt.Errorf("interface is missing; name the one that targets are on, such as interface = \"eth0\"")
	}
	return nil
}

func (c *Config) checkRegistry() error {
	r := c.Registry
	if r.Kind != "embedded" && r.Kind != "consul" {
		return fmt.Errorf("registry.kind %q: use embedded or consul", r.Kind)
	}
	if len(r.Addresses) > 0 {
		return fmt.Errorf("registry.addresses is for streamer.toml; an appliance has registry.address")
	}
	if r.Kind == "consul" && len(c.Devices)+len(c.Collections)+len(c.VDisks)+len(c.Streamers) > 0 {
		return fmt.Errorf("with registry.kind = \"consul\" the site is written down in Consul: take [[device]], [[collection]], [[vdisk]] and [[streamer]] out, and add them with `everboot device set`")
	}
	if r.Kind == "consul" {
		return (consul.Config{Address: r.Address, Site: c.Site}).Validate()
	}
	return nil
}

func (c *Config) checkListeners() error {
	listeners := []struct {
		key, value string
		enabled    bool
	}{
		{"tftp.listen", c.TFTP.Listen, c.TFTP.Enabled},
		{"http.listen", c.HTTP.Listen, c.HTTP.Enabled},
		{"director.listen", c.Director.Listen, c.Director.Enabled},
		{"api.listen", c.API.Listen, true},
	}
	for _, l := range listeners {
		if _, _, err := net.SplitHostPort(l.value); l.enabled && (err != nil || port(l.value) == 0) {
			return fmt.Errorf("%s %q: use an address and port such as \":80\" or \"198.18.0.2:80\"", l.key, l.value)
		}
	}
	if p := c.Director.RebalanceAbove; !(p >= 0 && p <= 10000) { // NaN is neither
		return fmt.Errorf("director.rebalance_above %g: use a percentage such as 20, or leave it out: nothing moves by itself", p)
	}
	host, _, _ := net.SplitHostPort(c.API.Listen)
	if addr, err := netip.ParseAddr(host); (err != nil || !addr.IsLoopback()) && host != "localhost" && c.API.Token.IsZero() {
		return fmt.Errorf("api.listen %q is not loopback, so api.token is needed, such as token = \"file:/etc/everboot/api.token\"", c.API.Listen)
	}
	return nil
}

// checkSite checks the devices, collections and vDisks that the file itself writes down.
func (c *Config) checkSite() error {
	content := c.Content()
	if err := c.checkDevices(content.Devices); err != nil {
		return err
	}
	for i, col := range content.Collections {
		err := col.Check()
		if err == nil && slices.ContainsFunc(content.Collections[:i], func(o site.Collection) bool { return o.Name == col.Name }) {
			err = fmt.Errorf("collection %s stands there twice", col.Name)
		}
		if err != nil {
			return in("collection", i, err)
		}
	}
	for i, v := range content.VDisks {
		err := v.Check()
		if err == nil && slices.ContainsFunc(content.VDisks[:i], func(o site.VDisk) bool { return o.Name == v.Name }) {
			err = fmt.Errorf("vdisk %s stands there twice", v.Name)
		}
		if err != nil {
			return in("vdisk", i, err)
		}
	}
	for i, s := range content.Streamers {
		err := site.CheckStreamer(s, c.Site)
		if err == nil && slices.ContainsFunc(content.Streamers[:i], func(o site.Streamer) bool { return o.Name == s.Name }) {
			err = fmt.Errorf("streamer %s stands there twice", s.Name)
		}
		if err == nil && (len(s.Replicas) == 0 || slices.ContainsFunc(s.Replicas, func(r site.Replica) bool { return r.Target == "" })) {
			err = fmt.Errorf("streamer %s: give each [[streamer.replica]] vdisk, version, digest and target, its iSCSI name there; streamers of everboot announce themselves", s.Name)
		}
		if err != nil {
			return in("streamer", i, err)
		}
	}
	return nil
}

// checkDevices checks each device, and that no two have the same.
func (c *Config) checkDevices(devices []site.Device) error {
	seen := make(map[string]string)
	for i, d := range devices {
		if err := d.Check(); err != nil {
			return in("device", i, err)
		}
		label := fmt.Sprintf("device %d (%s)", i+1, d.MAC)
		own := []struct{ what, value string }{{"MAC", d.MAC.String()}, {"name", d.Name}, {"client_id", d.ClientID.String()}}
		for _, a := range []netip.Addr{d.Address, d.Address6} {
			if a.IsValid() {
				own = append(own, struct{ what, value string }{"address", a.String()})
			}
		}
		for _, o := range own {
			key := o.what + " " + o.value
			if other, taken := seen[key]; taken && o.value != "" {
				if o.what == "MAC" {
					key = o.what // the label says which
				}
				return in("device", i, fmt.Errorf("%s: its %s is also that of %s", label, key, other))
			}
			seen[key] = label
		}
		if err := c.checkAddresses(d); err != nil {
			return in("device", i, fmt.Errorf("%s: %w", label, err))
		}
	}
	return nil
}

// checkAddresses checks that a device can have its addresses.
func (c *Config) checkAddresses(d site.Device) error {
	for _, a := range []netip.Addr{d.Address, d.Address6} {
		switch {
		case !a.IsValid():
		case c.DHCP.Mode == "server" && !slices.ContainsFunc(c.DHCP.Subnets, func(s SubnetConfig) bool { return s.Network.Contains(a) }):
			return fmt.Errorf("its address %s is in no [[dhcp.subnet]]; use an address in one, or add the subnet", a)
		case slices.Contains(c.VIP.floating(), a):
			return fmt.Errorf("its address %s is the VIP; use another", a)
		}
	}
	return nil
}

// checkNewAddress checks that a device which is written into the registry can have its addresses, as one of the configuration file must, and as DHCP checks those
// of the file. What a device has already it may keep: who changes something else of it is not to blame. What is no device the registry refuses.
func (c *Config) checkNewAddress(v *site.View, own netip.Addr, value []byte) error {
	var d site.Device
	if json.Unmarshal(value, &d) != nil {
		return nil
	}
	if was := v.Devices[d.MAC]; was.Address == d.Address && was.Address6 == d.Address6 {
		return nil
	}
	if err := c.checkAddresses(d); err != nil {
		return fmt.Errorf("device %s: %w", d.MAC, err)
	}
	if !c.serves4() {
		return nil
	}
	return errors.Join(dhcp.CheckReservations(c.dhcpConfig(own), &site.View{
		Boot: v.Boot, Appliances: v.Appliances, Streamers: v.Streamers, Devices: map[site.MAC]site.Device{d.MAC: d},
	})...)
}
