package site

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Medium is what the boot media of a running target shall be: a version by which people know it, and where it asks.
type Medium struct {
	Version int      `json:"version"` // 1 or more; 0: they are left as they are
	Servers []string `json:"servers"` // login servers, as Bootstrap.Hosts
}

// maxMediumVersion bounds a version, so that it fits into a medium.
const maxMediumVersion = 999_999

// maxMediumServers and maxMediumNames bound its login servers, so that its program fits into a medium (image.RenewalSize).
const (
	maxMediumServers = 32
	maxMediumNames   = 2048
)

// Check returns an error that says what to mend.
func (m Medium) Check() error {
	switch {
	case m.Version == 0 && len(m.Servers) == 0:
		return nil
	case m.Version < 1 || m.Version > maxMediumVersion:
		return fmt.Errorf("medium: version %d: use 1 to %d", m.Version, maxMediumVersion)
	case len(m.Servers) == 0:
		return errors.New("medium: name its login servers, such as the VIP and each appliance's own address")
	case len(m.Servers) > maxMediumServers || len(strings.Join(m.Servers, "")) > maxMediumNames:
		return fmt.Errorf("medium: name %d login servers at most, with %d characters in all", maxMediumServers, maxMediumNames)
	}
	if err := (Bootstrap{Hosts: m.Servers}).Check(); err != nil {
		return fmt.Errorf("medium: %w", err)
	}
	return nil
}

// MediumOf returns what the media of a device shall be: its own word, or else its collection's. Version 0 means that they are left as they are.
func MediumOf(v *View, mac MAC) Medium {
	d := v.Devices[mac]
	if d.Medium.Version != 0 {
		return d.Medium
	}
	return v.Collections[d.Collection].Medium
}

// MediumMade returns what a medium that is made now shall be, for one device, or for a collection, or, with neither, for all: what a rollout would make of
// it at once, or else that it asks the login servers of now.
func MediumMade(v *View, mac MAC, collection string) Medium {
	m := MediumOf(v, mac)
	if collection != "" {
		m = v.Collections[collection].Medium
	}
	if m.Version == 0 {
		m.Servers = v.LoginServers()
	}
	return m
}

// ToldServers returns where a machine is told to ask from now on: what a rollout wants of its media, and then the login servers of now.
func ToldServers(v *View, mac MAC) []string {
	servers := slices.Clone(MediumOf(v, mac).Servers)
	for _, s := range v.LoginServers() {
		if !slices.Contains(servers, s) {
			servers = append(servers, s)
		}
	}
	return servers
}

// MediumVersion returns the version that login servers have in the site, or the next that nobody has.
func MediumVersion(v *View, servers []string) int {
	last := 0
	for m := range v.media() {
		if slices.Equal(m.Servers, servers) {
			return m.Version
		}
		last = max(last, m.Version)
	}
	return last + 1
}

// media yields every wish.
func (v *View) media() func(yield func(Medium) bool) {
	return func(yield func(Medium) bool) {
		for _, d := range v.Devices {
			if d.Medium.Version != 0 && !yield(d.Medium) {
				return
			}
		}
		for _, c := range v.Collections {
			if c.Medium.Version != 0 && !yield(c.Medium) {
				return
			}
		}
	}
}

// About returns what a medium was made for, as the end of a query (RFC 3986 §3.4): everything but the login servers.
func (b Bootstrap) About() string {
	var s strings.Builder
	add := func(key, value string) { s.WriteString("&" + key + "=" + value) }
	add("version", strconv.Itoa(b.Version))
	if b.Site != "" {
		add("site", b.Site)
	}
	if b.Key != "" {
		add("key", b.Key)
	}
	if b.Collection != "" {
		add("collection", b.Collection)
	}
	if !b.MAC.IsZero() {
		add("mac", b.MAC.String())
	}
	if b.VLAN != 0 {
		add("vlan", strconv.Itoa(b.VLAN))
	}
	if b.Address.IsValid() {
		add("address", b.Address.String())
	}
	if b.Gateway.IsValid() {
		add("gateway", b.Gateway.String())
	}
	if b.DNS.IsValid() {
		add("dns", b.DNS.String())
	}
	return s.String()
}

// ParseAbout reads what About wrote. It has no Hosts.
func ParseAbout(q url.Values) (b Bootstrap, err error) {
	number := func(key string, into *int) {
		if text := q.Get(key); err == nil && text != "" {
			*into, err = strconv.Atoi(text)
		}
	}
	number("version", &b.Version)
	number("vlan", &b.VLAN)
	b.Site, b.Key, b.Collection = q.Get("site"), q.Get("key"), q.Get("collection")
	if text := q.Get("mac"); err == nil && text != "" {
		b.MAC, err = ParseMAC(text)
	}
	if text := q.Get("address"); err == nil && text != "" {
		b.Address, err = netip.ParsePrefix(text)
	}
	for key, into := range map[string]*netip.Addr{"gateway": &b.Gateway, "dns": &b.DNS} {
		if text := q.Get(key); err == nil && text != "" {
			*into, err = netip.ParseAddr(text)
		}
	}
	if err == nil && (b.Version < 0 || b.Version > maxMediumVersion) {
		err = errors.New("there is no such version")
	}
	if err == nil {
		err = b.Check()
	}
	if err != nil {
		return Bootstrap{}, fmt.Errorf("reading what a boot medium was made for: %w", err)
	}
	return b, nil
}
