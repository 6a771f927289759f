package vip

import "everboot/vip/vrrp"

// touched is what a watch calls when one of our addresses was put on the interface or taken away, by whomever. It never blocks. Our own
// doing is what the state lets expect.
func (r *Router) touched(added bool) {
	if added == r.active.Load() {
		return
	}
	select {
	case r.touches <- struct{}{}:
	default: // one is waiting already
	}
}

// lookAround finds out what somebody else did to our addresses. An owner whose addresses are taken away hands over rather than
// quarrel with whoever does not want them here: another node may answer for them already. On a backup they have no place.
func (r *Router) lookAround() {
	held, err := r.edge.Held()
	if err != nil {
		r.log.Warn("looking for the addresses", "error", err)
		return
	}
	switch active := r.machine.State() == vrrp.Active; {
	case active && held < len(r.vrrp.Addresses):
		r.board.change(func(s *Status) { s.Odd[TakenAway]++ })
		r.log.Error("somebody has taken addresses away from this node", "left", held, "of", len(r.vrrp.Addresses))
		r.step(vrrp.AddressesLost{})
	case !active && held > 0:
		n, err := r.edge.Drop()
		r.board.change(func(s *Status) { s.Odd[PutOn]++ })
		r.log.Warn("somebody has put addresses on this node, which does not own them; they are removed", "removed", n, "error", err)
	}
}
