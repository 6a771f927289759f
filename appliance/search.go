package appliance

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"everboot/dhcp"
	"everboot/site"
	"everboot/vip/vrrp"
)

// openSearch comes after the DHCP service, of which it is told who is ours.
func (w *worker) openSearch() {
	if !w.cfg.DHCP.Search || !w.cfg.serves4() && w.cfg.DHCP.Mode != "proxy" {
		return
	}
	w.search = dhcp.NewSearch(dhcp.SearchConfig{
		Interface: w.cfg.Interface, Site: w.cfg.Site, Node: w.own, Proxy: w.cfg.DHCP.Mode == "proxy", Ours: w.isOurs, Active: w.leads,
	}, w.event, w.log.With("room", "dhcp"))
}

// isOurs reports whether an address is one of the site's appliances, or one of theirs that float.
func (w *worker) isOurs(a netip.Addr) bool {
	return w.cfg.isOurs(w.own, a) || slices.ContainsFunc(w.builder.View().Appliances, func(o site.Appliance) bool { return o.Address == a })
}

func (c *Config) isOurs(own, a netip.Addr) bool {
	return a == own || slices.Contains(c.Peers.Addresses, a) || slices.Contains(c.VIP.floating(), a)
}

// leads reports whether this node does what one appliance of the site shall do: the one with the floating address, or each if there is none.
func (w *worker) leads() bool { return w.vip == nil || w.vip.Status().State == vrrp.Active }

// searchWarnings names the other DHCP servers that answered.
func (w *worker) searchWarnings() (list []string) {
	if w.search == nil {
		return nil
	}
	for _, r := range w.search.Rivals() {
		list = append(list, fmt.Sprintf("%s (last heard at %s): %s", r.Text(), r.Last.Format("2006-01-02 15:04:05"), w.cfg.remedy(r)))
	}
	return list
}

// remedy says what to do about another DHCP server.
func (c *Config) remedy(r dhcp.Rival) string {
	switch {
	case r.Everboot == c.Site:
		return "name it in peers.addresses here, and this node there, or switch it off"
	case r.Everboot != "":
		return "switch one of the two off: targets get what the first that answers says"
	case c.DHCP.Mode == "proxy":
		return "take its boot options away, or switch it off: targets boot from whoever answers first"
	case !r.Addresses:
		return "switch it off: targets boot from whoever answers first"
	}
	return "switch it off, or set dhcp.mode = \"proxy\""
}

// checkSegment looks once for other DHCP servers, where we are to be the one. What keeps the interface from use has been said by others.
func (c *Config) checkSegment(ctx context.Context) (found []error) {
	link, err := net.InterfaceByName(c.Interface)
	own, noAddress := c.OwnAddress()
	if !c.serves4() || !c.DHCP.Search || err != nil || noAddress != nil || link.Flags&net.FlagUp == 0 {
		return nil
	}
	rivals, err := dhcp.NewSearch(dhcp.SearchConfig{
		Interface: c.Interface, Site: c.Site, Node: own, Ours: func(a netip.Addr) bool { return c.isOurs(own, a) },
	}, nil, slog.New(slog.DiscardHandler)).Look(ctx)
	switch {
	case errors.Is(err, os.ErrPermission):
		return []error{fmt.Errorf("nobody has looked for other DHCP servers on %s: that takes the right CAP_NET_RAW: check as root, or with --quick, which leaves it out", c.Interface)}
	case err != nil:
		return []error{fmt.Errorf("looking for other DHCP servers: %w; check with --quick, which leaves it out", err)}
	}
	for _, r := range rivals {
		found = append(found, fmt.Errorf("%s: %s", r.Text(), c.remedy(r)))
	}
	return found
}

// The names of the metrics of the search for other DHCP servers.
const (
	metricSearched = "everboot_dhcp_search_last_seconds"
	metricRival    = "everboot_dhcp_other_server_last_seconds" // labels server, source, mac, addresses, boots, everboot
)

func (c collector) search(send emit) {
	if last := c.w.search.Last(); !last.IsZero() {
		send(metricSearched, "When this appliance last asked which other DHCP servers there are.", prometheus.GaugeValue, float64(last.Unix()))
	}
	for _, r := range c.w.search.Rivals() {
		send(metricRival, "Another DHCP server of the segment, and when it last answered.", prometheus.GaugeValue, float64(r.Last.Unix()),
			"server", r.Server.String(), "source", r.Source.String(), "mac", r.MAC.String(), "addresses", fmt.Sprint(r.Addresses), "boots", fmt.Sprint(r.Boots), "everboot", r.Everboot)
	}
}
