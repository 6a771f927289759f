package tftp

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"sync"
	"time"

	"everboot/tftp/wire"
)

const (
	// maxProbes is how many probes are let in beyond all limits; a further one takes the place of one that has not answered.
	maxProbes = 64
	// openers open files, so that a slow disk does not keep a warm file from being sent.
	openers = 4
	// openQueue is how many requests may wait for them; whoever comes then asks again.
	openQueue = 1024
	// idle is how long the owner sleeps when nothing is due.
	idle = 10 * time.Second
)

// owner leads all transfers. Everything in it belongs to the goroutine of run.
type owner struct {
	s      *Server
	socket *socket // where requests come to
	ports  *portSet
	in     *receiver
	out    *sender
	lib    *library
	table  *table
	hand   *handover
	past   past
	epoch  time.Time
	now    time.Duration // since epoch, as of the last wake-up
	jobs   chan func()   // for the openers
	stop   bool
	// lockstep tells that the last blocks sent were one, so that its client answers at once.
	lockstep bool
}

func newOwner(s *Server, socket *socket, own *portSet) *owner {
	o := &owner{
		s: s, socket: socket, ports: own, in: newReceiver(), out: new(sender), lib: newLibrary(s.files),
		table: newTable(s.cfg.MaxTransfers, s.cfg.PerClient), hand: newHandover(), epoch: time.Now(), jobs: make(chan func(), openQueue),
	}
	o.lib.digested = func(i *image) { s.inbox.call(func(o *owner) { o.digested(i) }) }
	return o
}

// start starts what works beside the owner until ctx ends.
func (o *owner) start(ctx context.Context) *sync.WaitGroup {
	var group sync.WaitGroup
	for range openers {
		group.Go(func() {
			for {
				select {
				case job := <-o.jobs:
					job()
				case <-ctx.Done():
					return
				}
			}
		})
	}
	group.Go(func() { o.lib.digester(ctx) })
	return &group
}

// run leads the transfers until ctx ends.
func (o *owner) run(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { o.s.inbox.call(func(o *owner) { o.stop = true }) })()
	defer o.drop()
	w := newWaiter(o.socket.fd, o.s.inbox.event, o.ports.epoll)
	for !o.stop {
		n := o.in.receive(o.socket)
		if n == 0 && o.spins() {
			n = w.spin(o)
		}
		if n == 0 && !o.s.inbox.full.Load() {
			if err := w.sleep(o.sleep()); err != nil {
				return err
			}
			n = o.in.receive(o.socket)
		}
		o.now = time.Since(o.epoch)
		if o.s.inbox.full.Load() {
			for _, call := range o.s.inbox.take() {
				call(o)
			}
		}
		o.take(o.socket, n)
		for _, own := range o.ports.ready() {
			if own.fd >= 0 { // its transfer may have ended a moment ago
				o.take(own, o.in.receive(own))
			}
		}
		o.ticks()
		o.share()
		o.out.flush()
		o.s.stats.unsent.Store(o.out.failed)
		if o.gathers(n) {
			gather()
		}
	}
	return nil
}

// take takes the datagrams of the last receive, from a socket.
func (o *owner) take(from *socket, n int) {
	for i := range n {
		a := o.in.at(i, from.six)
		o.arrived(from, &a)
	}
}

// arrived is one datagram. ACKs come first: they are nearly all.
func (o *owner) arrived(from *socket, a *arrival) {
	if block, ok := wire.ParseAck(a.payload); ok {
		if t := o.table.byEnds[a.ends]; t != nil && t.image != nil && t.socket == from {
			o.acked(t, block)
		} else if !o.spoke(from, a.ends, block) {
			o.count(Stray)
		}
		return
	}
	switch {
	case a.group:
		o.count(Group)
	case a.cut:
		o.count(Malformed)
	case wire.ParseOpcode(a.payload) == wire.OpError:
		o.refused(from, a)
	case from != o.socket: // requests are for the port of all
		o.count(Stray)
	default:
		o.request(a)
	}
}

