package appliance

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"everboot/appliance/peers"
	"everboot/appliance/web"
	"everboot/dhcp"
	"everboot/dhcp/pair"
	"everboot/dhcp/ra"
	"everboot/site"
	"everboot/vip/vrrp"
)

// DHCPConfig is the DHCP server.
type DHCPConfig struct {
	Mode    string         `toml:"mode"` // server, proxy or off; server is the default where there is a subnet
	Subnets []SubnetConfig `toml:"subnet"`
	RA      bool           `toml:"ra"`     // router advertisements that offer nothing
	Search  bool           `toml:"search"` // for other DHCP servers
}

// SubnetConfig is one subnet that DHCP serves.
type SubnetConfig struct {
	Network netip.Prefix `toml:"network"`
	Range   AddrRange    `toml:"range"`
	Ranges  []AddrRange  `toml:"ranges"`
	Exclude []AddrRange  `toml:"exclude"`
	Router  netip.Addr   `toml:"router"`
	DNS     []netip.Addr `toml:"dns"`
	Lease   Duration     `toml:"lease"`
}

func (c *Config) checkDHCP() error {
	switch c.DHCP.Mode {
	case "server":
		if len(c.DHCP.Subnets) == 0 {
			return fmt.Errorf("dhcp.mode is server, but there is no [[dhcp.subnet]]; add one, or set dhcp.mode = \"off\"")
		}
	case "off":
	case "proxy":
		if len(c.DHCP.Subnets) > 0 {
			return fmt.Errorf("dhcp.mode is proxy, which gives no addresses: take [[dhcp.subnet]] out, or use mode = \"server\"")
		}
	default:
		return fmt.Errorf("dhcp.mode %q: use server, proxy or off", c.DHCP.Mode)
	}
	for i, s := range c.DHCP.Subnets {
		if err := s.check(); err != nil {
			return in("dhcp.subnet", i, err)
		}
		for _, o := range c.DHCP.Subnets[:i] {
			if o.Network.Overlaps(s.Network) {
				return in("dhcp.subnet", i, fmt.Errorf("dhcp.subnet %s overlaps dhcp.subnet %s; make them disjoint", s.Network, o.Network))
			}
		}
	}
	if c.serves6() {
		// Which of several subnets is the interface's, its own addresses say, and those are the host's to know: the first stands for it here.
		first := c.DHCP.Subnets[slices.IndexFunc(c.DHCP.Subnets, SubnetConfig.is6)]
		return c.dhcp6Config([]netip.Addr{first.Network.Addr()}).Validate()
	}
	return nil
}

func (s SubnetConfig) check() error {
	if !s.Network.IsValid() || s.Network != s.Network.Masked() {
		return fmt.Errorf("dhcp.subnet network %q: use a network such as \"198.18.0.0/24\" or \"2001:db8::/64\"", s.Network)
	}
	for _, r := range append(append([]AddrRange{s.Range}, s.Ranges...), s.Exclude...) {
		if !r.IsZero() && (!s.Network.Contains(r.First) || !s.Network.Contains(r.Last)) {
			return fmt.Errorf("dhcp.subnet %s: range %s is not inside the network", s.Network, r)
		}
	}
	if s.Router.IsValid() && s.is6() {
		return fmt.Errorf("dhcp.subnet %s: leave the router out: over IPv6 it advertises itself", s.Network)
	}
	if s.Router.IsValid() && !s.Network.Contains(s.Router) {
		return fmt.Errorf("dhcp.subnet %s: router %s is not inside the network", s.Network, s.Router)
	}
	return nil
}

func pairs(list []AddrRange) (out [][2]netip.Addr) {
	for _, r := range list {
		out = append(out, [2]netip.Addr{r.First, r.Last})
	}
	return out
}

