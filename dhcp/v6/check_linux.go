package v6

import (
	"fmt"
	"net"

	"github.com/insomniacslk/dhcp/dhcpv6"

	"everboot/internal/ports"
)

// Check returns what is wrong with the configuration and with this host, and changes nothing.
func Check(cfg Config) []error {
	if err := cfg.Validate(); err != nil {
		return []error{err}
	}
	if _, err := net.InterfaceByName(cfg.Interface); err != nil {
		return nil // said by who needs it, too
	}
	sockets, err := ports.Sockets("udp", dhcpv6.DefaultServerPort)
	if err != nil {
		return []error{err}
	}
	for _, s := range sockets {
		if a := s.Local.Addr(); a.Is6() && (a.IsUnspecified() || a.IsMulticast()) {
			return []error{fmt.Errorf("dhcp: UDP port %d is taken: %s has it: stop it", dhcpv6.DefaultServerPort, ports.Owner("udp", dhcpv6.DefaultServerPort))}
		}
	}
	return nil
}
