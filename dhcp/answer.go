package dhcp

import (
	"context"
	"fmt"
	"time"

	"everboot/site"
)

const (
	// atOnce is how many messages are answered at once, without the queue, in atOnceFor: more than 2,000 clients a second send. From there
	// on the queue saves wake-ups, and in a flood it knows better whom to leave out.
	atOnce    = 50
	atOnceFor = 10 * time.Millisecond
	// answersInARow is how many more messages are answered before anything else is looked at.
	answersInARow = 64
)

// answerTurns lets who receives messages answer them, or ends it.
func (s *Server) answerTurns(on bool) {
	s.turn.Lock()
	defer s.turn.Unlock()
	s.answers = on
}

// answer takes its turn at whatever happens.
func (s *Server) answer(ctx context.Context, failed <-chan error) error {
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	defer s.tellTimer.Stop()
	for {
		var act func()
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return fmt.Errorf("receiving: %w", err)
		case q := <-s.queue:
			act = func() { s.answerQueued(q) }
		case b := <-s.peers:
			act = func() { s.hear(b) }
		case r := <-s.recalls:
			act = func() { s.learn(r) }
		case f := <-s.free:
			act = func() { s.freeAddress(f) }
		case <-s.tellTimer.C:
			act = s.tellLeases
		case seen := <-s.sightings:
			act = func() { s.taken(seen) }
		case <-tick.C:
			act = s.passTime
		}
		s.turn.Lock()
		act()
		s.turn.Unlock()
		if n, _ := s.disk.waits(); n > 0 {
			s.disk.wake()
		}
	}
}

// answerQueued answers a message, and some of those that wait behind it.
func (s *Server) answerQueued(q question) {
	s.answerOne(q)
	for range min(len(s.queue), answersInARow) {
		s.answerOne(<-s.queue)
	}
}

func (s *Server) passTime() {
	s.lookAtDisk(time.Now())
	s.endProbes(time.Now())
	for _, q := range s.tick() {
		s.answerOne(q)
	}
}

// answerNow answers a message in the goroutine that received it, if nothing is before it: to wake another takes longer than the answer. It
// never waits for the disk.
func (s *Server) answerNow(q question) bool {
	if len(s.queue) > 0 || !s.turn.TryLock() {
		return false
	}
	defer s.turn.Unlock()
	if n, _ := s.disk.waits(); !s.answers || n > maxBatch/2 {
		return false
	}
	if now := time.Now(); now.Sub(s.now.since) >= atOnceFor {
		s.now.since, s.now.count = now, 0
	}
	if s.now.count++; s.now.count > atOnce {
		return false
	}
	s.answerOne(q)
	return true
}

func (s *Server) answerOne(q question) { s.answerTo(q, 0) }

// answerTo answers a message for which so many addresses were found in use already.
func (s *Server) answerTo(q question, taken int) {
	o, ok := s.handle(time.Now(), q)
	switch {
	case !ok:
	case s.hold(o, q, taken):
	case len(o.save) == 0:
		s.transmit(o) // what needs no disk does not wait for it
	default:
		s.keep(o)
	}
}

// receive answers a message at once or queues it; one without a message is a datagram that is none. It never blocks. The second half of the queue is for devices of the site: a flood of
// strangers does not keep them waiting for their turn in vain.
func (s *Server) receive(q question) {
	reason := Malformed
	switch {
	case q.DHCPv4 == nil:
	case s.answerNow(q):
		return
	case len(s.queue) >= (cap(s.queue)+1)/2 && !s.knows(q):
		reason = Overloaded
	default:
		select {
		case s.queue <- q:
			return
		default:
			reason = Overloaded
		}
	}
	s.mu.Lock()
	s.stats.Reasons[reason]++
	s.mu.Unlock()
}

// knows reports whether a message is of a device of the site, if the site has any.
func (s *Server) knows(q question) bool {
	v := s.view()
	if v == nil || len(v.Devices) == 0 {
		return true
	}
	if len(q.ClientHWAddr) != len(site.MAC{}) {
		return false
	}
	_, ok := v.Devices[site.MAC(q.ClientHWAddr)]
	return ok
}