func (c *Config) dhcpConfig(own netip.Addr) dhcp.Config {
	d := dhcp.Config{Interface: c.Interface, ServerAddress: own, Peers: c.Peers.Addresses, LeaseFile: filepath.Join(c.State, "leases.db"), Taken: append(c.VIP.floating(), hostAddrs()...)}
	for _, s := range c.DHCP.Subnets {
		if s.is6() {
			continue
		}
		d.Subnets = append(d.Subnets, dhcp.Subnet{
			Network: s.Network, Range: [2]netip.Addr{s.Range.First, s.Range.Last}, Ranges: pairs(s.Ranges), Exclude: pairs(s.Exclude),
			Router: s.Router, DNS: s.DNS, Lease: time.Duration(s.Lease),
		})
	}
	// Peers with a key are one service with us, under the floating address. Without a key there is no word between us, and each answers under
	// its own.
	if vips := c.VIP.Addresses; len(vips) > 0 && (len(c.Peers.Addresses) == 0 || c.Peers.shares()) {
		d.ServerID = vips[0].Addr()
	}
	return d
}

func (w *worker) openDHCP() (err error) {
	if w.cfg.DHCP.RA {
		w.advertiser = ra.NewAdvertiser(w.cfg.Interface, w.cfg.link6(), w.log.With("room", "dhcp"))
	}
	w.openSearch()
	switch w.cfg.DHCP.Mode {
	case "proxy":
		w.proxy, err = dhcp.NewProxy(w.cfg.dhcpConfig(w.own), w.builder.View, w.event, w.log.With("room", "dhcp"))
		return err
	case "off":
		return nil
	}
	if err := w.openDHCP6(); err != nil || !w.cfg.serves4() {
		return err
	}
	cfg := w.cfg.dhcpConfig(w.own)
	if w.cfg.Peers.shares() {
		cfg.Tell, cfg.Seen = w.tell(peers.Leases), w.advertises
		w.shares[peers.Leases] = peers.Share{Changed: func(_ string, message []byte) { w.dhcp.PeerChanged(message) }}
	}
	if w.pages != nil {
		w.openBook(&cfg)
	}
	if w.dhcp, err = dhcp.New(cfg, w.builder.View, w.event, w.log.With("room", "dhcp")); err == nil && w.book != nil {
		w.book.server = w.dhcp
	}
	return err
}

// openBook has leases written down in the registry. Peers' are read only if they are one service with us: else each has a part of the pools of its own.
func (w *worker) openBook(cfg *dhcp.Config) {
	var peers []netip.Addr
	if w.cfg.Peers.shares() {
		peers = w.cfg.Peers.Addresses
	}
	w.book = newLeasebook(w.pages, w.own, peers, w.log.With("room", "dhcp"))
	cfg.Recall, cfg.Kept = w.book.recall, w.book.changed
}

// advertises reports whether a peer's VRRP advertisements are heard. A peer that is Backup sends none.
func (w *worker) advertises(peer netip.Addr) bool {
	if w.vip == nil {
		return false
	}
	s := w.vip.Status()
	return s.State == vrrp.Backup && s.Owner == peer
}

// leaseOf returns the address that a machine has from us.
func (w *worker) leaseOf(mac site.MAC) (netip.Addr, bool) {
	if w.dhcp == nil {
		return netip.Addr{}, false
	}
	l, ok := w.dhcp.LiveOf(mac)
	return l.Address, ok
}

// dhcpWarnings says what somebody should look at.
func (w *worker) dhcpWarnings() (list []string) {
	if w.advertiser != nil {
		if router, ok := w.advertiser.Router(); ok {
			list = append(list, fmt.Sprintf("dhcp.ra has no effect: the router %s advertises on this segment", router))
		}
	}
	if w.dhcp == nil {
		return list
	}
	if w.dhcp.DiskFails() {
		list = append(list, fmt.Sprintf("DHCP offers nothing: leases cannot be written below %s; make room or look at the disk, the log says more; another appliance answers, if there is one", w.cfg.State))
	}
	for _, f := range w.dhcp.Foreign() {
		if w.search != nil && slices.ContainsFunc(w.search.Rivals(), func(r dhcp.Rival) bool { return r.Server == f.Server }) {
			continue // more is said of it
		}
		list = append(list, fmt.Sprintf("another DHCP server, %s, gives addresses on this segment (last to %s at %s): switch it off, or set dhcp.mode = \"proxy\"",
			f.Server, f.Client, f.Last.Format("2006-01-02 15:04:05")))
	}
	return list
}

