package dhcp

import (
	"fmt"
	"net/netip"
	"time"

	"everboot/dhcp/leases"
	"everboot/site"
)

// An address that nobody ever had is asked for by ARP before it is offered (RFC 2131 §2.2, §4.4.1; RFC 5227 §2.1.1): a machine may sit there whose
// address somebody typed in. It is asked only where we are on the same Ethernet, and never before a renewal.

const (
	// probeFor is how long somebody at the address has time to answer. Firmware waits 4 s for an offer.
	probeFor = 250 * time.Millisecond
	// maxProbes bounds how many offers wait at once; those beyond leave without a probe.
	maxProbes = 256
	// maxTaken is how many addresses in use a client's message may come upon: who answers for all of them is no reason to lose a whole pool.
	maxTaken = 3
)

// prober asks by ARP who has an address.
type prober interface {
	Probe(a netip.Addr) error
	Close()
}

// probe is an offer that waits for whether somebody is at its address.
type probe struct {
	offer outgoing
	asked question
	until time.Time
	taken int // addresses that were found in use before, for the same message
}

// sighting is ARP from a machine that has an address.
type sighting struct {
	addr netip.Addr
	mac  site.MAC
}

// openProber opens what asks by ARP. Without it offers leave at once.
func (s *Server) openProber() {
	s.prober = nil
	if s.arp == nil {
		return
	}
	p, err := s.arp(s.cfg.Interface, s.sighted)
	if err != nil {
		s.log.Warn("DHCP cannot ask by ARP whether an address is in use before it offers it", "error", err)
		return
	}
	s.prober = p
}

// sighted takes in that a machine has an address. It never blocks.
func (s *Server) sighted(a netip.Addr, mac site.MAC) {
	if s.probes.Load() == 0 {
		return // all ARP of the segment comes by here
	}
	select {
	case s.sightings <- sighting{a, mac}:
	default:
	}
}

// hold keeps an offer back until its address has been asked for. It reports whether it did.
func (s *Server) hold(o outgoing, q question, taken int) bool {
	if !o.probe.IsValid() || s.prober == nil || len(s.probing) >= maxProbes {
		return false
	}
	// First the note: a neighbour answers within microseconds.
	s.probing[o.probe] = probe{o, q, time.Now().Add(probeFor), taken}
	s.probes.Store(int32(len(s.probing)))
	if err := s.prober.Probe(o.probe); err != nil {
		delete(s.probing, o.probe)
		s.probes.Store(int32(len(s.probing)))
		return false // an offer matters more
	}
	return true
}

// endProbes sends the offers whose addresses nobody has.
func (s *Server) endProbes(now time.Time) {
	for a, p := range s.probing {
		if now.Before(p.until) {
			continue
		}
		delete(s.probing, a)
		s.transmit(p.offer)
	}
	s.probes.Store(int32(len(s.probing)))
}

// taken puts an address that a machine was seen to have into quarantine, and makes its client another offer.
func (s *Server) taken(seen sighting) {
	p, ok := s.probing[seen.addr]
	if !ok || site.MAC(p.asked.ClientHWAddr) == seen.mac {
		return
	}
	delete(s.probing, seen.addr)
	now := time.Now()
	s.mu.Lock()
	s.stats.Reasons[InUse]++
	l, _ := s.state.table.At(now, seen.addr)
	l, ok = s.state.table.Decline(now, seen.addr, l.Client, quarantine)
	if ok && s.state.pair != nil {
		s.state.pair.Changed(now, seen.addr)
	}
	s.mu.Unlock()
	if !ok {
		return
	}
	s.log.Warn("DHCP found an address of its pool in use; it is given to nobody for a while", "address", seen.addr, "by", seen.mac)
	s.keep(outgoing{save: []leases.Lease{l}})
	s.events(site.Event{At: now, MAC: l.MAC, What: string(InUse), Detail: fmt.Sprintf("%s is in use by %s: give that machine a reservation, or exclude its address", seen.addr, seen.mac)})
	if p.taken+1 < maxTaken {
		s.answerTo(p.asked, p.taken+1)
	}
}