func (o *owner) acked(t *transfer, block uint16) {
	act := t.session.Step(o.now, wire.Event{Kind: wire.Ack, Block: block})
	if t.stranger && t.session.Met() {
		o.table.met(t)
	}
	o.act(t, act)
}

// refused is an ERROR. Nobody answers one (RFC 1350 §7).
func (o *owner) refused(from *socket, a *arrival) {
	t := o.table.byEnds[a.ends]
	code, text, ok := wire.ParseError(a.payload)
	if !ok || t == nil || t.image == nil || t.socket != from {
		o.count(Stray)
		return
	}
	t.code, t.text = code, text
	o.act(t, t.session.Step(o.now, wire.Event{Kind: wire.Failed}))
}

// act does what a session asks for.
func (o *owner) act(t *transfer, a wire.Action) {
	switch a.What {
	case wire.SendBlocks:
		o.blocks(t, a.First, a.Count)
	case wire.SendOAck:
		o.out.packet(t.socket, &t.route, t.request.AppendOAck(nil, t.session.Terms()))
	case wire.End:
		o.finish(t)
		return
	case wire.Nothing:
		return
	}
	o.table.schedule(t, t.session.Deadline())
}

// request is a request, or nothing that we know.
func (o *owner) request(a *arrival) {
	r, err := wire.ParseRequest(a.payload)
	if err != nil {
		o.count(Malformed)
		return
	}
	if t := o.table.byEnds[a.ends]; t != nil {
		if t.request == r && (t.image == nil || t.session.Acked() == 0) {
			if t.image != nil {
				o.act(t, t.session.Step(o.now, wire.Event{Kind: wire.Again}))
			}
			return
		}
		o.count(Superseded)
		o.remove(t)
	}
	if o.asksAgain(a.ends, r) {
		return
	}
	t := &transfer{ends: a.ends, socket: o.socket, route: newRoute(&a.ends, o.socket.six), request: r, raw: slices.Clone(a.payload), began: time.Now()}
	switch {
	case r.Write:
		o.deny(t, Write, wire.CodeAccess, "read-only server")
	case r.Mode == wire.Unknown:
		o.deny(t, UnknownMode, wire.CodeIllegal, "unknown mode: use octet or netascii")
	default:
		o.accept(t)
	}
}

// accept gives a request its place, and has the file opened.
func (o *owner) accept(t *transfer) {
	t.probe = o.s.probes(&t.ends)
	// Probes are let in: a node that is busy would be taken for a sick one, give its address away, and all transfers with it.
	who, ok := o.table.victim(t.ends.remote)
	if !ok && t.probe {
		if ok = o.table.probes < maxProbes; !ok {
			who = o.table.forgotten() // those that forge their sender never answer
			ok = who != nil
		}
	}
	if !ok {
		o.deny(t, Refused, wire.CodeOther, "too many transfers, try again")
		return
	}
	if who != nil {
		o.count(Evicted)
		o.remove(who)
	}
	if o.s.cfg.EphemeralPorts && !t.probe {
		if err := o.move(t, 0); err != nil {
			o.s.log.Warn("tftp: no port for a transfer", "client", t.ends.client(), "err", err)
			o.deny(t, NoPort, wire.CodeOther, "no free port, try again")
			return
		}
	}
	client := t.ends.client().Addr()
	t.limits = wire.Limits{Block: o.s.cfg.block(client), Window: DefaultWindow}
	o.enter(t)
	o.job(func() {
		i, err := o.lib.open(t.request.Name, t.request.Mode)
		if !o.s.inbox.call(func(o *owner) { o.opened(t, i, err) }) && i != nil {
			o.lib.release(i)
		}
	}, func() {
		o.count(Busy)
		o.remove(t)
	})
}

// move gives a transfer a port of its own; 0: any.
func (o *owner) move(t *transfer, port uint16) error {
	s, err := o.ports.open(&t.ends, port)
	if err == nil {
		t.socket, t.route = s, newRoute(&t.ends, s.six)
	}
	return err
}

