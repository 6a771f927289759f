package appliance

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"

	"everboot/site"
	"everboot/site/consul"
)

// StreamerConfig is streamer.toml.
type StreamerConfig struct {
	Node     string         `toml:"node"`
	Site     string         `toml:"site"`
	State    string         `toml:"state"`
	Registry RegistryConfig `toml:"registry"`
	ISCSI    ISCSIConfig    `toml:"iscsi"`
	Store    StoreConfig    `toml:"store"`
}

// ISCSIConfig is the engine that serves replicas.
type ISCSIConfig struct {
	Engine    string           `toml:"engine"`
	Addresses []netip.AddrPort `toml:"addresses"` // one a NIC
	VRIDs     []int            `toml:"vrids"`     // virtual router ids, one for each address: they float. None: they are the host's own
	Power     float64          `toml:"power"`
}

// StoreConfig is where replicas lie.
type StoreConfig struct {
	Path   string `toml:"path"`
	Shared bool   `toml:"shared"` // other streamers have the same folder`
}

// LoadStreamer reads a streamer's configuration and checks it by itself, without a look at the host.
func LoadStreamer(path string) (*StreamerConfig, error) {
	c := StreamerConfig{
		Site: "default", State: "/var/lib/everboot",
		Registry: RegistryConfig{Kind: "embedded", Address: "127.0.0.1:8500"},
		ISCSI:    ISCSIConfig{Engine: "tgt", Power: 1},
		Store:    StoreConfig{Path: "/var/lib/everboot/vdisks"},
	}
	if err := decode(path, &c); err != nil {
		return nil, err
	}
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &c, nil
}

// Validate returns an error that names the first thing that is wrong with the configuration by itself.
func (c *StreamerConfig) Validate() error {
	if c.Node == "" {
		return fmt.Errorf("node is missing; give this streamer a name of its own, such as node = \"s1\"")
	}
	if err := site.CheckName("node", c.Node); err != nil {
		return err
	}
	if err := site.CheckName("site", c.Site); err != nil {
		return err
	}
	switch c.Registry.Kind {
	case "embedded":
		if len(c.Registry.Addresses) == 0 {
			return fmt.Errorf("registry.addresses is missing; name every appliance's API, such as [\"http://198.18.0.2:8667\", \"http://198.18.0.3:8667\"]")
		}
		for _, a := range c.Registry.Addresses {
			if u, err := url.Parse(a); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
				return fmt.Errorf("registry.addresses: %q is not a URL such as \"http://198.18.0.2:8667\"", a)
			}
		}
	case "consul":
		if err := (consul.Config{Address: c.Registry.Address, Site: c.Site}).Validate(); err != nil {
			return err
		}
	default:
		return fmt.Errorf("registry.kind %q: use embedded or consul", c.Registry.Kind)
	}
	if c.ISCSI.Engine != "tgt" {
		return fmt.Errorf("iscsi.engine %q: use tgt", c.ISCSI.Engine)
	}
	if len(c.ISCSI.Addresses) == 0 {
		return fmt.Errorf("iscsi.addresses is missing; name this streamer's own addresses, such as [\"198.18.0.21:3260\"]")
	}
	if slices.ContainsFunc(c.ISCSI.Addresses, func(a netip.AddrPort) bool { return a.Addr().IsUnspecified() }) {
		return fmt.Errorf("iscsi.addresses: name addresses that the appliances can reach, not %s", c.ISCSI.Addresses[0].Addr())
	}
	if err := c.checkVRIDs(); err != nil {
		return err
	}
	if !(c.ISCSI.Power >= 0.1 && c.ISCSI.Power <= 1000) { // NaN is neither
		return fmt.Errorf("iscsi.power %g: use 0.1 to 1000", c.ISCSI.Power)
	}
	return nil
}

func (c *StreamerConfig) checkVRIDs() error {
	if n := len(c.ISCSI.VRIDs); n != 0 && n != len(c.ISCSI.Addresses) {
		return fmt.Errorf("iscsi.vrids: %d for %d addresses; give one for each, or none", n, len(c.ISCSI.Addresses))
	}
	for i, id := range c.ISCSI.VRIDs {
		switch {
		case id < 1 || id > 255:
			return fmt.Errorf("iscsi.vrids: %d: use 1 to 255, and none twice on a segment", id)
		case slices.Contains(c.ISCSI.VRIDs[:i], id):
			return fmt.Errorf("iscsi.vrids: %d is there twice", id)
		case !c.ISCSI.Addresses[i].Addr().Is4():
			return fmt.Errorf("iscsi.vrids: %s is no IPv4 address, and cannot float", c.ISCSI.Addresses[i].Addr())
		}
	}
	return nil
}
