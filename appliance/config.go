// Package appliance joins the rooms into the two programs that run: an appliance (guard and worker) and a streamer's agent. It
// reads their configuration, owns their life cycle, and builds the site view that everybody else reads.
package appliance

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"everboot/site"
	"everboot/vip"
)

// Config is appliance.toml. Everything that has a default may be left out.
type Config struct {
	Node      string         `toml:"node"`
	Site      string         `toml:"site"`
	Interface string         `toml:"interface"`
	State     string         `toml:"state"` // folder for the view, leases and the embedded registry
	Registry  RegistryConfig `toml:"registry"`
	Peers     PeersConfig    `toml:"peers"`
	VIP       VIPConfig      `toml:"vip"`
	DHCP      DHCPConfig     `toml:"dhcp"`
	TFTP      TFTPConfig     `toml:"tftp"`
	HTTP      HTTPConfig     `toml:"http"`
	Director  DirectorConfig `toml:"director"`
	API       APIConfig      `toml:"api"`

	Devices     []DeviceConfig     `toml:"device"`
	Collections []CollectionConfig `toml:"collection"`
	VDisks      []VDiskConfig      `toml:"vdisk"`
	Streamers   []ForeignConfig    `toml:"streamer"`

	path string
}

// RegistryConfig says where the site's devices and streamers are written down.
type RegistryConfig struct {
	Kind      string   `toml:"kind"`      // embedded or consul
	Address   string   `toml:"address"`   // consul: host:port
	Addresses []string `toml:"addresses"` // embedded, streamers only: every appliance's API
	Token     Secret   `toml:"token"`
}

// APIConfig is the console, the API, /metrics and /healthz.
type APIConfig struct {
	Listen string `toml:"listen"`
	Token  Secret `toml:"token"`
}

// DeviceConfig is a device written down in the configuration file (embedded registry).
type DeviceConfig struct {
	MAC        site.MAC      `toml:"mac"`
	Name       string        `toml:"name"`
	Address    netip.Addr    `toml:"address"`
	Address6   netip.Addr    `toml:"address6"`
	ClientID   site.ClientID `toml:"client_id"`
	Collection string        `toml:"collection"`
	VDisk      string        `toml:"vdisk"`
	Version    int           `toml:"version"`
	Medium     site.Medium   `toml:"medium"`
}

// CollectionConfig is a collection written down in the configuration file.
type CollectionConfig struct {
	Name    string      `toml:"name"`
	VDisk   string      `toml:"vdisk"`
	Version int         `toml:"version"`
	AutoAdd bool        `toml:"auto_add"`
	Medium  site.Medium `toml:"medium"`
}

// VDiskConfig is a vDisk written down in the configuration file.
type VDiskConfig struct {
	Name     string          `toml:"name"`
	Kernel   string          `toml:"kernel"`
	Initrd   string          `toml:"initrd"`
	Cmdline  string          `toml:"cmdline"`
	Affinity site.Affinity   `toml:"affinity"`
	Server   string          `toml:"server"`
	Versions []VersionConfig `toml:"version"`
}

// VersionConfig pins a version's digest.
type VersionConfig struct {
	Number int         `toml:"number"`
	Digest site.Digest `toml:"digest"`
}

// ForeignConfig is an iSCSI target that is not ours, such as a NAS, as a streamer.
type ForeignConfig struct {
	Name      string           `toml:"name"`
	Addresses []netip.AddrPort `toml:"addresses"` // portals, one a NIC
	Power     float64          `toml:"power"`     // 1.0 if zero
	Replicas  []ReplicaConfig  `toml:"replica"`
}

// ReplicaConfig is what it holds, by the operator's word: nobody can compute a digest there.
type ReplicaConfig struct {
	VDisk   string      `toml:"vdisk"`
	Version int         `toml:"version"`
	Digest  site.Digest `toml:"digest"`
	Target  string      `toml:"target"` // its iSCSI name there
}