// enter puts a transfer into the table.
func (o *owner) enter(t *transfer) {
	o.hand.number++
	t.number = o.hand.number
	o.table.add(t)
	o.s.stats.active.Add(1)
}

// begin sends the first packets of a transfer whose file is open.
func (o *owner) begin(t *transfer, how wire.EventKind) {
	o.segment(t)
	o.act(t, t.session.Step(o.now, wire.Event{Kind: how}))
	o.hand.fresh = true
}

// segment has the kernel cut the windows of a transfer into datagrams.
func (o *owner) segment(t *transfer) {
	if terms := t.session.Terms(); terms.Window > 1 {
		t.route.segment(terms.Block + wire.HeaderSize)
	}
}

// opened begins a transfer whose file is open.
func (o *owner) opened(t *transfer, i *image, err error) {
	gone := o.table.byEnds[t.ends] != t
	switch {
	case gone && err == nil:
		o.lib.release(i)
	case gone:
	case err != nil:
		reason, code, text := wireError(err)
		o.s.log.Debug("tftp: no such file", "client", t.ends.client(), "file", t.request.Name, "err", err)
		o.s.tell(&t.ends, "no file "+plain(t.request.Name))
		o.deny(t, reason, code, text)
		o.remove(t)
	default:
		t.image = i
		t.session = wire.NewSession(t.request.Agree(int64(len(i.data)), t.limits))
		o.begin(t, wire.Start)
	}
}

// deny answers with an ERROR, once.
func (o *owner) deny(t *transfer, r Reason, code wire.ErrorCode, text string) {
	o.count(r)
	o.out.packet(t.socket, &t.route, wire.AppendError(nil, code, text))
}

func (o *owner) count(r Reason) { o.s.stats.dropped[r].Add(1) }

// ticks looks after everybody whose time has come.
func (o *owner) ticks() {
	for t := o.table.first(); t != nil && t.due <= o.now; t = o.table.first() {
		if at := t.session.Deadline(); at > o.now {
			o.table.postpone(at)
			continue
		}
		o.table.unschedule(t)
		o.act(t, t.session.Step(o.now, wire.Event{Kind: wire.Tick}))
	}
}

// finish ends a transfer and tells about it.
func (o *owner) finish(t *transfer) {
	o.s.stats.finished[t.session.Result()].Add(1)
	o.report(t)
	o.remove(t)
}

// remove takes a transfer from the table.
func (o *owner) remove(t *transfer) {
	o.table.remove(t)
	if t.told > 0 {
		o.hand.closed = append(o.hand.closed, t.number)
	}
	if t.image != nil {
		o.s.stats.bytes.Add(uint64(max(0, t.session.Bytes()-t.adopted)))
		o.s.stats.resent.Add(t.session.Resent())
		o.out.flush() // it may point into the image
		o.lib.release(t.image)
	}
	if t.socket != o.socket {
		o.out.flush()
		o.ports.close(t.socket)
	}
	o.s.stats.active.Add(-1)
}

// drop gives everything back at the end.
func (o *owner) drop() {
	o.out.flush()
	for _, t := range o.table.byEnds {
		o.remove(t)
	}
	for _, s := range o.hand.byKey {
		o.unshadow(s)
	}
}

// wireError words what went wrong for the client, without telling it about our directories.
func wireError(err error) (Reason, wire.ErrorCode, string) {
	var name *NameError
	switch {
	case errors.As(err, &name):
		return BadName, wire.CodeAccess, "bad file name: " + name.Why
	case errors.Is(err, errNetasciiSize):
		return NotReadable, wire.CodeOther, err.Error()
	case errors.Is(err, fs.ErrNotExist):
		return NotFound, wire.CodeNotFound, "file not found"
	case errors.Is(err, fs.ErrPermission):
		return NotReadable, wire.CodeAccess, "access violation"
	}
	return NotReadable, wire.CodeAccess, "file cannot be read"
}
