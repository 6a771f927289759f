package dhcp

import (
	"net/netip"
	"slices"
	"time"

	"everboot/site"
)

const (
	// perSecond is how many messages of one machine are answered in a second: a boot needs about four in all, a broken client sends
	// thousands.
	perSecond = 10
	// allPerSecond is how many messages are looked at in a second in all: several times what two cores can answer.
	allPerSecond = 50000
	// maxRecent bounds each of the two generations of what is remembered of machines: random MACs must not fill the memory.
	maxRecent = 1 << 14
	// maxForeign bounds how many other servers are remembered: anybody can write any address into a REQUEST.
	maxForeign = 16
	// foreignFor is how long another server is spoken of after its last sign.
	foreignFor = time.Hour
)

// limiter counts the messages of each machine in the present second. It is bounded: of a flood of MACs, those that do not fit are not
// limited, and the queue is.
type limiter struct {
	second int64
	all    int
	count  map[site.MAC]uint16
}

// allows counts a message and reports whether it may be answered.
func (l *limiter) allows(now time.Time, mac site.MAC) bool {
	if s := now.Unix(); s != l.second || l.count == nil {
		l.second, l.all = s, 0
		if l.count == nil {
			l.count = make(map[site.MAC]uint16)
		}
		clear(l.count)
	}
	if l.all++; l.all > allPerSecond {
		return false
	}
	n, known := l.count[mac]
	if !known && len(l.count) >= maxRecent {
		return true
	}
	l.count[mac] = min(n+1, perSecond+1)
	return n < perSecond
}

// Foreign is another DHCP server of the segment, of which a client took an offer.
type Foreign struct {
	Server netip.Addr `json:"server"`
	First  time.Time  `json:"first"`
	Last   time.Time  `json:"last"`
	Client site.MAC   `json:"client"` // the last that took its offer
}

// noteForeign remembers a server that is none of ours.
func (s *State) noteForeign(now time.Time, server netip.Addr, client site.MAC) {
	if slices.Contains(s.cfg.Peers, server) {
		return
	}
	s.foreign = slices.DeleteFunc(s.foreign, func(f Foreign) bool { return now.Sub(f.Last) > foreignFor })
	i := slices.IndexFunc(s.foreign, func(f Foreign) bool { return f.Server == server })
	switch {
	case i >= 0:
		s.foreign[i].Last, s.foreign[i].Client = now, client
	case len(s.foreign) < maxForeign:
		s.foreign = append(s.foreign, Foreign{server, now, now, client})
	}
}

// Foreign returns the other DHCP servers of the segment that clients took offers of in the last hour.
func (s *Server) Foreign() []Foreign {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(s.state.foreign), func(f Foreign) bool { return now.Sub(f.Last) > foreignFor })
}
