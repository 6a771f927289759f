package dhcp

import (
	"fmt"
	"net/netip"
	"strings"

	"everboot/site"
)

// Check returns what is wrong with the configuration, with the reservations of a view (which may be nil) and with this host, one line
// each, and changes nothing.
func Check(cfg Config, view *site.View) []error {
	errs := cfg.problems()
	if view != nil {
		errs = append(errs, CheckReservations(cfg, view)...)
	}
	return append(errs, checkHost(cfg)...)
}

// CheckReservations returns what is wrong with the addresses that devices of the view have reserved. A reservation inside the pool's range
// is right: the pool passes it over.
func CheckReservations(cfg Config, view *site.View) []error {
	var errs []error
	seen, clients := make(map[netip.Addr]site.Device), make(map[site.ClientID]site.Device)
	taken := infrastructure(cfg, view)
	for _, d := range view.SortedDevices() {
		a := d.Address
		if !a.IsValid() {
			continue
		}
		bad := func(format string, args ...any) {
			errs = append(errs, fmt.Errorf("device %s: reserved address %s "+format, append([]any{d.MAC, a}, args...)...))
		}
		if other, ok := clients[d.ClientID]; ok && d.ClientID != "" {
			errs = append(errs, fmt.Errorf("device %s: client identifier %s is also that of device %s, which gets its reservation by it; take it from one of them", d.MAC, d.ClientID, other.MAC))
		} else {
			clients[d.ClientID] = d
		}
		if other, ok := seen[a]; ok {
			bad("is also that of device %s, which gets it; give one of them another", other.MAC)
			continue
		}
		seen[a] = d
		switch sub, ok := NewState(cfg).subnetOf(a); {
		case !ok:
			bad("is in no [[dhcp.subnet]] (%s); use an address in one, or add the subnet", networks(cfg))
		case a == sub.Network.Addr() || a == broadcast(sub.Network):
			bad("is the network's own or its broadcast address; use another")
		case taken[a]:
			bad("belongs to a router, a DNS server, an appliance, the VIP or a streamer; use another")
		}
	}
	return errs
}

func networks(cfg Config) string {
	var list []string
	for _, s := range cfg.Subnets {
		list = append(list, s.Network.String())
	}
	return strings.Join(list, ", ")
}
