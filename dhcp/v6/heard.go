package v6

import (
	"net/netip"
	"slices"
	"time"

	"everboot/dhcp"
	"everboot/site"
)

// There are no leases. What can be shown is what was heard: who uses which address, and what became of a machine's last message.

// Use is an address that somebody was heard to use since the server started.
type Use struct {
	Address  netip.Addr
	MAC      site.MAC // zero: nobody knows
	Until    time.Time
	Declined bool // nobody gets it: a client found somebody else there
}

// Uses returns the addresses that somebody uses, by address.
func (s *Server) Uses() []Use {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	list := []Use{}
	for _, generation := range []map[netip.Addr]use{s.state.known.old, s.state.known.young} {
		for a := range generation {
			// One that is in both is what the young one says.
			if u, ok := s.state.known.of(now, a); ok {
				list = append(list, Use{a, u.mac, u.until, u.declined})
			}
		}
	}
	slices.SortFunc(list, func(a, b Use) int { return a.Address.Compare(b.Address) })
	return slices.CompactFunc(list, func(a, b Use) bool { return a.Address == b.Address })
}

// Last returns what became of a machine's last message that this node answered or refused.
func (s *Server) Last(mac site.MAC) (dhcp.Decision, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, ok := s.last[mac]
	if !ok {
		d, ok = s.before[mac]
	}
	return d, ok
}

// remember keeps a decision. It is bounded as what is known of addresses is.
func (s *Server) remember(d dhcp.Decision) {
	if d.MAC.IsZero() || d.Reason == dhcp.OtherNode {
		return
	}
	if _, there := s.last[d.MAC]; !there && len(s.last) >= maxKnown {
		s.before, s.last = s.last, make(map[site.MAC]dhcp.Decision)
	}
	s.last[d.MAC] = d
}
