package dhcp

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"

	"everboot/dhcp/leases"
	"everboot/dhcp/pair"
	"everboot/site"
)

// State is what Handle remembers from one message to the next. It is not safe for concurrent use.
type State struct {
	cfg    Config
	table  *leases.Table
	pair   *pair.Machine // nil: there is no word between the nodes
	asked  *asked        // what was left to the other node
	noDisk bool          // no lease can be written

	foreign []Foreign // other DHCP servers of the segment

	// What follows is made of the view that it was last asked about.
	view     *site.View
	reserved map[netip.Addr]site.MAC
	clients  map[site.ClientID]site.MAC // whose reservation is that of a client identifier
	taken    map[netip.Addr]bool        // addresses of the infrastructure: never given to a client

	waiting   int // devices of the view that get an address from a pool and have none, as of waitingAt
	waitingAt time.Time
	spare     map[netip.Prefix]*spare // by subnet
}

// NewState returns the state of a server with the configuration, which must be valid, and no leases.
func NewState(cfg Config) *State {
	s := &State{cfg: cfg, asked: newAsked(), spare: make(map[netip.Prefix]*spare)}
	var pools []leases.Pool
	for _, sub := range cfg.Subnets {
		for _, p := range sub.pools() {
			pools = append(pools, leases.Pool{First: p[0], Last: p[1], Owns: s.owns})
		}
	}
	s.table = leases.NewTable(pools)
	return s
}

// Load adds the leases of an earlier run and returns the addresses whose leases are not worth keeping.
func (s *State) Load(now time.Time, list []leases.Lease) (stale []netip.Addr) {
	return s.table.Load(now, list)
}

// Leases returns every known lease by address, also offers and those that are free again.
func (s *State) Leases(now time.Time) []leases.Lease { return s.table.All(now) }

// Join makes the node one of several that are one service. synced is what an earlier run kept of Machine.Synced.
func (s *State) Join(now time.Time, incarnation uint64, synced time.Time) *pair.Machine {
	s.pair = pair.New(now, pair.Config{
		Self: s.cfg.ServerAddress, Peers: s.cfg.Peers, Longest: s.cfg.longest(), Incarnation: incarnation, Synced: synced,
	}, s.table)
	s.table.Reown()
	return s.pair
}

func (s *State) owns(a netip.Addr) bool {
	if s.pair != nil {
		return s.pair.Owns(a)
	}
	return pair.Owns(a, s.cfg.ServerAddress, slices.Values(s.cfg.Peers))
}

// look makes ready what the decisions need of a view.
func (s *State) look(v *site.View) {
	if s.view == v && s.taken != nil {
		return
	}
	s.view = v
	s.reserved, s.clients = make(map[netip.Addr]site.MAC), make(map[site.ClientID]site.MAC)
	// Of two devices with one address or identifier the lower MAC gets it, on every appliance; Check names them.
	for _, d := range v.SortedDevices() {
		if !d.Address.IsValid() {
			continue
		}
		if _, ok := s.reserved[d.Address]; !ok {
			s.reserved[d.Address] = d.MAC
		}
		if _, ok := s.clients[d.ClientID]; !ok && d.ClientID != "" {
			s.clients[d.ClientID] = d.MAC
		}
	}
	s.taken = infrastructure(s.cfg, v)
}

// infrastructure returns the addresses that machines other than clients are known to have.
func infrastructure(c Config, v *site.View) map[netip.Addr]bool {
	taken := map[netip.Addr]bool{c.ServerAddress: true, c.serverID(): true, v.Boot.Address: true}
	for _, a := range slices.Concat(c.Peers, c.Taken) {
		taken[a] = true
	}
	for _, s := range c.Subnets {
		taken[s.Router] = true
		taken[s.Network.Addr()] = true
		taken[broadcast(s.Network)] = true
		for _, d := range s.DNS {
			taken[d] = true
		}
	}
	for _, a := range v.Appliances {
		taken[a.Address] = true
	}
	for _, s := range v.Streamers {
		for _, a := range s.Addresses {
			taken[a.Addr()] = true
		}
	}
	delete(taken, netip.Addr{})
	return taken
}

// deviceOf returns the device that a client is to its reservation. The MAC comes first: firmware, iPXE and the operating system of one machine send
// different client identifiers. Only who has no reservation by its MAC has that of the device whose client_id it sends.
func (s *State) deviceOf(r request) site.MAC {
	if s.view.Devices[r.mac].Address.IsValid() {
		return r.mac
	}
	// Not r.client: that one stands for the MAC where no identifier was sent, and a MAC can be that of any machine.
	if mac, ok := s.clients[site.ClientID(r.identifier)]; ok && len(r.identifier) > 0 {
		return mac
	}
	return r.mac
}

