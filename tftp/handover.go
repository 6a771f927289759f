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
	// forget is how long a peer's transfer is kept of which nothing is heard any more: longer than any client's patience.
	forget = 40 * time.Second
	// wholeTimeout bounds how long the peer channel waits for us.
	wholeTimeout = time.Second
)

// shadow is a transfer that another appliance leads, or that we led until we lost its address. It is taken over when the address is ours.
type shadow struct {
	from    string // the peer; empty: we
	record  wire.Record
	request wire.Request
	image   *image
	opening bool
	missing bool // this appliance has no such file
	taken   bool // it has been taken over, or answered, here: what is still said of it is old
	heard   time.Duration
}

type shadowKey struct {
	from   string
	number uint32
}

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
				b = o.record(b, t)
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

func (o *owner) record(b []byte, t *transfer) []byte {
	terms := t.session.Terms()
	return wire.AppendRecord(b, &wire.Record{
		Number: t.number, Met: t.session.Met(), Client: t.ends.client(), Server: t.ends.server(), Digest: t.image.Digest(), Size: terms.Size, Block: terms.Block,
		Window: terms.Window, Acked: t.session.Acked(), Request: t.raw, Port: t.socket.port,
	})
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
		b = o.record(b, t)
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

// heard is a message of a peer.
func (o *owner) heard(from string, m wire.Handover) {
	for i := range m.Opened {
		o.shadowed(from, &m.Opened[i])
	}
	for _, p := range m.Progress {
		if s := o.hand.byKey[shadowKey{from, p.Number}]; s != nil {
			s.heard = o.now
			s.record.Acked = max(s.record.Acked, uint64(p.Acked))
		}
	}
	for _, n := range m.Closed {
		if s := o.hand.byKey[shadowKey{from, n}]; s != nil {
			o.unshadow(s)
		}
	}
}

// shadowed is a peer's transfer.
func (o *owner) shadowed(from string, r *wire.Record) {
	key := shadowKey{from, r.Number}
	if s := o.hand.byKey[key]; s != nil {
		s.heard = o.now
		s.record.Acked, s.record.Met = max(s.record.Acked, r.Acked), s.record.Met || r.Met
		return
	}
	request, err := wire.ParseRequest(r.Request)
	if err != nil || request.Write || request.Mode == wire.Unknown {
		o.count(BadPeer)
		return
	}
	if len(o.hand.byKey) >= o.table.max {
		o.count(BadPeer)
		return
	}
	s := &shadow{from: from, record: *r, request: request, heard: o.now}
	o.addShadow(s)
	o.openShadow(s)
	o.tryTake(s)
}

func (s *shadow) ends() endpoints {
	return endpoints{remote: s.record.Client.Addr().As16(), local: s.record.Server.As16(), port: s.record.Client.Port()}
}

func (o *owner) addShadow(s *shadow) {
	o.hand.byKey[shadowKey{s.from, s.record.Number}] = s
	// The newest leads: what another appliance or we ourselves knew of these ends is over.
	if old := o.hand.byEnds[s.ends()]; old != nil {
		o.unshadow(old)
	}
	o.hand.byEnds[s.ends()] = s
}

func (o *owner) unshadow(s *shadow) {
	delete(o.hand.byKey, shadowKey{s.from, s.record.Number})
	if o.hand.byEnds[s.ends()] == s {
		delete(o.hand.byEnds, s.ends())
	}
	if s.image != nil {
		o.lib.release(s.image)
		s.image = nil
	}
}

// openShadow opens the file beforehand, so that a take-over waits for no disk.
func (o *owner) openShadow(s *shadow) {
	if s.image != nil || s.opening || s.missing {
		return
	}
	s.opening = true
	o.job(func() {
		i, err := o.lib.open(s.request.Name, s.request.Mode)
		if !o.s.inbox.call(func(o *owner) { o.shadowOpened(s, i, err) }) && i != nil {
			o.lib.release(i)
		}
	}, func() { s.opening = false })
}

// reopen tries again what the openers had no time for.
func (o *owner) reopen() {
	for _, s := range o.hand.byKey {
		if !s.taken {
			o.openShadow(s)
		}
	}
}

func (o *owner) shadowOpened(s *shadow, i *image, err error) {
	s.opening = false
	if o.hand.byKey[shadowKey{s.from, s.record.Number}] != s {
		if i != nil {
			o.lib.release(i)
		}
		return
	}
	s.image, s.missing = i, err != nil
	o.tryTake(s)
}

// owns is a change of the floating addresses.
func (o *owner) owns(now map[[16]byte]bool) {
	before := o.hand.own
	lost := false
	for a := range before {
		lost = lost || !now[a]
	}
	if lost { // the last word, while it still counts
		o.hand.at = o.now
		o.share()
	}
	o.hand.own = now
	for _, t := range o.table.byEnds {
		if before[t.ends.local] && !now[t.ends.local] {
			o.letGo(t)
		}
	}
	for _, s := range o.hand.byKey {
		s.missing = false // it may have come meanwhile
		o.tryTake(s)
	}
	o.hand.fresh = true
}

// letGo makes a transfer of ours the shadow of one: another appliance leads it now, or will, or we again.
func (o *owner) letGo(t *transfer) {
	if t.image != nil && !t.probe && t.ends.zone == 0 && t.image.Digest().Known() {
		terms := t.session.Terms()
		o.lib.hold(t.image)
		o.addShadow(&shadow{
			record: wire.Record{
				Number: t.number, Met: t.session.Met(), Client: t.ends.client(), Server: t.ends.server(), Digest: t.image.Digest(), Size: terms.Size,
				Block: terms.Block, Window: terms.Window, Acked: t.session.Acked(), Request: t.raw, Port: t.socket.port,
			},
			request: t.request, image: t.image, heard: o.now,
		})
	}
	t.told = 0 // it has not ended
	o.count(LetGo)
	o.remove(t)
}

// tryTake takes a transfer over if its address is ours and its file is there, and answers the client if the file is another one.
func (o *owner) tryTake(s *shadow) {
	if s.taken || !o.hand.own[s.record.Server.As16()] {
		return
	}
	ends := s.ends()
	if o.table.byEnds[ends] != nil { // its client has asked us anew
		s.taken = true
		return
	}
	t := &transfer{ends: ends, socket: o.socket, route: newRoute(&ends, o.socket.six), request: s.request, raw: s.record.Request, began: time.Now()}
	switch {
	case s.missing:
		s.taken = true
		o.deny(t, NoFile, wire.CodeNotFound, "file not found on the appliance that took over")
	case s.image == nil:
		o.openShadow(s)
	case !s.image.Digest().Known(): // the digester says when
	case s.image.Digest() != s.record.Digest || int64(len(s.image.data)) != s.record.Size:
		s.taken = true
		o.deny(t, OtherFile, wire.CodeOther, "the file differs on the appliance that took over: start again")
	default:
		o.adopt(s, t)
	}
}

func (o *owner) adopt(s *shadow, t *transfer) {
	s.taken = true
	if s.record.Port != 0 {
		if err := o.move(t, s.record.Port); err != nil { // its client takes nothing from another port
			o.s.log.Warn("tftp: a transfer cannot be taken over", "client", t.ends.client(), "err", err)
			o.count(NoPort)
			return
		}
	}
	t.image, s.image = s.image, nil
	t.session = wire.NewAdopted(s.request.Agree(s.record.Size, wire.Limits{Block: s.record.Block, Window: s.record.Window}), s.record.Acked, s.record.Met)
	t.resumed, t.adopted = 1, t.session.Bytes()
	o.enter(t)
	if s.record.Met {
		o.table.met(t)
	}
	o.s.stats.resumed.Add(1)
	o.begin(t, wire.Adopted)
}

// digested is a digest that has become known: transfers of that file may be told, or taken over.
func (o *owner) digested(i *image) {
	for _, s := range o.hand.byKey {
		if s.image == i {
			o.tryTake(s)
		}
	}
}

// forget forgets peers' transfers of which nothing is heard.
func (o *owner) forget() {
	if o.hand.round%shareWhole != 0 {
		return
	}
	for _, s := range o.hand.byKey {
		if o.now-s.heard > forget {
			o.unshadow(s)
		}
	}
}
