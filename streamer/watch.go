package streamer

import (
	"context"
	"crypto/rand"
	"errors"
	mrand "math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"everboot/internal/iscsi"
	"everboot/site"
)

const (
	// lookPace is the time between two looks at the pulses. Each look has every portal that has sessions pinged: a process wakes once for
	// all, rather than for each.
	lookPace = 100 * time.Millisecond
	// silence is how long a portal may say nothing, on the ping's connection and on those of all its sessions, before it counts as
	// dead. Three pings are lost at the look after it, and the kernel's first retransmission (200 ms) has not been answered either.
	silence = 3*lookPace + lookPace/2
	// late is when a look comes so late that this host itself was held up: what it did not hear then says nothing. It is not less:
	// the looks of a busy host are late by some ten milliseconds, and if each were too late it would never find that somebody is silent.
	late = 2 * lookPace
	// hushTime is how long a portal that fell silent gets no login; each look that finds it silent renews it.
	hushTime = time.Second
	// hangTime is how long a streamer may leave a request unanswered: a disk that works answers within a second.
	hangTime = 2 * time.Second
	// hangPause is how long a streamer that hung is the last choice; each look that finds it hung renews it.
	hangPause = 10 * time.Second
	// hangLook is the number of looks between two at the sessions' unanswered requests.
	hangLook = 5
	// soundPace is the time between two reads of a block at random, which the streamer's disk must answer rather than its memory.
	soundPace = time.Second
	// jiffies is how near two of the kernel's times may be while their order says nothing (10 ms a tick at its coarsest).
	jiffies = 20 * time.Millisecond
)

// pulse looks after one portal of a streamer: it pings it, and reads from it.
type pulse struct {
	streamer string
	beat     chan struct{}                      // holds one token when it is time for a ping
	answered atomic.Int64                       // when it last said anything, in Unix nanoseconds
	reading  atomic.Int64                       // since when a read has been under way; 0: none is
	cut      atomic.Pointer[context.CancelFunc] // ends the session that reads
	cancel   context.CancelFunc
}

// judge reports whether the portal is silent, or else whether its read has been under way for too long. What is read from a portal that is silent ends: the
// network keeps the answer back and not the disk, and when the network is there again it can take seconds until the kernel sends anew what was lost.
func (p *pulse) judge(now time.Time) (silent, hangs bool) {
	if now.Sub(time.Unix(0, p.answered.Load())) > silence {
		if cut := p.cut.Load(); cut != nil {
			(*cut)()
		}
		return true, false
	}
	since := p.reading.Load()
	return false, since != 0 && now.Sub(time.Unix(0, since)) > hangTime
}

// watcher is the state of the goroutine that looks after streamers which die without a word.
type watcher struct {
	*Director
	isid   [6]byte
	pulses map[string]*pulse // by portal
	all    sync.WaitGroup
	looks  int
	last   time.Time
}

// watch ends the sessions of portals that fall silent and of streamers that hang, until ctx ends.
func (d *Director) watch(ctx context.Context) {
	w := &watcher{Director: d, isid: [6]byte{0x80}, pulses: make(map[string]*pulse), last: time.Now()}
	rand.Read(w.isid[1:]) // two directors must not end each other's pings (RFC 7143 §6.3.5)
	defer w.all.Wait()
	tick := time.NewTicker(lookPace)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			w.look(ctx, time.Now())
		}
	}
}

// look is one round.
func (w *watcher) look(ctx context.Context, now time.Time) {
	heldUp := now.Sub(w.last) > late
	w.last = now
	w.looks++
	silent, hung := make(map[string]bool), make(map[string]bool)
	for portal, p := range w.pulses {
		select {
		case p.beat <- struct{}{}:
		default: // it waits for an answer still
		}
		if heldUp {
			p.answered.Store(now.UnixNano())
			continue
		}
		switch isSilent, hangs := p.judge(now); {
		case isSilent:
			silent[portal] = true
		case hangs:
			hung[portal] = true
			w.hangs(p.streamer, now)
		}
	}
	sessions := w.table.all()
	w.follow(ctx, sessions, silent, hung)
	w.hush(sessions, silent, now)
	if len(hung) > 0 || w.looks%hangLook == 0 {
		w.leave(sessions, hung, now)
	}
}

// follow starts a pulse for each portal that has sessions, and ends those of others, unless they are silent or hang and a streamer still has them.
func (w *watcher) follow(ctx context.Context, sessions []*session, silent, hung map[string]bool) {
	wanted := make(map[string]bool)
	for _, s := range sessions {
		wanted[s.portal] = true
		if w.pulses[s.portal] != nil {
			continue
		}
		p := &pulse{streamer: s.Streamer, beat: make(chan struct{}, 1)}
		p.answered.Store(time.Now().UnixNano())
		var life context.Context
		life, p.cancel = context.WithCancel(ctx)
		w.pulses[s.portal] = p
		w.all.Go(func() { w.ping(life, p, s.portal, s.served) })
		w.all.Go(func() { w.sound(life, p, s.portal, s.served) })
	}
	v := w.view()
	for portal, p := range w.pulses {
		ill := (silent[portal] || hung[portal]) && has(v.Streamers[p.streamer], portal)
		if !wanted[portal] && !ill {
			p.cancel()
			delete(w.pulses, portal)
		}
	}
}

