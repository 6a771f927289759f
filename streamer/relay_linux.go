package streamer

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// mostMoved is how much one connection may pass on before the next has its turn, and the size of a pipe.
	mostMoved = 1 << 20
	// eventsAtOnce bounds what one wait for events returns.
	eventsAtOnce = 64
	// pipesKept bounds the empty pipes that wait for their next use. One is in use at a time, and one for each connection that does not take
	// what it is sent.
	pipesKept = 64
)

// errUrgent ends a session whose end sends urgent data.
var errUrgent = errors.New("it sends TCP urgent data, which iSCSI has not")

// relay moves bytes between the two connections of sessions by splice(2): they never enter this process. It has a thread of its own, so that
// no packet wakes threads of the runtime.
type relay struct {
	epoll int
	bell  int // an eventfd that ends it
	pipes []*pipe

	mu   sync.Mutex
	ways map[int32]*way
	last int32
}

// pipe is where bytes wait that one connection sent and the other does not take yet.
type pipe struct {
	r, w int
	held int
}

// way is one direction of a session: what comes from one of its connections goes to the other.
type way struct {
	id       int32
	from, to *socket
	back     *way
	opening  *opening // what is still looked for; nil: nothing
	found    func()   // called when that has passed
	pipe     *pipe    // with what the other side did not take; nil: it takes all
	interest uint32   // in events of from
	line     *line
}

// line is the two ways of a session.
type line struct {
	over func(failed *socket, err error) // called once, by the relay: io.EOF or why a connection failed
	done chan struct{}                   // closed after that, when both connections are closed
}

func newRelay() (*relay, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("making an epoll descriptor for forwarding: %w", err)
	}
	bell, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err == nil {
		err = unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, bell, &unix.EpollEvent{Events: unix.EPOLLIN})
	}
	if err != nil {
		unix.Close(epoll)
		return nil, fmt.Errorf("making an event descriptor for forwarding: %w", err)
	}
	return &relay{epoll: epoll, bell: bell, ways: make(map[int32]*way)}, nil
}

// end lets run return. All lines must be done.
func (r *relay) end() {
	one := uint64(1)
	unix.Write(r.bell, (*[8]byte)(unsafe.Pointer(&one))[:])
}

// join forwards between an initiator and its leg from now on. Both are the relay's to close; who wants the end shuts them down.
func (r *relay) join(initiator, leg *socket, o *opening, found func(), over func(*socket, error)) *line {
	l := &line{over: over, done: make(chan struct{})}
	there := &way{from: initiator, to: leg, line: l}
	back := &way{from: leg, to: initiator, line: l, back: there, opening: o, found: found}
	there.back = back
	r.mu.Lock()
	for _, w := range []*way{there, back} {
		r.last = max(1, r.last+1) // 0 is the bell
		for r.ways[r.last] != nil {
			r.last = max(1, r.last+1)
		}
		w.id, w.interest = r.last, unix.EPOLLIN|unix.EPOLLPRI
		r.ways[w.id] = w
	}
	// The lock is held: the relay cannot end the line for the first before the second is there.
	var failed error
	for _, w := range []*way{there, back} {
		if err := unix.EpollCtl(r.epoll, unix.EPOLL_CTL_ADD, w.from.fd, w.event()); err != nil {
			failed = err
		}
	}
	if failed != nil {
		r.forget(there)
	}
	r.mu.Unlock()
	if failed != nil {
		l.end(there, leg, fmt.Errorf("watching a connection: %w", failed))
	}
	return l
}

func (w *way) event() *unix.EpollEvent { return &unix.EpollEvent{Events: w.interest, Fd: w.id} }

// end closes a line that the relay does not watch any more.
func (l *line) end(w *way, failed *socket, err error) {
	l.over(failed, err)
	w.from.close()
	w.to.close()
	close(l.done)
}

// run forwards until end is called.
func (r *relay) run() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer r.close()
	events := make([]unix.EpollEvent, eventsAtOnce)
	for {
		n, err := unix.EpollWait(r.epoll, events, -1)
		if err != nil {
			continue // a signal
		}
		for _, e := range events[:n] {
			if e.Fd == 0 {
				return
			}
			if w := r.way(e.Fd); w != nil {
				r.handle(w, e.Events)
			}
		}
	}
}

func (r *relay) close() {
	for _, p := range r.pipes {
		p.close()
	}
	unix.Close(r.bell)
	unix.Close(r.epoll)
}

// way returns a direction, unless its line ended within the same batch of events.
func (r *relay) way(id int32) *way {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ways[id]
}

