package tftp

import (
	"net/netip"
	"slices"
	"time"

	"everboot/tftp/wire"
)

const (
	// shareEvery is how often progress is told. What a peer knows is that much behind: on a take-over the client says where it is.
	shareEvery = 100 * time.Millisecond
	// shareSoon is how soon a new transfer is told.
	shareSoon = 10 * time.Millisecond
	// shareTwice: a transfer is told whole with its first rounds of progress, and then every shareWhole rounds, because a datagram may be lost.
	shareTwice, shareWhole = 3, 20
	// maxTold keeps a message in one datagram of the peer channel.
	maxTold = 1200
	// maxWhole bounds what is told at once to a peer that knows nothing, and what is taken from one, in bytes.
	maxWhole = 1 << 20
	// wholeTimeout bounds how long the peer channel waits for us.
	wholeTimeout = time.Second
)

// handover is what an owner knows of other appliances' transfers, and has told them of its own.
type handover struct {
	own     map[[16]byte]bool // floating addresses that are ours now
	byKey   map[shadowKey]*shadow
	byEnds  map[endpoints]*shadow // the newest of each
	number  uint32                // of the next transfer of ours
	at      time.Duration         // when progress is told next
	round   int
	fresh   bool     // a transfer has been opened, or is there after a take-over, that nobody was told of
	closed  []uint32 // ended since the last round
	message []byte
}

func newHandover() *handover {
	return &handover{
		own: make(map[[16]byte]bool), byKey: make(map[shadowKey]*shadow), byEnds: make(map[endpoints]*shadow),
		number: uint32(time.Now().UnixNano()), // not the numbers of the worker before
	}
}

// Own tells which floating addresses are this appliance's now. It takes over the transfers that others led at those that are new, and lets
// go of those at the ones that are gone. It does not wait.
func (s *Server) Own(addresses []netip.Addr) {
	now := make(map[[16]byte]bool)
	for _, a := range addresses {
		now[a.As16()] = true
	}
	s.inbox.call(func(o *owner) { o.owns(now) })
}

// PeerChanged takes a message of another appliance. It does not wait.
func (s *Server) PeerChanged(from string, message []byte) {
	if len(message) > maxWhole {
		return
	}
	h, err := wire.ParseHandover(message)
	if err != nil {
		s.stats.dropped[BadPeer].Add(1)
		return
	}
	s.inbox.call(func(o *owner) { o.heard(from, h) })
}

// PeerWhole returns all transfers that another appliance should know.
func (s *Server) PeerWhole() []byte {
	answer := make(chan []byte, 1)
	ok := s.inbox.call(func(o *owner) {
		b := wire.AppendHandover(nil, wire.HandoverOpened)
		for _, t := range o.table.byEnds {
			if o.shares(t) && len(b) < maxWhole-wire.MaxRecord {
				r := t.record()
				b = wire.AppendRecord(b, &r)
			}
		}
		answer <- b
	})
	if !ok {
		return nil
	}
	select {
	case b := <-answer:
		return b
	case <-time.After(wholeTimeout):
		return nil
	}
}

// PeerMerge takes what PeerWhole returned on another appliance.
func (s *Server) PeerMerge(from string, whole []byte) { s.PeerChanged(from, whole) }

// shares tells whether a transfer can be handed over: it is at a floating address of ours, and its file's digest is known.
func (o *owner) shares(t *transfer) bool {
	return o.s.cfg.Tell != nil && o.hand.own[t.ends.local] && t.image != nil && !t.probe && t.ends.zone == 0 && t.image.Digest().Known()
}

// record is what another appliance must know of a transfer whose file is open.
func (t *transfer) record() wire.Record {
	terms := t.session.Terms()
	return wire.Record{
		Number: t.number, Met: t.session.Met(), Client: t.ends.client(), Server: t.ends.server(), Digest: t.image.Digest(), Size: terms.Size, Block: terms.Block,
		Window: terms.Window, Acked: t.session.Acked(), Request: t.raw, Port: t.socket.port,
	}
}

// share tells the peers what is new. It is called after each wake-up.
func (o *owner) share() {
	h := o.hand
	if o.s.cfg.Tell == nil {
		return
	}
	if h.fresh && h.at > o.now+shareSoon {
		h.at = o.now + shareSoon
	}
	if h.fresh = false; o.now < h.at {
		return
	}
	h.at = o.now + shareEvery
	h.round++
	o.tellOpened()
	o.tellProgress()
	o.tellClosed()
	o.reopen()
	o.forget()
}

func (o *owner) tellOpened() {
	h := o.hand
	b := wire.AppendHandover(h.message[:0], wire.HandoverOpened)
	for _, t := range o.table.byEnds {
		if !o.shares(t) || t.told >= shareTwice && (h.round+int(t.number))%shareWhole != 0 {
			continue
		}
		if len(b)+len(t.raw)+wire.MaxRecord-wire.MaxRequest > maxTold {
			b = o.tell(b, wire.HandoverOpened)
		}
		r := t.record()
		b = wire.AppendRecord(b, &r)
		t.told++
		t.toldAcked = t.session.Acked()
	}
	h.message = o.tell(b, wire.HandoverOpened)
}

func (o *owner) tellProgress() {
	h := o.hand
	b := wire.AppendHandover(h.message[:0], wire.HandoverProgress)
	for _, t := range o.table.byEnds {
		if t.told == 0 || t.image == nil || t.toldAcked == t.session.Acked() {
			continue
		}
		t.toldAcked = t.session.Acked()
		if b = wire.AppendProgress(b, wire.Progress{Number: t.number, Acked: uint32(t.toldAcked)}); len(b) > maxTold-16 {
			b = o.tell(b, wire.HandoverProgress)
		}
	}
	h.message = o.tell(b, wire.HandoverProgress)
}

func (o *owner) tellClosed() {
	h := o.hand
	b := wire.AppendHandover(h.message[:0], wire.HandoverClosed)
	for _, n := range h.closed {
		if b = wire.AppendClosed(b, n); len(b) > maxTold-16 {
			b = o.tell(b, wire.HandoverClosed)
		}
	}
	h.closed = h.closed[:0]
	h.message = o.tell(b, wire.HandoverClosed)
}

// tell sends a message, if there is something in it, and returns an empty one.
func (o *owner) tell(b []byte, k wire.HandoverKind) []byte {
	if len(b) > 2 {
		o.s.cfg.Tell(slices.Clone(b))
	}
	return wire.AppendHandover(b[:0], k)
}

// wait returns how long the owner may sleep for the sake of the peers.
func (h *handover) wait(now time.Duration, transfers int) time.Duration {
	if transfers == 0 && len(h.closed) == 0 && len(h.byKey) == 0 {
		return idle
	}
	return max(h.at-now, 0)
}
