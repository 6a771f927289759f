package wire

import "time"

// Result is how a transfer ended.
type Result uint8

// The results. Running is none yet.
const (
	Running     Result = iota
	Complete           // every block acknowledged
	SizeProbe          // the client wanted to know the size: it refused the OACK, as EDK2 does by design, and comes again
	Aborted            // the client sent an ERROR in mid-file
	Silent             // the client fell silent in mid-file
	Unconfirmed        // everything was sent, and only the last ACK did not come
	Unanswered         // the client was never heard again after its request: it is gone, or it was never there
	// Results is how many there are.
	Results
)

var resultNames = [Results]string{"running", "complete", "size_probe", "aborted", "silent", "unconfirmed", "unanswered"}

// String returns the result as metrics name it.
func (r Result) String() string { return resultNames[r] }

const (
	// patience with a client that was heard before. EDK2 tries 6 times 4 s before it gives up.
	patience = 30 * time.Second
	// strangerTries bounds what a request with a false sender address makes us send to somebody who asked for nothing.
	strangerTries = 4
	// seen bounds how far ahead of us an adopted transfer may be: half of the numbers that a block can have.
	seen = 1 << 15
)

// Session is the server's side of one transfer. It is a value without clock and socket: events come in with the time, and what to do
// comes out. Times are durations since any moment that stays the same.
//
// Blocks are counted from 1 without going round; only the wire has 16 bits. Block 0 is the OACK.
type Session struct {
	terms Terms
	last  uint64 // number of the last block: it is shorter than the others, perhaps empty

	acked uint64 // blocks that the client has, from the first on
	sent  uint64 // the last block of the window that is on its way
	open  bool   // the OACK is acknowledged, or there was none
	met   bool   // the client has answered at least once
	// adopted: another server has led the transfer so far, and the client may be further than we know.
	adopted bool

	rtt     rtt
	heardAt time.Duration // of the client
	sentAt  time.Duration
	again   bool // what is on its way was sent more than once: its answer measures nothing (Karn)
	doubled uint8
	tries   int // packets sent since the client was heard

	resent uint64
	result Result
}

// What a Step asks for.
type What uint8

// The kinds of actions.
const (
	Nothing What = iota
	SendOAck
	SendBlocks
	End // the session is over: Result tells how
)

// Action is what is to be done after an event. An event never asks for more than one thing, so that the path of each packet makes no list.
type Action struct {
	What  What
	First uint64 // of the blocks to send
	Count int
}

// EventKind says what happened.
type EventKind uint8

// The kinds of events.
const (
	Start   EventKind = iota // the session begins with the client's request
	Again                    // the client repeats its request
	Ack                      // Block was acknowledged
	Failed                   // the client sent an ERROR
	Tick                     // Deadline has come
	Adopted                  // another server's transfer is ours now
	Read                     // what the window holds can be sent, which it could not when it was asked for
)

// Event is something that happened to a session.
type Event struct {
	Kind  EventKind
	Block uint16 // of an Ack
}

// NewSession returns the session of a client that has just asked.
func NewSession(t Terms) Session {
	return Session{terms: t, last: uint64(t.Size)/uint64(t.Block) + 1, open: !t.Options}
}

// NewAdopted returns a session that another server has led up to the block that the client acknowledged last, as far as is known.
func NewAdopted(t Terms, acked uint64, met bool) Session {
	s := NewSession(t)
	s.acked, s.met, s.adopted = min(acked, s.last-1), met, true
	s.open = s.open || s.acked > 0
	return s
}

// Terms returns what was agreed on.
func (s *Session) Terms() Terms { return s.terms }

// Acked returns how many blocks the client has.
func (s *Session) Acked() uint64 { return s.acked }

// Met tells whether the client has answered at least once: a request alone may have a false sender.
func (s *Session) Met() bool { return s.met }

// Bytes returns how many bytes of content the client has.
func (s *Session) Bytes() int64 { return min(int64(s.acked)*int64(s.terms.Block), s.terms.Size) }

// Resent returns how many packets were sent again.
func (s *Session) Resent() uint64 { return s.resent }

// Result returns how the session ended.
func (s *Session) Result() Result { return s.result }

