package dhcp

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"everboot/dhcp/leases"
	"everboot/site"
)

const (
	// maxBatch is how many answers wait for one write to the disk at most: with a thousand a second, what a busy disk makes wait for 4 s.
	maxBatch = 4096
	// The least time from one write to the next is writePace, and busyWritePace from busyAnswers a second: a write costs the same whether it holds
	// one lease or fifty, and what the processor saves is then worth more to clients than milliseconds.
	writePace     = 500 * time.Microsecond
	busyWritePace = 4 * time.Millisecond
	busyAnswers   = 1500
	// paceFor is the time of which answers are counted.
	paceFor = 100 * time.Millisecond
	// lazyFor is how long a write waits for more while nobody waits for it: what peers tell is on their disks already. lazyBatch is how much
	// is enough.
	lazyFor   = 20 * time.Millisecond
	lazyBatch = 256
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

// send writes leases to the disk and then sends their answers.
func (s *Server) send(out <-chan outgoing) {
	var next time.Time // when the next write may begin
	var p pace
	for {
		batch, more := gather(out, next, len(s.unwritten) > 0)
		now := time.Now()
		next = now.Add(p.of(now, batch))
		s.write(batch)
		if !more {
			return
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
		p.now = writePace
		if time.Duration(p.answers)*time.Second > busyAnswers*d {
			p.now = busyWritePace
		}
		p.since, p.answers = now, 0
	}
	return p.now
}

// gather returns what goes to the disk in one write, not before next if somebody waits for it, and whether there may be more later. With
// retry it returns, after a while, also with nothing.
func gather(out <-chan outgoing, next time.Time, retry bool) (batch []outgoing, more bool) {
	var until <-chan time.Time // when the batch must go
	if retry {
		until = time.After(retryAfter)
	}
	for held := 0; len(batch) < maxBatch && held < lazyBatch; {
		select {
		case o, ok := <-out:
			if !ok {
				return batch, false
			}
			batch, held = append(batch, o), held+len(o.save)
			if o.hurries() {
				time.Sleep(time.Until(next)) // nobody is woken for each of those that come meanwhile
				return drain(batch, out)
			}
			if len(batch) == 1 {
				until = time.After(lazyFor)
			}
		case <-until:
			return batch, true
		}
	}
	return batch, true
}

// drain adds what is there already.
func drain(batch []outgoing, out <-chan outgoing) ([]outgoing, bool) {
	for len(batch) < maxBatch {
		select {
		case o, ok := <-out:
			if !ok {
				return batch, false
			}
			batch = append(batch, o)
		default:
			return batch, true
		}
	}
	return batch, true
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
		// No ACK without a lease on disk: the clients ask again, or another appliance. What peers told and what was given back nobody says again, so
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

func (s *Server) freeAddress(f freeing, out chan<- outgoing) {
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
	out <- outgoing{save: []leases.Lease{l}, done: func(err error) {
		if err != nil {
			err = fmt.Errorf("%s is free, but not on the disk yet, which is tried again: %w", f.addr, err)
		}
		f.done <- err
	}}
	s.events(site.Event{At: now, MAC: l.MAC, What: "release", Detail: fmt.Sprintf("%s was freed by an operator", f.addr)})
}
