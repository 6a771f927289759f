package tftp

import (
	"time"

	"everboot/tftp/wire"
)

// A transfer that is taken over, and whose file is another one here, can begin anew as long as its client has nothing of the old one. What we
// were told of it is older than what its client has: only the client can say, and it does so by itself, for it repeats what got no answer.

// lull is for how long after a take-over that word is not believed. The appliance before us goes on for 20 ms (docs/adr/0008), and a block of its
// file may be on its way while we hear that there is none. PXELINUX repeats itself after 110 ms, iPXE after 250 ms, others later.
const lull = 100 * time.Millisecond

// waiting returns the shadow whose client is waited for.
func (o *owner) waiting(ends endpoints) *shadow {
	if s := o.hand.byEnds[ends]; s != nil && s.waits > 0 && !s.taken {
		return s
	}
	return nil
}

// early tells whether a client's word came so soon after a take-over that it will be waited for once more.
func (o *owner) early(s *shadow) bool { return o.now-s.waits < lull }

// spoke is an ACK of a client that another appliance began to send another file to. It returns false if it is of no such client.
func (o *owner) spoke(from *socket, ends endpoints, block uint16) bool {
	s := o.waiting(ends)
	if s == nil || from != o.socket {
		return false
	}
	switch {
	case block > 0 || s.record.Acked > 0: // it has blocks of the other file
		o.differs(s, o.after(s))
	case o.early(s):
	case s.heard-s.waits > lull: // another appliance tells of it as if the address was still its own: both would send
	case !s.request.Takes(s.record.Size, int64(len(s.image.data))):
		o.differs(s, o.after(s))
	default:
		o.anew(s)
	}
	return true
}

// anew sends our file to a client that has acknowledged the OACK of another one, and has nothing of that.
func (o *owner) anew(s *shadow) {
	s.taken, s.waits = true, 0
	t := o.after(s)
	o.inherit(s, t)
	o.s.log.Info("tftp: the file of a transfer that was taken over is another one here; its client had nothing of it, and gets ours",
		"client", t.ends.client(), "file", t.image.name)
	// The others hear of it before the first block leaves: one that knew only of the file before would go on with that.
	o.hand.fresh, o.hand.at = true, o.now
	o.segment(t)
	act := t.session.Step(o.now, wire.Event{Kind: wire.Adopted})
	if act.What == wire.SendOAck { // its client has one, and says so
		act = t.session.Step(o.now, wire.Event{Kind: wire.Ack})
	}
	if t.session.Met() {
		o.table.met(t)
	}
	o.act(t, act)
}

// asksAgain is a request from the ends of a transfer that was taken over. It returns true if it is not answered.
func (o *owner) asksAgain(ends endpoints, r wire.Request) bool {
	s := o.waiting(ends)
	if s == nil {
		return false
	}
	if s.request == r && o.early(s) { // it comes again
		return true
	}
	s.taken, s.waits = true, 0
	return false
}