// Deadline returns when a Tick is due.
func (s *Session) Deadline() time.Duration { return s.sentAt + s.pause() }

// pause doubles with each retransmission.
func (s *Session) pause() time.Duration {
	most := maxRTO
	if s.terms.Timeout > 0 {
		most = max(time.Duration(s.terms.Timeout)*time.Second, minRTO)
	}
	return min(s.rtt.timeout()<<min(s.doubled, 8), most)
}

// Step returns what is to be done after an event. After End a session must not be stepped again.
func (s *Session) Step(now time.Duration, e Event) Action {
	switch e.Kind {
	case Start:
		s.heardAt = now
		return s.send(now)
	case Again:
		// One that comes at once is an echo of the way; one that comes later has lost our answer.
		if s.acked > 0 || now-s.sentAt < minRTO {
			return Action{}
		}
		return s.repeat(now)
	case Ack:
		return s.ack(now, e.Block)
	case Failed:
		if s.acked == 0 && !s.open { // it refuses the OACK; EDK2 with code 8, other ROMs with code 0
			return s.end(SizeProbe)
		}
		return s.end(Aborted)
	case Tick:
		return s.tick(now)
	case Read:
		return s.send(now)
	case Adopted:
		s.heardAt, s.adopted, s.again = now, true, true
		s.tries, s.doubled = 0, 0
		return s.send(now)
	}
	return Action{}
}

// ack moves the window (RFC 1350 §2, RFC 7440 §4).
func (s *Session) ack(now time.Duration, block uint16) Action {
	ahead := uint64(block - uint16(s.acked)) // how far beyond what we know, modulo 65536
	if ahead > s.sent-s.acked && !(s.adopted && ahead < seen && s.acked+ahead <= s.last) {
		return Action{} // of a block that is not on its way: late, or false
	}
	s.met, s.heardAt, s.tries = true, now, 0
	if ahead == 0 && s.open {
		return s.duplicate(now)
	}
	if !s.again && ahead == s.sent-s.acked {
		s.rtt.measured(now - s.sentAt)
	}
	// An ACK in the middle of a window: what followed that block was lost, and is sent once more.
	lost := s.sent - min(s.acked+ahead, s.sent)
	s.resent += lost
	// Who answers is there: what comes next begins with the measured pause.
	s.open, s.adopted, s.again, s.doubled = true, false, lost > 0, 0
	s.acked += ahead
	if s.acked == s.last {
		return s.end(Complete)
	}
	return s.send(now)
}

// duplicate is an ACK of what was acknowledged before: the client lacks the first block of the window. An answer to each would double every
// packet that follows (the sorcerer's apprentice, RFC 1123 §4.2.3.1): one is given only after the time in which the block itself could
// have been answered. In a window the client says so for every block that it could not use, at once one round trip later.
func (s *Session) duplicate(now time.Duration) Action {
	wait := s.rtt.timeout()
	if s.terms.Window > 1 && s.rtt.smooth > 0 {
		wait = s.rtt.smooth / 2
	}
	if now-s.sentAt < wait {
		return Action{}
	}
	s.doubled = 0
	return s.repeat(now)
}

func (s *Session) tick(now time.Duration) Action {
	if now < s.Deadline() {
		return Action{}
	}
	switch {
	case !s.met && s.tries > strangerTries:
		return s.end(Unanswered)
	case now-s.heardAt >= patience && s.acked+uint64(s.terms.Window) >= s.last:
		return s.end(Unconfirmed)
	case now-s.heardAt >= patience:
		return s.end(Silent)
	}
	s.doubled++
	return s.repeat(now)
}

// repeat sends the window again.
func (s *Session) repeat(now time.Duration) Action {
	a := s.send(now)
	s.again = true
	s.resent += uint64(max(a.Count, 1))
	return a
}

// send sends the window that follows what the client has.
func (s *Session) send(now time.Duration) Action {
	s.sentAt = now
	s.tries++
	if !s.open {
		return Action{What: SendOAck}
	}
	s.sent = min(s.acked+uint64(s.terms.Window), s.last)
	return Action{What: SendBlocks, First: s.acked + 1, Count: int(s.sent - s.acked)}
}

func (s *Session) end(r Result) Action {
	s.result = r
	return Action{What: End}
}