// reservation returns the address that is reserved for a client within a subnet.
func (s *State) reservation(r request, sub Subnet) (netip.Addr, bool) {
	a := s.view.Devices[r.device].Address
	if !a.IsValid() || !sub.Network.Contains(a) || s.taken[a] || s.reserved[a] != r.device {
		return netip.Addr{}, false
	}
	return a, true
}

// reservable reports whether a client can have the address that is reserved for it now: whatever its client identifier, if it has the device's MAC or
// the lease is the device's.
func (s *State) reservable(now time.Time, a netip.Addr, r request) bool {
	l, known := s.table.At(now, a)
	return !known || !l.Live() || (l.MAC == r.mac || l.Client == leases.ClientOf(nil, r.device)) && l.State != leases.Declined
}

// holder returns the name under which the client of a message holds an address.
func (s *State) holder(a netip.Addr, r request) leases.Client {
	if a.IsValid() && s.view.Devices[r.device].Address == a {
		return leases.ClientOf(nil, r.device)
	}
	return r.client
}

// free reports whether an address of our part of the subnet's pool may be given to the client.
func (s *State) free(now time.Time, a netip.Addr, r request, sub Subnet) bool {
	return sub.inRange(a) && !s.avoid(r.device)(a) && s.table.Owned(a) && s.table.Available(now, a, r.client)
}

// avoid returns which addresses are not for the device: those of the infrastructure and those reserved for others.
func (s *State) avoid(mac site.MAC) func(netip.Addr) bool {
	return func(a netip.Addr) bool {
		owner, ok := s.reserved[a]
		return s.taken[a] || ok && owner != mac
	}
}

// keptFromStrangers reports whether the pool where a client is has no more addresses to spare than devices of the site may still ask for, and
// the client is none of those: machines that make up one MAC after the other get no further. Half of a pool is for anybody. Who is not refused takes one.
func (h *exchange) keptFromStrangers() bool {
	if _, known := h.view.Devices[h.r.device]; known || len(h.view.Devices) == 0 {
		return false
	}
	nodes, p := len(h.cfg.Peers)+1, h.spareOf(h.sub)
	kept := func(devices int) int { return min(devices, p.size/2) / nodes }
	if p.free <= kept(len(h.view.Devices)) {
		if n := kept(h.waitingDevices(h.now)); n > 0 && p.free <= n {
			return true
		}
	}
	p.free--
	return false
}

// spare is how many addresses a subnet's pools have for somebody new, as of a time, less those that strangers took since.
type spare struct {
	at         time.Time
	free, size int
}

func (h *exchange) spareOf(sub Subnet) *spare {
	if p := h.spare[sub.Network]; p != nil && h.now.Sub(p.at) < waitingFor {
		return p
	}
	avoided := maps.Clone(h.taken)
	for a := range h.reserved {
		avoided[a] = true
	}
	p := &spare{at: h.now}
	p.free, p.size = h.table.Spare(h.now, sub.Network, len(h.cfg.Peers)+1, avoided)
	h.spare[sub.Network] = p
	return p
}

// waitingFor is how long a count of waitingDevices or of spareOf holds: it looks at every lease.
const waitingFor = time.Second

// waitingDevices counts the devices that get an address from a pool and have none.
func (s *State) waitingDevices(now time.Time) int {
	if now.Sub(s.waitingAt) < waitingFor {
		return s.waiting
	}
	have := make(map[site.MAC]bool)
	s.table.Each(func(l leases.Lease) {
		if l.Live() {
			have[l.MAC] = true
		}
	})
	s.waiting, s.waitingAt = 0, now
	for mac, d := range s.view.Devices {
		if !d.Address.IsValid() && !have[mac] {
			s.waiting++
		}
	}
	return s.waiting
}

// subnetOf returns the subnet that has the address in it.
func (s *State) subnetOf(a netip.Addr) (Subnet, bool) {
	i := slices.IndexFunc(s.cfg.Subnets, func(sub Subnet) bool { return sub.Network.Contains(a) })
	if i < 0 {
		return Subnet{}, false
	}
	return s.cfg.Subnets[i], true
}

// subnetFor returns the subnet where a client is: where its relay agent says (RFC 3527 §3), its relay agent's (RFC 2131 §4.3.1), else our own.
func (s *State) subnetFor(r request) (Subnet, bool) {
	return s.subnetOf(cmp.Or(r.link, r.giaddr, s.cfg.ServerAddress))
}