// handle does what an event of a connection asks for.
func (r *relay) handle(w *way, events uint32) {
	if events&unix.EPOLLPRI != 0 { // iSCSI has no urgent data, and splice stops before it for ever
		r.drop(w, w.from, errUrgent)
		return
	}
	gone := events&(unix.EPOLLHUP|unix.EPOLLERR) != 0
	if gone && w.pipe != nil { // nothing can be asked of it by reading: the pipe is full of what came before
		r.drop(w, w.from, io.EOF)
		return
	}
	if events&unix.EPOLLOUT != 0 && w.back.pipe != nil {
		if failed, err := r.move(w.back); err != nil {
			r.drop(w, failed, err)
			return
		}
	}
	if (gone || events&unix.EPOLLIN != 0) && w.pipe == nil {
		if failed, err := r.move(w); err != nil {
			r.drop(w, failed, err)
		}
	}
}

// drop ends a line.
func (r *relay) drop(w *way, failed *socket, err error) {
	r.mu.Lock()
	r.forget(w)
	r.mu.Unlock()
	for _, x := range []*way{w, w.back} {
		if x.pipe != nil {
			x.pipe.close() // its bytes are nobody's
		}
	}
	w.line.end(w, failed, err)
}

// forget stops to watch a line. It does so by hand: closing a socket that another process has too would not.
func (r *relay) forget(w *way) {
	for _, x := range []*way{w, w.back} {
		delete(r.ways, x.id)
		unix.EpollCtl(r.epoll, unix.EPOLL_CTL_DEL, x.from.fd, nil)
	}
}

// move passes on what has come, once. An error means the end, and who failed.
func (r *relay) move(w *way) (failed *socket, err error) {
	if w.pipe == nil {
		if err := r.fill(w); err != nil || w.pipe == nil {
			return w.from, err
		}
	}
	for w.pipe.held > 0 {
		n, err := splice(w.pipe.r, w.to.fd, w.pipe.held)
		switch err {
		case nil:
			if n == 0 {
				return w.to, io.ErrNoProgress
			}
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			r.interest(w, w.interest&^unix.EPOLLIN)
			r.interest(w.back, w.back.interest|unix.EPOLLOUT)
			return nil, nil
		default:
			return w.to, err
		}
		w.pipe.held -= n
		if w.opening != nil {
			w.passed(n)
		}
	}
	r.keep(w.pipe)
	w.pipe = nil
	r.interest(w, w.interest|unix.EPOLLIN)
	r.interest(w.back, w.back.interest&^unix.EPOLLOUT)
	return nil, nil
}

// fill takes what has come into a pipe. It takes none if nothing has come.
func (r *relay) fill(w *way) error {
	limit := mostMoved
	if w.opening != nil {
		var err error
		if limit, err = w.look(); err != nil || limit == 0 {
			return err
		}
	}
	p, err := r.pipe()
	if err != nil {
		return err
	}
	n, err := splice(w.from.fd, p.w, limit)
	if n > 0 {
		p.held, w.pipe = n, p
		return nil
	}
	r.keep(p)
	switch err {
	case nil:
		return io.EOF
	case unix.EAGAIN, unix.EINTR: // epoll tells again
		return nil
	}
	return err
}

// look lets the opening see what comes next, and returns how much of it to pass on; 0: nothing has come.
func (w *way) look() (limit int, err error) {
	if w.opening.ahead > 0 {
		return min(w.opening.ahead, mostMoved), nil
	}
	var next [bhsSize]byte
	n, _, err := unix.Recvfrom(w.from.fd, next[:w.opening.wants()], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	switch {
	case err == unix.EAGAIN, err == unix.EINTR:
		return 0, nil
	case err != nil:
		return 0, err
	case n == 0:
		return 0, io.EOF
	}
	w.opening.see(next[:n])
	return min(w.opening.ahead, mostMoved), nil
}

// passed notes bytes that were passed on.
func (w *way) passed(n int) {
	found, over := w.opening.passed(n)
	if found {
		w.found()
	}
	if over {
		w.opening = nil
	}
}

// interest sets which events of a way's connection wake the relay.
func (r *relay) interest(w *way, events uint32) {
	if w.interest != events {
		w.interest = events
		unix.EpollCtl(r.epoll, unix.EPOLL_CTL_MOD, w.from.fd, w.event())
	}
}

// pipe returns an empty pipe.
func (r *relay) pipe() (*pipe, error) {
	if n := len(r.pipes); n > 0 {
		p := r.pipes[n-1]
		r.pipes = r.pipes[:n-1]
		return p, nil
	}
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, fmt.Errorf("making a pipe: %w", err)
	}
	unix.FcntlInt(uintptr(fds[0]), unix.F_SETPIPE_SZ, mostMoved) // where that is too much for this user, a small one works too
	return &pipe{r: fds[0], w: fds[1]}, nil
}

// keep takes back an empty pipe.
func (r *relay) keep(p *pipe) {
	if len(r.pipes) >= pipesKept {
		p.close()
		return
	}
	r.pipes = append(r.pipes, p)
}

func (p *pipe) close() {
	unix.Close(p.r)
	unix.Close(p.w)
}

// splice is splice(2) without a word to the scheduler: it never blocks, and a word costs as much as it does.
func splice(from, to, most int) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_SPLICE, uintptr(from), 0, uintptr(to), 0, uintptr(most), unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MOVE)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