// streamer returns the streamer that it is.
func (f ForeignConfig) streamer(siteName string) site.Streamer {
	s := site.Streamer{Name: f.Name, Site: siteName, Addresses: f.Addresses, Power: cmp.Or(f.Power, 1), State: site.Active}
	for _, r := range f.Replicas {
		s.Replicas = append(s.Replicas, site.Replica{VDisk: r.VDisk, Version: r.Version, Digest: r.Digest, Target: r.Target})
	}
	return s
}

// defaultConfig returns what a file may leave out.
func defaultConfig() Config {
	return Config{
		Site: "default", State: "/var/lib/everboot",
		Registry: RegistryConfig{Kind: "embedded", Address: "127.0.0.1:8500"},
		VIP: VIPConfig{
			VIPGroup: VIPGroup{VRID: 51, Priority: vip.DefaultPriority, AdvertInterval: Duration(vip.DefaultInterval)},
			Weights:  VIPWeights{TFTP: maxWeight, HTTP: maxWeight, Director: maxWeight},
		},
		TFTP:     TFTPConfig{Enabled: true, Listen: ":69", IPXE: "/usr/lib/ipxe"},
		HTTP:     HTTPConfig{Enabled: true, Listen: ":80"},
		DHCP:     DHCPConfig{Search: true},
		Director: DirectorConfig{Enabled: true, Listen: ":3260"},
		API:      APIConfig{Listen: "127.0.0.1:8667"},
	}
}

// Load reads an appliance's configuration and checks it by itself, without a look at the host.
func Load(path string) (*Config, error) {
	c := defaultConfig()
	c.path = path
	if err := decode(path, &c); err != nil {
		return nil, err
	}
	if c.DHCP.Mode == "" {
		c.DHCP.Mode = "off"
		if len(c.DHCP.Subnets) > 0 {
			c.DHCP.Mode = "server"
		}
	}
	for i := range c.DHCP.Subnets {
		if c.DHCP.Subnets[i].Lease == 0 {
			c.DHCP.Subnets[i].Lease = Duration(time.Hour)
		}
	}
	if err := c.Validate(); err != nil {
		place := path
		if placed := (*placedError)(nil); errors.As(err, &placed) {
			place = placed.place(path)
		}
		return nil, fmt.Errorf("%s: %w", place, err)
	}
	return &c, nil
}

// decode reads a TOML file strictly: an unknown key or a wrong type is an error that names file, line and key.
func decode(path string, into any) error {
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s does not exist; name the configuration with --config", path)
	}
	if err != nil {
		return fmt.Errorf("reading the configuration: %w", err)
	}
	err = toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields().Decode(into)
	var unknown *toml.StrictMissingError
	if errors.As(err, &unknown) {
		first := unknown.Errors[0]
		line, _ := first.Position()
		return fmt.Errorf("%s:%d: unknown key %q; see docs/configuration.md", path, line, strings.Join(first.Key(), "."))
	}
	var wrong *toml.DecodeError
	if errors.As(err, &wrong) {
		line, _ := wrong.Position()
		what := strings.TrimPrefix(wrong.Error(), "toml: ")
		if key := strings.Join(wrong.Key(), "."); key != "" {
			what = key + ": " + what
		}
		return fmt.Errorf("%s:%d: %s", path, line, what)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// Content returns the site as far as the file itself writes it down.
func (c *Config) Content() site.Content {
	var content site.Content
	for _, d := range c.Devices {
		content.Devices = append(content.Devices, site.Device(d))
	}
	for _, col := range c.Collections {
		content.Collections = append(content.Collections, site.Collection(col))
	}
	for _, v := range c.VDisks {
		vdisk := site.VDisk{Name: v.Name, Kernel: v.Kernel, Initrd: v.Initrd, Cmdline: v.Cmdline, Affinity: v.Affinity, Server: v.Server}
		for _, ver := range v.Versions {
			vdisk.Versions = append(vdisk.Versions, site.Version{Number: ver.Number, Digest: ver.Digest})
		}
		content.VDisks = append(content.VDisks, vdisk)
	}
	for _, f := range c.Streamers {
		content.Streamers = append(content.Streamers, f.streamer(c.Site))
	}
	return content
}