// Leases implements web.Backend.
func (w *worker) Leases() []web.Lease {
	list := []web.Lease{}
	if w.dhcp == nil {
		return append(list, w.uses()...)
	}
	v := w.builder.View()
	for _, l := range w.dhcp.Leases() {
		list = append(list, web.Lease{
			Address: l.Address, MAC: l.MAC, Device: v.Devices[l.MAC].Name, Name: l.Name, State: string(l.State),
			Start: l.Start, Expires: l.Expires, Reserved: l.Reserved,
		})
	}
	return append(list, w.uses()...)
}

// ReleaseLease implements web.Backend.
func (w *worker) ReleaseLease(ctx context.Context, addr netip.Addr) error {
	if addr.Is6() && w.dhcp6 != nil {
		return fmt.Errorf("%s: DHCPv6 keeps no leases, so that there is none to free: addresses are computed for each client", addr)
	}
	if w.dhcp == nil {
		return fmt.Errorf("this appliance gives no addresses: ask one with dhcp.mode = \"server\"")
	}
	return w.dhcp.Release(ctx, addr)
}

func (c collector) proxy(send emit) {
	s := c.w.proxy.Stats()
	c.messages(send, s)
	send(dhcp.MetricIgnored, "proxyDHCP offers that a firmware took no notice of.", prometheus.CounterValue, float64(s.Ignored))
}

func (c collector) dhcp(send emit) {
	s := c.w.dhcp.Stats()
	c.messages(send, s)
	send(dhcp.MetricCommits, "Writes to the lease file.", prometheus.CounterValue, float64(s.Commits))
	send(dhcp.MetricCommitted, "Leases written to the lease file.", prometheus.CounterValue, float64(s.Committed))
	send(dhcp.MetricCommitErrors, "Writes to the lease file that failed.", prometheus.CounterValue, float64(s.CommitErrors))
	for _, f := range c.w.dhcp.Foreign() {
		send(dhcp.MetricForeign, "Another DHCP server of the segment, and when a client last took its offer.", prometheus.GaugeValue, float64(f.Last.Unix()), "server", f.Server.String())
	}
	for _, p := range c.w.dhcp.Peers() {
		send(dhcp.MetricPeer, "Whether leases are told to another appliance, and confirmed.", prometheus.GaugeValue, truth(p.State == pair.InTouch), "peer", p.Address.String())
	}
	send(dhcp.MetricLearned, "Leases that other appliances told.", prometheus.CounterValue, float64(s.Learned))
	send(dhcp.MetricClashes, "Addresses that two clients were given.", prometheus.CounterValue, float64(s.Clashes))
	send(dhcp.MetricRecalled, "Leases that were known from the registry alone.", prometheus.CounterValue, float64(s.Recalled))
	if c.w.book != nil {
		c.book(send)
	}
	for reason, n := range s.PeerDrops {
		send(dhcp.MetricPeerDrops, "Messages of other appliances about leases that were dropped.", prometheus.CounterValue, float64(n), "reason", string(reason))
	}
}

// messages are the counters of any DHCP server.
func (c collector) messages(send emit, s dhcp.Stats) {
	for message, n := range s.Messages {
		send(dhcp.MetricMessages, "DHCP messages received.", prometheus.CounterValue, float64(n), "message", message)
	}
	for answer, n := range s.Answers {
		send(dhcp.MetricAnswers, "DHCP answers sent.", prometheus.CounterValue, float64(n), "answer", answer)
	}
	for reason, n := range s.Reasons {
		send(dhcp.MetricDecisions, "What became of DHCP messages.", prometheus.CounterValue, float64(n), "reason", string(reason))
	}
	for reason, n := range s.Boot {
		send(dhcp.MetricBoot, "Why answers had boot options, or none.", prometheus.CounterValue, float64(n), "reason", string(reason))
	}
	send(dhcp.MetricSendErrors, "DHCP answers that could not be sent.", prometheus.CounterValue, float64(s.SendErrors))
}