func has(s site.Streamer, portal string) bool {
	return slices.ContainsFunc(s.Addresses, func(a netip.AddrPort) bool { return a.String() == portal })
}

// session opens a session of our own with a portal.
func (w *watcher) session(ctx context.Context, portal, target string, number byte) (*iscsi.Session, error) {
	isid := w.isid
	isid[5] = number // the two sessions of one portal must not end each other
	return iscsi.Dial(ctx, portal, iscsi.Config{InitiatorName: site.ProbeName("director"), TargetName: target, ISID: isid, Dial: w.cfg.Dial})
}

// ping pings a portal until ctx ends.
func (w *watcher) ping(ctx context.Context, p *pulse, portal, target string) {
	var session *iscsi.Session
	for ctx.Err() == nil {
		bounded, cancel := context.WithTimeout(ctx, silence)
		var err error
		if session == nil {
			session, err = w.session(bounded, portal, target, 1)
		} else {
			err = session.Ping(bounded)
		}
		cancel()
		if !timedOut(err) { // a refusal is an answer too: what ends then ends by itself
			p.answered.Store(time.Now().UnixNano())
		}
		if err != nil && session != nil {
			session.Close()
			session = nil
		}
		select {
		case <-p.beat:
		case <-ctx.Done():
		}
	}
	if session != nil {
		session.Close()
	}
}

// sound reads blocks at random until ctx ends.
func (w *watcher) sound(ctx context.Context, p *pulse, portal, target string) {
	for ctx.Err() == nil {
		life, cut := context.WithCancel(ctx)
		p.cut.Store(&cut)
		bounded, cancel := context.WithTimeout(life, hangTime)
		session, err := w.session(bounded, portal, target, 2)
		cancel()
		if err == nil {
			w.read(life, p, session)
			session.Close()
		}
		cut()
		pause(ctx, soundPace)
	}
}

// read reads until something goes wrong, which the portal's sessions see for themselves, unless it is that nothing comes.
func (w *watcher) read(ctx context.Context, p *pulse, session *iscsi.Session) {
	defer p.reading.Store(0)
	p.reading.Store(time.Now().UnixNano())
	size, err := session.ReadCapacity(ctx)
	for err == nil && size.Blocks > 0 {
		_, err = session.ReadBlocks(ctx, mrand.Uint64N(size.Blocks), 1)
		p.reading.Store(0)
		pause(ctx, soundPace)
		p.reading.Store(time.Now().UnixNano())
	}
}

func timedOut(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, syscall.ETIMEDOUT) ||
		errors.Is(err, syscall.EHOSTUNREACH)
}

// hush ends the sessions of silent portals, as far as somebody else could take them. A portal that any of its sessions heard of is not silent.
func (w *watcher) hush(sessions []*session, silent map[string]bool, now time.Time) {
	if len(silent) == 0 {
		return
	}
	for _, s := range sessions {
		if silent[s.portal] && heard(s.leg) < silence {
			delete(silent, s.portal)
		}
	}
	for portal := range silent {
		w.pool.hush(portal, w.pulses[portal].streamer, now.Add(hushTime))
	}
	elsewhere := w.elsewhere(w.view(), now)
	for _, s := range sessions {
		if silent[s.portal] && elsewhere(s) {
			s.end(endSilent, true)
		}
	}
}

// hangs makes a streamer the last choice.
func (w *watcher) hangs(streamer string, now time.Time) {
	if w.pool.hang(streamer, now.Add(hangPause)) {
		w.log.Warn("streamer does not answer requests", "streamer", streamer, "for", hangTime)
	}
}

// leave ends the sessions of portals that hang, and those whose own request has not been answered for too long.
func (w *watcher) leave(sessions []*session, hung map[string]bool, now time.Time) {
	var stuck []*session
	for _, s := range sessions {
		waits := waiting(s.initiator, s.leg) >= hangTime
		if waits {
			w.hangs(s.Streamer, now)
		}
		if waits || hung[s.portal] {
			stuck = append(stuck, s)
		}
	}
	elsewhere := w.elsewhere(w.view(), now)
	for _, s := range stuck {
		if elsewhere(s) {
			s.end(endHung, true)
		}
	}
}

// waiting returns how long an initiator has been waiting for a streamer's answer: since it last sent something, if that was after the
// streamer's last word; zero if it does not wait, or if nobody can tell.
func waiting(initiator, leg net.Conn) time.Duration {
	asked, okA := tcpInfo(initiator)
	answered, okB := tcpInfo(leg)
	if !okA || !okB {
		return 0
	}
	ago := time.Duration(asked.Last_data_recv) * time.Millisecond
	if ago+jiffies > time.Duration(answered.Last_data_recv)*time.Millisecond {
		return 0
	}
	return ago
}

// heard returns how long ago a connection last received anything, be it an acknowledgement.
func heard(conn net.Conn) time.Duration {
	info, ok := tcpInfo(conn)
	if !ok {
		return 0
	}
	return time.Duration(min(info.Last_data_recv, info.Last_ack_recv)) * time.Millisecond
}
