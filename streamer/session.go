package streamer

import (
	"encoding/hex"
	"errors"
	"hash/maphash"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"everboot/site"
)

// Session is one login that goes through the director.
type Session struct {
	Device    site.MAC  `json:"device"`
	VDisk     string    `json:"vdisk"`
	Version   int       `json:"version"`
	Streamer  string    `json:"streamer"`
	Remote    string    `json:"remote"` // the initiator's address
	Since     time.Time `json:"since"`
	BytesIn   uint64    `json:"bytes_in"`  // from the initiator
	BytesOut  uint64    `json:"bytes_out"` // to the initiator
	Failovers int       `json:"failovers"` // of this device since it booted
	// FirstBlock is when the first block of the disk passed; zero: none has.
	FirstBlock time.Time `json:"first_block,omitzero"`
	// Stall is how long the device's last failover kept it waiting: from its request that found no answer, or else from the loss of its
	// streamer, to the first block from another; or to the login, if it asked for nothing. Zero: it had none.
	Stall   time.Duration `json:"stall,omitempty"`
	StallAt time.Time     `json:"stall_at,omitzero"` // when that ended
}

// session is a pair of spliced connections.
type session struct {
	Session
	login     site.Login
	isid      [6]byte
	target    string
	served    string // the target's name at the streamer
	initiator net.Conn
	leg       net.Conn // to the streamer
	portal    string   // its address

	ended   func(cause string) // called once, before the connections close
	asked   time.Time          // at its end: since when the initiator had waited for an answer; zero: it did not
	block   func(now time.Time)
	blockAt atomic.Int64 // when the first block passed, in Unix nanoseconds; 0: none has
	once    sync.Once
	cause   atomic.Pointer[string] // why it ended
	in, out uint64                 // the bytes at its end
}

// Why sessions end.
const (
	endInitiator = "the initiator closed it"
	endStreamer  = "the streamer closed it"
	endDown      = "the streamer is down"
	endSilent    = "the streamer fell silent"
	endHung      = "the streamer did not answer a request"
	endDiffers   = "the streamer's replica is another now"
	endDrain     = "the streamer is draining"
	endMoved     = "it moves to a streamer that has less to do"
	endReplaced  = "the initiator logged in again"
	endStop      = "the director stops"
)

// lost reports whether the initiator did not want the end, and will be back.
//
// A replaced session counts: its initiator gave it up before anybody here noticed the death of the streamer.
func lost(cause string) bool {
	switch cause {
	case endInitiator, endStop:
		return false
	}
	return true
}

// end closes both connections at once, unless they are closed already. With abort the initiator gets a RST, and what is under way is thrown away.
func (s *session) end(cause string, abort bool) (ended bool) {
	s.once.Do(func() {
		ended = true
		s.cause.Store(&cause)
		s.in, s.out = tcpBytes(s.initiator)
		s.asked = s.stallBegan(time.Now(), cause)
		s.ended(cause) // the initiator may be back before this goroutine runs again
		if abort {
			reset(s.initiator)
		} else {
			hangUp(s.initiator)
		}
		part(s.leg)
	})
	return ended
}

// run forwards until one side ends, ends the other side at once, and returns why.
func (s *session) run() string {
	back := make(chan struct{})
	go func() {
		defer close(back)
		err := pass(s.leg, s.initiator)
		s.end(s.blame(err, endInitiator), false)
	}()
	err := s.open()
	if err == nil {
		err = pass(s.initiator, s.leg)
	}
	// The streamer's last bytes, such as the answer to a logout, were handed to the kernel; a FIN follows them.
	s.end(s.blame(err, endStreamer), false)
	<-back
	return *s.cause.Load()
}

// delivered notes that the first block of the disk has passed.
func (s *session) delivered(now time.Time) {
	s.blockAt.Store(now.UnixNano())
	s.block(now)
}

// blame returns why forwarding ended with err; usual if that was not the streamer's silence.
func (s *session) blame(err error, usual string) string {
	if errors.Is(err, syscall.ETIMEDOUT) && gaveUp(s.leg) {
		return endSilent
	}
	return usual
}

const shardCount = 64

// table holds the sessions, spread over shards by device so that logins do not wait for each other.
type table struct {
	seed   maphash.Seed
	shards [shardCount]shard
}

type shard struct {
	mu       sync.Mutex
	sessions map[*session]struct{}
	devices  map[site.MAC]record
}

// record is what is remembered of a device's last session. There is at most one for each device that was ever admitted.
type record struct {
	run
	lost time.Time // zero: the device ended it itself
	// asked is since when it had waited for an answer then, and stall what came of it; see Session.
	asked   time.Time
	stall   time.Duration
	stallAt time.Time
	why     string
	peer    bool // another appliance's director led it
}

