package everboot

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"strings"

	"everboot/site"
)

// settings are the plugin's arguments.
type settings struct {
	appliances []string // URLs of their APIs
	consul     string   // HOST:PORT, or a URL
	site       string
	boot       netip.Addr
	token      string
}

// parse reads the plugin's arguments. An error says what to write.
func parse(args []string) (s settings, err error) {
	for _, arg := range args {
		key, value, ok := strings.Cut(arg, "=")
		switch {
		case strings.HasPrefix(arg, "http://"), strings.HasPrefix(arg, "https://"):
			if u, err := url.Parse(arg); err != nil || u.Host == "" {
				return s, fmt.Errorf("everboot: %q is not a URL such as http://198.18.0.2:8667", arg)
			}
			s.appliances = append(s.appliances, strings.TrimRight(arg, "/"))
		case ok && key == "consul":
			s.consul = value
		case ok && key == "site":
			s.site = value
		case ok && key == "boot":
			if s.boot, err = netip.ParseAddr(value); err != nil || !s.boot.Is4() {
				return s, fmt.Errorf("everboot: %s: use the IPv4 address that targets boot from, such as boot=198.18.0.10", arg)
			}
		case ok && key == "token":
			if s.token, err = readToken(value); err != nil {
				return s, err
			}
		default:
			return s, fmt.Errorf("everboot: %q: use the URL of an appliance's API, or consul=HOST:PORT site=NAME boot=ADDRESS, and token=file:PATH", arg)
		}
	}
	return s, s.check()
}

// readToken reads the token: a configuration file is no place for it.
func readToken(value string) (string, error) {
	path, ok := strings.CutPrefix(value, "file:")
	if !ok {
		return "", errors.New("everboot: token: put it into a file that others cannot read, and write token=file:PATH")
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("everboot: reading the token: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

func (s settings) check() error {
	switch {
	case len(s.appliances) > 0 && s.consul != "":
		return errors.New("everboot: ask appliances, or Consul, not both")
	case len(s.appliances) > 0 && (s.site != "" || s.boot.IsValid()):
		return errors.New("everboot: site and boot are for Consul: an appliance knows them")
	case len(s.appliances) > 0:
		return nil
	case s.consul == "":
		return errors.New("everboot: whom to ask? name the URL of an appliance's API, or consul=HOST:PORT site=NAME boot=ADDRESS")
	case !s.boot.IsValid():
		return errors.New("everboot: boot=ADDRESS is missing: the address that targets boot from, the first floating one")
	}
	return site.CheckName("site", s.site)
}

// open starts what decides. It runs until ctx ends.
func (s settings) open(ctx context.Context) (decider, error) {
	if s.consul == "" {
		return newAppliances(s.appliances, s.token).decide, nil
	}
	return follow(ctx, s)
}
