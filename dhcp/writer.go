package dhcp

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"everboot/dhcp/leases"
	"everboot/site"
)

const (
	// maxBatch is how many answers wait for one write to the disk: with a thousand a second, what a busy disk makes wait for 4 s. Who brings more waits for it.
	maxBatch = 4096
	// busyPace is the least time from one write to the next from busyAnswers a second: a write costs the same whether it holds one lease or
	// fifty, and what the processor saves is then worth more to clients than milliseconds.
	busyPace    = 4 * time.Millisecond
	busyAnswers = 1500
	// paceFor is the time of which answers are counted.
	paceFor = 100 * time.Millisecond
	// slowWrite is how long a write takes that is not left to who reads messages.
	slowWrite = 5 * time.Millisecond
	// lazyFor is how long a write waits for more while nobody waits for it: what peers tell is on their disks already. lazyBatch is how much
	// is enough.
	lazyFor   = 20 * time.Millisecond
	lazyBatch = 256
	// hungAfter is how long a write may take before other nodes are asked to do our work.
	hungAfter = time.Second
	// retryAfter is when a write that failed is tried again for the sake of what no client will ask for again.
	retryAfter = time.Second
)

// store keeps leases; *leases.Store is the real one.
type store interface {
	Commit([]leases.Lease) error
	SetSynced(time.Time) error
	Close() error
}

// outgoing is an answer, and the leases that must be on disk before it leaves. Without an answer it is the leases alone.
type outgoing struct {
	save    []leases.Lease
	payload []byte
	probe   netip.Addr // an offer's, to be asked for before it leaves
	to      destination
	synced  time.Time   // to be kept on disk
	done    func(error) // told what became of it; may be nil
}

// hurries reports whether somebody waits for it.
func (o outgoing) hurries() bool { return o.payload != nil || o.done != nil }

// disk is what waits to be written, and the right to write it. Whoever takes the right takes all that waits, so that records reach the disk in the order in which
// they were made.
type disk struct {
	turn chan struct{} // holds one while somebody writes. A channel, not a mutex: some only try
	poke chan struct{} // wakes the goroutine that writes what nobody else does

	mu      sync.Mutex // guards what follows
	waiting []outgoing
	held    int // leases in it
	hurried int // how many of it hurry
}

func newDisk() disk { return disk{turn: make(chan struct{}, 1), poke: make(chan struct{}, 1)} }

// add puts an answer behind the others and returns how many wait.
func (d *disk) add(o outgoing) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.waiting, d.held = append(d.waiting, o), d.held+len(o.save)
	if o.hurries() {
		d.hurried++
	}
	return len(d.waiting)
}

// take returns all that waits. Only who has the turn calls it.
func (d *disk) take() []outgoing {
	d.mu.Lock()
	defer d.mu.Unlock()
	batch := d.waiting
	d.waiting, d.held, d.hurried = nil, 0, 0
	return batch
}

// waits returns how many answers wait, and whether there is a reason to write at once.
func (d *disk) waits() (count int, now bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.waiting), d.hurried > 0 || d.held >= lazyBatch
}

// wake has the writing goroutine look.
func (d *disk) wake() {
	select {
	case d.poke <- struct{}{}:
	default:
	}
}

// keep has leases written and their answer sent then. Only who has the turn to answer calls it.
func (s *Server) keep(o outgoing) {
	if s.disk.add(o) >= maxBatch {
		s.disk.turn <- struct{}{}
		s.writeWaiting()
	}
}

// drained is called by who reads messages, when there are no more for now: it writes what it has answered. That spares the client the time in which another goroutine
// is woken, which is longer than the write; and what arrives meanwhile goes into the next one. It leaves the work to the other when the disk is slow, when so many answers come
// that they are worth gathering, and while the other writes.
func (s *Server) drained() {
	if _, now := s.disk.waits(); !now {
		return
	}
	if s.direct.Load() {
		select {
		case s.disk.turn <- struct{}{}:
			s.writeWaiting()
			return
		default:
		}
	}
	s.disk.wake()
}

// writeWaiting writes what waits, and gives the turn at the disk back.
func (s *Server) writeWaiting() {
	batch := s.disk.take()
	s.written = time.Now()
	began := s.written
	s.writing.Store(&began)
	s.write(batch)
	s.writing.Store(nil)
	s.direct.Store(s.pace.of(s.written, batch) == 0 && time.Since(s.written) < slowWrite)
	if s.failing.Store(len(s.unwritten) > 0); s.failing.Load() {
		s.disk.wake() // who is to try again
	}
	<-s.disk.turn
}

// lookAtDisk finds out whether leases can be written. While they cannot, our clients are the other nodes' to answer.
func (s *Server) lookAtDisk(now time.Time) {
	began := s.writing.Load()
	broken := s.failing.Load() || began != nil && now.Sub(*began) >= hungAfter
	s.mu.Lock()
	changed := s.state.noDisk != broken
	s.state.noDisk = broken
	if s.state.pair != nil {
		s.state.pair.Hinder(broken)
	}
	s.mu.Unlock()
	switch {
	case changed && broken:
		s.log.Warn("DHCP offers nothing: the disk takes no leases; another appliance answers, if there is one")
	case changed:
		s.log.Info("DHCP offers addresses again: the disk takes leases")
	}
}

