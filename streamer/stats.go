package streamer

import (
	"maps"
	"sync"
	"sync/atomic"

	"everboot/site"
)

// Drop says why a connection ended before it was a login that could be answered.
type Drop string

// The drops.
const (
	DropTooMany   Drop = "too-many"   // more connections at once, or more logins of one device, than allowed
	DropSlow      Drop = "slow"       // the first PDU did not come in time
	DropHungUp    Drop = "hung-up"    // the initiator closed the connection
	DropMalformed Drop = "malformed"  // not a login request, or one that breaks the rules
	DropOversized Drop = "oversized"  // more bytes than a login may have
	DropDiscovery Drop = "discovery"  // a discovery session that broke off
	DropLoop      Drop = "loop"       // a director dialled a streamer whose address this appliance has now
	DropStop      Drop = "stopping"   // the director stops; the initiator was told to come back
	DropAnswer    Drop = "unanswered" // the answer could not be sent
)

// DirectorStats are counts for metrics.
type DirectorStats struct {
	Sessions    int                    // now
	Holding     int                    // logins that wait for a streamer, now
	Logins      map[site.Reason]uint64 // how logins ended
	Drops       map[Drop]uint64
	Discoveries uint64
	Failovers   uint64
	Redirects   uint64            // logins that were sent to their streamer
	Failures    map[string]uint64 // by streamer: connections and logins that it did not take
	BytesIn     uint64            // from initiators
	BytesOut    uint64            // to initiators
}

// counts are what the director counts. Only logins count here, never bytes under way.
type counts struct {
	holding                atomic.Int64
	discoveries, failovers atomic.Uint64
	redirects              atomic.Uint64
	bytesIn, bytesOut      atomic.Uint64 // of ended sessions

	mu     sync.Mutex
	logins map[site.Reason]uint64
	drops  map[Drop]uint64
}

func (c *counts) login(r site.Reason) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.logins == nil {
		c.logins = make(map[site.Reason]uint64)
	}
	c.logins[r]++
}

func (c *counts) drop(d Drop) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.drops == nil {
		c.drops = make(map[Drop]uint64)
	}
	c.drops[d]++
}

// Stats returns the counts of now.
func (d *Director) Stats() DirectorStats {
	s := DirectorStats{
		Holding: int(d.counts.holding.Load()), Discoveries: d.counts.discoveries.Load(), Failovers: d.counts.failovers.Load(),
		Redirects: d.counts.redirects.Load(), BytesIn: d.counts.bytesIn.Load(), BytesOut: d.counts.bytesOut.Load(), Failures: d.pool.failures(),
	}
	for _, live := range d.Sessions() {
		s.Sessions++
		s.BytesIn += live.BytesIn
		s.BytesOut += live.BytesOut
	}
	d.counts.mu.Lock()
	defer d.counts.mu.Unlock()
	s.Logins, s.Drops = maps.Clone(d.counts.logins), maps.Clone(d.counts.drops)
	return s
}
