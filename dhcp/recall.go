package dhcp

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"everboot/dhcp/leases"
)

// Leases are also written down elsewhere, in pages, some time after they are on our disk and with the peers (Config.Kept). Nothing waits for that. What
// is read there is old, but it is what is left when a disk is new and no peer answers; and that a peer writes says that it lives.

// recalled is what a peer wrote down, and which is read now.
type recalled struct {
	from  netip.Addr
	lives bool
	list  []leases.Lease
}

// Learn takes in what a peer wrote down of leases elsewhere; lives says that it did so since we looked there last. It waits for its turn.
func (s *Server) Learn(ctx context.Context, from netip.Addr, lives bool, list []leases.Lease) error {
	select {
	case s.recalls <- recalled{from, lives, list}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("learning leases that %s wrote down: %w", from, context.Cause(ctx))
	}
}

func (s *Server) learn(r recalled) {
	s.mu.Lock()
	save := s.recall(time.Now(), r.list)
	if r.lives && s.state.pair != nil {
		s.state.pair.Lives(time.Now(), r.from)
	}
	s.mu.Unlock()
	if len(save) > 0 {
		s.keep(outgoing{save: save})
	}
}

// recall returns what was news.
func (s *Server) recall(now time.Time, list []leases.Lease) (save []leases.Lease) {
	for _, written := range list {
		switch l, verdict := s.state.table.Recall(now, written); verdict {
		case leases.Taken, leases.Joined:
			save = append(save, l)
		case leases.Conflict:
			if !s.clashed.news(now, clash{l.Address, l.Client, written.Client}) {
				continue
			}
			s.stats.Clashes++
			s.log.Warn("an address was given to two clients, says what was written down of leases: the one here keeps it", "address", l.Address, "client", l.Client, "other", written.Client)
		}
	}
	s.stats.Recalled += uint64(len(save))
	return save
}

// recallAll makes up for a lease file that is new.
func (s *Server) recallAll(st store) error {
	if s.cfg.Recall == nil {
		return nil
	}
	list, all := s.cfg.Recall()
	now := time.Now()
	s.mu.Lock()
	save := s.recall(now, list)
	if all && s.state.pair != nil {
		s.state.pair.Vouch(now)
	}
	s.mu.Unlock()
	if len(save) > 0 {
		s.log.Warn("the lease file is new: DHCP goes on with what was written down elsewhere", "leases", len(save))
	}
	return st.Commit(save)
}

// Page returns what is known of the addresses of a block (leases.PageOf).
func (s *Server) Page(block netip.Prefix) []leases.Lease {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state.table.Within(time.Now(), block)
}