// memory is how long after a loss a login still counts as its failover; later it is a boot.
const memory = 5 * time.Minute

func newTable() *table {
	t := &table{seed: maphash.MakeSeed()}
	for i := range t.shards {
		t.shards[i].sessions = make(map[*session]struct{})
		t.shards[i].devices = make(map[site.MAC]record)
	}
	return t
}

func (t *table) shard(m site.MAC) *shard {
	return &t.shards[maphash.Bytes(t.seed, m[:])%shardCount]
}

// add puts a session in. It returns the record of the device's session before, and whether this is its failover: the device lost
// that one and has come to another streamer. (To the same one it may come after a logout, which also ends from the
// streamer's side.) Before that it ends the sessions that this login replaces (RFC 7143 §6.3.5: same initiator, ISID and
// target), because their streamer may be another one, which cannot know.
func (t *table) add(s *session) (before record, failover bool) {
	h := t.shard(s.Device)
	h.replace(s)
	h.mu.Lock()
	defer h.mu.Unlock()
	before, failover = h.note(s, false)
	h.sessions[s] = struct{}{}
	return before, failover
}

// moved is add for a login that is redirected: its session will not go through here.
func (t *table) moved(s *session) (before record, failover bool) {
	h := t.shard(s.Device)
	h.replace(s)
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.note(s, true)
}

// note remembers a device's last session.
func (h *shard) note(s *session, redirected bool) (before record, failover bool) {
	before = h.devices[s.Device]
	failover = before.failover(s)
	if failover {
		s.Failovers = before.Failovers + 1
	} else if !s.firmware() { // firmware that comes by itself boots anew
		s.Failovers = before.Failovers
	}
	r := record{run: s.runs(redirected)}
	if s.Failovers > 0 {
		r.stall, r.stallAt = before.stall, before.stallAt
	}
	h.devices[s.Device] = r
	return before, failover
}

// runs returns what the session's device runs from now on.
func (s *session) runs(redirected bool) run {
	r := run{MAC: s.Device, Target: s.target, Streamer: s.Streamer, Since: s.Since, Failovers: s.Failovers, Redirected: redirected, From: s.login.From}
	if redirected {
		r.ISID = hex.EncodeToString(s.isid[:])
	}
	return r
}

// stalled notes how long a device waited in its last failover.
func (t *table) stalled(m site.MAC, stall time.Duration, end time.Time) {
	h := t.shard(m)
	h.mu.Lock()
	defer h.mu.Unlock()
	if r, ok := h.devices[m]; ok {
		r.stall, r.stallAt = stall, end
		h.devices[m] = r
	}
}

// last returns what is remembered of a device's last session.
func (t *table) last(m site.MAC) (record, bool) {
	h := t.shard(m)
	h.mu.Lock()
	defer h.mu.Unlock()
	r, ok := h.devices[m]
	return r, ok
}

// failover reports whether a session is the continuation, elsewhere, of the one that is remembered.
func (r record) failover(s *session) bool {
	switch {
	case r.Redirected: // nobody here sees when such a session ends
		return r.Target == s.target && !s.firmware() && r.Streamer != s.Streamer
	case r.peer:
		return r.Target == s.target && !s.firmware()
	}
	return !r.lost.IsZero() && s.Since.Sub(r.lost) < memory && r.Streamer != s.Streamer
}

// firmware reports whether iPXE logs in, which boots; what it booted has another ISID.
func (s *session) firmware() bool { return s.isid[0] == 0x40 }

// replace ends the sessions that a new one replaces.
func (h *shard) replace(s *session) {
	for _, old := range h.twins(s) {
		old.end(endReplaced, true)
	}
}

// twins returns the sessions that a new one replaces.
func (h *shard) twins(s *session) []*session {
	h.mu.Lock()
	defer h.mu.Unlock()
	var twins []*session
	for old := range h.sessions {
		if old.Device == s.Device && old.isid == s.isid && old.target == s.target {
			twins = append(twins, old)
		}
	}
	return twins
}

// remove takes a session out, and remembers if its device lost it.
func (t *table) remove(s *session, cause string, now time.Time) {
	h := t.shard(s.Device)
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.sessions, s)
	if r := h.devices[s.Device]; lost(cause) && r.Streamer == s.Streamer {
		r.lost, r.why, r.asked = now, cause, s.asked
		h.devices[s.Device] = r
	}
}

// all returns the sessions of now.
func (t *table) all() []*session {
	var list []*session
	for i := range t.shards {
		h := &t.shards[i]
		h.mu.Lock()
		for s := range h.sessions {
			list = append(list, s)
		}
		h.mu.Unlock()
	}
	return list
}