// DiskFails reports whether leases cannot be written, so that nobody is offered an address here.
func (s *Server) DiskFails() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state.noDisk
}

// writeRest writes what who reads messages leaves, until ended is closed, and then what is left.
func (s *Server) writeRest(ended <-chan struct{}) {
	for open := true; open; {
		var retry <-chan time.Time
		if s.failing.Load() {
			retry = time.After(retryAfter)
		}
		select {
		case <-s.disk.poke:
			if n, _ := s.disk.waits(); n == 0 {
				continue
			}
			open = s.gather(ended)
		case <-retry:
		case <-ended:
			open = false
		}
		s.disk.turn <- struct{}{}
		if open {
			time.Sleep(time.Until(s.written.Add(s.pace.now)))
		}
		s.writeWaiting()
	}
}

// gather waits for more, if nobody waits for what there is. It returns false when ended is closed.
func (s *Server) gather(ended <-chan struct{}) bool {
	for lazy := time.After(lazyFor); ; {
		if n, now := s.disk.waits(); n == 0 || now {
			return true
		}
		select {
		case <-s.disk.poke:
		case <-lazy:
			return true
		case <-ended:
			return false
		}
	}
}

// pace tells how long to wait between two writes.
type pace struct {
	since   time.Time // of the count
	answers int
	now     time.Duration
}

// of counts what is written at a time and returns the pace.
func (p *pace) of(now time.Time, batch []outgoing) time.Duration {
	for _, o := range batch {
		if o.hurries() {
			p.answers++
		}
	}
	if d := now.Sub(p.since); d >= paceFor {
		p.now = 0
		if float64(p.answers) > busyAnswers*d.Seconds() {
			p.now = busyPace
		}
		p.since, p.answers = now, 0
	}
	return p.now
}

// write puts a batch on the disk and then sends its answers.
func (s *Server) write(batch []outgoing) {
	var save []leases.Lease
	for _, o := range batch {
		save = append(save, o.save...)
		for _, l := range o.save {
			delete(s.unwritten, l.Address)
		}
	}
	save = slices.AppendSeq(save, maps.Values(s.unwritten))
	err := s.commit(save)
	if err != nil {
		// No ACK without a lease on disk: the clients start again, with another appliance (lookAtDisk). What peers told and what was given back nobody says again, so
		// all is kept for the next write. Until when the peers' doings are known is not: after a restart it would be untrue.
		s.log.Error("DHCP cannot keep leases and answers no requests", "error", err, "leases", len(save))
		for _, l := range save {
			s.unwritten[l.Address] = l
		}
	} else {
		clear(s.unwritten)
	}
	for _, o := range batch {
		if o.done != nil {
			o.done(err)
		}
		if err == nil && o.payload != nil {
			s.transmit(o)
		}
		if err == nil && !o.synced.IsZero() {
			s.keepSynced(o.synced)
		}
	}
	if len(save) > 0 {
		s.tellSoon()
	}
}

func (s *Server) commit(save []leases.Lease) error {
	if len(save) == 0 {
		return nil
	}
	err := s.store.Commit(save)
	if err == nil && s.cfg.Kept != nil {
		s.cfg.Kept(save)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.stats.CommitErrors++
		return err
	}
	s.stats.Commits++
	s.stats.Committed += uint64(len(save))
	return nil
}

func (s *Server) transmit(o outgoing) {
	err := s.net.Send(o.payload, o.to)
	if err == nil {
		return
	}
	s.mu.Lock()
	s.stats.SendErrors++
	s.mu.Unlock()
	s.log.Warn("DHCP cannot send an answer", "to", o.to.addr, "error", err)
}

// freeing is an operator's wish.
type freeing struct {
	addr netip.Addr
	done chan error
}

// Release frees an address that somebody has, or ends its quarantine, while the server runs. Without an error it is free on the disk, too.
func (s *Server) Release(ctx context.Context, addr netip.Addr) error {
	f := freeing{addr, make(chan error, 1)}
	select {
	case s.free <- f:
	case <-ctx.Done():
		return fmt.Errorf("releasing %s: %w", addr, context.Cause(ctx))
	}
	select {
	case err := <-f.done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("releasing %s: %w", addr, context.Cause(ctx))
	}
}

func (s *Server) freeAddress(f freeing) {
	now := time.Now()
	s.mu.Lock()
	l, ok := s.state.table.Free(now, f.addr)
	if ok && s.state.pair != nil {
		s.state.pair.Changed(now, f.addr)
	}
	s.mu.Unlock()
	if !ok {
		f.done <- fmt.Errorf("nobody has %s: everboot lease list shows who has what", f.addr)
		return
	}
	s.keep(outgoing{save: []leases.Lease{l}, done: func(err error) {
		if err != nil {
			err = fmt.Errorf("%s is free, but not on the disk yet, which is tried again: %w", f.addr, err)
		}
		f.done <- err
	}})
	s.events(site.Event{At: now, MAC: l.MAC, What: "release", Detail: fmt.Sprintf("%s was freed by an operator", f.addr)})
}
