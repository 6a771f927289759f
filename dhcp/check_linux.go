package dhcp

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/vishvananda/netlink"

	"everboot/internal/ports"
)

// checkHost returns what keeps this host from serving.
func checkHost(cfg Config) []error {
	if cfg.Interface == "" {
		return nil
	}
	link, err := net.InterfaceByName(cfg.Interface)
	if err != nil {
		return []error{noInterface(cfg.Interface)}
	}
	var errs []error
	if link.Flags&net.FlagUp == 0 {
		errs = append(errs, interfaceDown(link.Name))
	}
	addrs, err := link.Addrs()
	if err != nil {
		errs = append(errs, fmt.Errorf("dhcp: reading the addresses of %s: %w", link.Name, err))
	} else if err := hasAddress(cfg, link.Name, addrs); err != nil {
		errs = append(errs, err)
	}
	if err := portTaken(cfg); err != nil {
		errs = append(errs, err)
	}
	return errs
}

func hasAddress(cfg Config, link string, addrs []net.Addr) error {
	var have []string
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err != nil || !p.Addr().Is4() {
			continue
		}
		if p.Addr() == cfg.ServerAddress {
			return nil
		}
		have = append(have, p.String())
	}
	if len(have) == 0 {
		return fmt.Errorf("dhcp: interface %s has no IPv4 address: give it %s", link, cfg.ServerAddress)
	}
	return fmt.Errorf("dhcp: interface %s does not have the server address %s; it has %s", link, cfg.ServerAddress, strings.Join(have, ", "))
}

func interfaceDown(name string) error {
	return fmt.Errorf("dhcp: interface %s is down: bring it up (ip link set %s up)", name, name)
}

// noInterface returns an error that names the interfaces that there are.
func noInterface(name string) error {
	var have []string
	links, _ := net.Interfaces() // without the list the error still says what is wrong
	for _, l := range links {
		if l.Flags&net.FlagLoopback == 0 {
			have = append(have, l.Name)
		}
	}
	return fmt.Errorf("dhcp: there is no interface %s: use one of: %s", name, cmp.Or(strings.Join(have, ", "), "(there is none)"))
}

// portTaken returns an error that names the process that listens on port 67 already. bind does not always tell:
// another server may have bound the port for all interfaces and share it.
func portTaken(cfg Config) error {
	sockets, err := ports.Sockets("udp", dhcpv4.ServerPort)
	if err != nil {
		return fmt.Errorf("dhcp: %w", err)
	}
	for _, s := range sockets {
		if !hears(s.Local.Addr(), cfg.ServerAddress) {
			continue
		}
		if link := boundTo(s.Inode); link != "" && link != cfg.Interface {
			continue
		}
		return fmt.Errorf("dhcp: UDP port %d is taken by %s: stop it, or set mode = \"off\" under [dhcp]", dhcpv4.ServerPort, s.Process())
	}
	return nil
}

// hears reports whether a socket at an address gets what is sent to us, or to everybody.
func hears(at, self netip.Addr) bool {
	return at.IsUnspecified() || at == self || at == limitedBroadcast
}

// boundTo returns the interface that a socket is bound to, if the kernel tells: a server on another interface does no harm.
func boundTo(inode string) string {
	socks, err := netlink.SocketDiagUDP(netlink.FAMILY_V4)
	if err != nil {
		return "" // not every kernel has udp_diag
	}
	for _, s := range socks {
		if fmt.Sprint(s.INode) != inode || s.ID.Interface == 0 {
			continue
		}
		if link, err := net.InterfaceByIndex(int(s.ID.Interface)); err == nil {
			return link.Name
		}
	}
	return ""
}
