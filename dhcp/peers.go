package dhcp

import (
	"bytes"
	"time"

	"everboot/dhcp/pair"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

const (
	// tickEvery is the grain of time towards the peers.
	tickEvery = 100 * time.Millisecond
	// peerPace is how long a change waits for others that fit into the same datagram. Each one costs both nodes as much as a client's message.
	peerPace = 10 * time.Millisecond
	// peerQueue bounds what peers may tell faster than we learn; what is lost is told again.
	peerQueue = 1024
	// maxPeerMessage is a datagram of the peer channel; ours are shorter. It bounds what the queue holds.
	maxPeerMessage = 1200
	// syncedEvery is how often the disk learns until when the peers' doings are known.
	syncedEvery = 30 * time.Second
)

// PeerChanged takes a peer's message. It never blocks.
func (s *Server) PeerChanged(message []byte) {
	if s.cfg.Tell == nil {
		return
	}
	drop := pair.DropMalformed
	if len(message) <= maxPeerMessage {
		select {
		case s.peers <- bytes.Clone(message):
			return
		default:
			drop = dropOverload
		}
	}
	s.mu.Lock()
	s.stats.PeerDrops[drop]++
	s.mu.Unlock()
}

// dropOverload is a message of a peer that found the queue full.
const dropOverload pair.Drop = "overload"

// hear takes a peer's message in, and what it says to the disk.
func (s *Server) hear(message []byte) {
	s.mu.Lock()
	r := s.state.pair.Receive(time.Now(), message)
	if r.Drop != "" {
		s.stats.PeerDrops[r.Drop]++
	}
	s.stats.Learned += uint64(len(r.Save))
	s.stats.Clashes += uint64(len(r.Clashes))
	s.mu.Unlock()
	for _, c := range r.Clashes {
		s.log.Error("DHCP gave one address to two clients", "address", c.Ours.Address, "one", c.Ours.MAC, "other", c.Theirs.MAC)
	}
	if len(r.Save) > 0 {
		s.keep(outgoing{save: r.Save})
	}
	s.tell(r.Tell)
}

// tick moves the time on towards the peers, and returns the messages that we left to a peer that has gone since.
func (s *Server) tick() []question {
	now := time.Now()
	if s.cfg.Tell == nil {
		if s.syncedAt.IsZero() {
			s.syncedAt = now
		}
		if len(s.cfg.Peers) == 0 {
			s.keepDue(now, now) // its first peer, which is yet to come, is none that it has not heard of for ever
		}
		return nil
	}
	s.mu.Lock()
	m := s.state.pair
	before, settled := s.peersWere, m.Settled()
	messages := m.Tick(now, s.cfg.Seen)
	after := m.Peers()
	var again []question
	for i, p := range after {
		if p.State == pair.Away && before != nil && before[i].State == pair.InTouch {
			again = s.state.asked.neglect(now, s.held.since(p.Heard.Add(-tickEvery*3)))
		}
	}
	if m.Settled() && !settled {
		again = s.held.since(now.Add(-heldFor))
	}
	synced := m.Synced(now)
	s.mu.Unlock()
	s.peersWere = after
	s.logPeers(before, after)
	s.keepDue(now, synced)
	s.tell(messages)
	return again
}

// keepDue has the disk learn until when the peers' doings are known, now and then.
func (s *Server) keepDue(now, synced time.Time) {
	if now.Sub(s.syncedAt) >= syncedEvery && !synced.IsZero() {
		s.syncedAt = now
		s.keep(outgoing{synced: synced})
	}
}

func (s *Server) logPeers(before, after []pair.Peer) {
	for i, p := range after {
		if before == nil || p.State != before[i].State {
			s.log.Info("DHCP peer", "peer", p.Address, "is", p.State)
		}
	}
}

// tellSoon has the peers told what changed, if that is not to come already.
func (s *Server) tellSoon() {
	if s.cfg.Tell != nil && s.due.CompareAndSwap(false, true) {
		s.tellTimer.Reset(peerPace)
	}
}

// tellLeases tells the peers what changed.
func (s *Server) tellLeases() {
	if s.cfg.Tell == nil {
		return
	}
	s.due.Store(false) // what changes from now on is for the next time
	s.mu.Lock()
	messages := s.state.pair.Flush(time.Now())
	s.mu.Unlock()
	s.tell(messages)
}

func (s *Server) tell(messages [][]byte) {
	for _, b := range messages {
		s.cfg.Tell(b)
	}
}

func (s *Server) keepSynced(t time.Time) {
	if err := s.store.SetSynced(t); err != nil {
		s.log.Warn("DHCP cannot note the state of its peers", "error", err)
	}
}

// Peers returns how things stand with the other nodes of the service.
func (s *Server) Peers() []pair.Peer {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state.pair == nil {
		return nil
	}
	return s.state.pair.Peers()
}

// held keeps the last messages that were not answered for the time being.
type held struct {
	ring [maxHeld]heldMessage
	next int
}

type heldMessage struct {
	at time.Time
	q  question
}

const (
	// maxHeld is what clients of another node send in the time that its death takes to be noticed, at a thousand exchanges a second, half of them its own.
	maxHeld = 2048
	heldFor = 4 * time.Second
)

func (h *held) keep(now time.Time, reason Reason, q question) {
	if reason != OtherNode && reason != Comparing {
		return
	}
	h.ring[h.next%maxHeld] = heldMessage{now, q}
	h.next++
}

// since takes the messages that came after a time, in their order and the last of each client only.
func (h *held) since(t time.Time) (list []question) {
	seen := make(map[string]bool)
	for i := range maxHeld {
		m := &h.ring[(h.next-1-i+maxHeld)%maxHeld]
		if m.q.DHCPv4 == nil || m.at.Before(t) {
			break
		}
		if mac := string(m.q.ClientHWAddr); !seen[mac] {
			seen[mac] = true
			list = append(list, m.q)
		}
		*m = heldMessage{}
	}
	return list
}

// neglect notes that nobody answered these messages, and returns those to answer now. A REQUEST of them is refused only if it comes again:
// should its node live after all, it has been answered.
func (a *asked) neglect(now time.Time, list []question) (again []question) {
	for _, q := range list {
		r, reason := read(q.DHCPv4)
		if reason != "" {
			continue
		}
		a.young[keyOf(r)] = a.since(now) - neglectedAfter
		if r.kind == dhcpv4.MessageTypeDiscover {
			again = append(again, q)
		}
	}
	return again
}
