package tftp

import (
	"time"

	"everboot/tftp/wire"
)

// forget is how long a peer's transfer is kept of which nothing is heard any more: longer than any client's patience.
const forget = 40 * time.Second

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
	waits   time.Duration // since when its client is waited for, because the file here is another one; 0: it is not
}

type shadowKey struct {
	from   string
	number uint32
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
		if !now[s.record.Server.As16()] {
			s.waits = 0
		}
		o.tryTake(s)
	}
	o.hand.fresh = true
}

// letGo makes a transfer of ours the shadow of one: another appliance leads it now, or will, or we again.
func (o *owner) letGo(t *transfer) {
	if t.image != nil && !t.probe && t.ends.zone == 0 && t.image.Digest().Known() {
		o.lib.hold(t.image)
		o.addShadow(&shadow{record: t.record(), request: t.request, image: t.image, heard: o.now})
	}
	t.told = 0 // it has not ended
	o.count(LetGo)
	o.remove(t)
}

// tryTake takes a transfer over if its address is ours and its file is there, and answers the client if the file is another one, unless that
// may have nothing of it yet.
func (o *owner) tryTake(s *shadow) {
	if s.taken || !o.hand.own[s.record.Server.As16()] {
		return
	}
	ends := s.ends()
	if o.table.byEnds[ends] != nil { // its client has asked us anew
		s.taken = true
		return
	}
	t := o.after(s)
	switch {
	case s.missing:
		s.taken = true
		o.deny(t, NoFile, wire.CodeNotFound, "file not found on the appliance that took over")
	case s.image == nil:
		o.openShadow(s)
	case !s.image.Digest().Known(): // the digester says when
	case s.image.Digest() == s.record.Digest && int64(len(s.image.data)) == s.record.Size:
		o.adopt(s, t)
	case s.waits > 0:
	case s.record.Acked == 0 && s.record.Port == 0:
		s.waits = o.now
	default:
		o.differs(s, t)
	}
}

// differs tells a client that has a part of another file.
func (o *owner) differs(s *shadow, t *transfer) {
	s.taken, s.waits = true, 0
	o.deny(t, OtherFile, wire.CodeOther, "the file differs on the appliance that took over: start again")
}

// after returns a transfer that goes on from a shadow.
func (o *owner) after(s *shadow) *transfer {
	ends := s.ends()
	return &transfer{ends: ends, socket: o.socket, route: newRoute(&ends, o.socket.six), request: s.request, raw: s.record.Request, began: time.Now()}
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
	o.inherit(s, t)
	if s.record.Met {
		o.table.met(t)
	}
	o.begin(t, wire.Adopted)
}

// inherit gives a transfer the file of its shadow, and what its client has agreed on with another appliance.
func (o *owner) inherit(s *shadow, t *transfer) {
	t.image, s.image = s.image, nil
	limits := wire.Limits{Block: s.record.Block, Window: s.record.Window}
	t.session = wire.NewAdopted(s.request.Agree(int64(len(t.image.data)), limits), s.record.Acked, s.record.Met)
	t.resumed, t.adopted = 1, t.session.Bytes()
	o.enter(t)
	o.s.stats.resumed.Add(1)
}

// digested is a digest that has become known: transfers of that file may be told, or taken over.
func (o *owner) digested(i *image) {
	for _, s := range o.hand.byKey {
		if s.image == i {
			o.tryTake(s)
		}
	}
}

// forget forgets peers' transfers of which nothing is heard, and looks after files that nobody has read.
func (o *owner) forget() {
	if o.hand.round%shareWhole != 0 {
		return
	}
	o.lib.readAgain()
	for _, s := range o.hand.byKey {
		if o.now-s.heard > forget {
			o.unshadow(s)
		}
	}
}
