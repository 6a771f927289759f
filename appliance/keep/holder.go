package keep

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"everboot/site"
)

// Holder is the guard's side. Its methods are called by one goroutine.
type Holder struct {
	log    *slog.Logger
	serve  *serving          // nil: no worker
	former []site.Connection // what the next worker is told
}

// formerTime is for how long a worker must have lived for those of the one before it to be forgotten: by then somebody has had the address,
// and told their clients.
const formerTime = time.Minute

// serving is what is held for one worker. Its goroutine owns held until done is closed.
type serving struct {
	conn   *net.UnixConn
	began  time.Time
	former []site.Connection // of the worker before
	held   map[uint64]held
	done   chan struct{}
}

type held struct {
	fd   int
	conn site.Connection
}

// NewHolder returns a Holder that holds nothing.
func NewHolder(log *slog.Logger) *Holder { return &Holder{log: log} }

// Attach returns the socket that the next worker inherits; the caller closes it once the worker runs. The worker is told what the one
// before it had.
func (h *Holder) Attach() (*os.File, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("making the socket that keeps connections: %w", err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "keep")
	ours, err := packetConn(os.NewFile(uintptr(pair[0]), "keep"))
	if err != nil {
		theirs.Close()
		return nil, fmt.Errorf("opening the socket that keeps connections: %w", err)
	}
	h.serve = &serving{conn: ours, began: time.Now(), former: h.former, held: make(map[uint64]held), done: make(chan struct{})}
	go h.serve.run()
	h.former = nil
	return theirs, nil
}

// Release drops everything that is held for a worker that has ended. Call it when the floating addresses are gone: then nothing of what the
// kernel says about the connections can leave.
func (h *Holder) Release() {
	s := h.serve
	if s == nil {
		return
	}
	h.serve = nil
	<-s.done // what the worker sent before its death counts
	if time.Since(s.began) < formerTime {
		h.former = s.former // it may have died before it could tell anybody
	}
	for _, k := range s.held {
		if k.conn.Local.IsValid() {
			// Closed with a RST, the kernel forgets the connection at once instead of sending FINs for minutes.
			_ = unix.SetsockoptLinger(k.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
			h.former = append(h.former, k.conn)
		}
		_ = unix.Close(k.fd)
	}
	if len(s.held) > 0 {
		h.log.Info("dropped the sockets of a worker that has ended", "sockets", len(s.held), "connections", len(h.former))
	}
}

// run serves a worker until it closes its side, which its death does.
func (s *serving) run() {
	defer close(s.done)
	defer s.conn.Close()
	tell := make(chan struct{})
	go func() { // beside the reads: a worker that sends before it listens must not stop us
		defer close(tell)
		for _, c := range s.former {
			if _, err := s.conn.Write(c.Append([]byte{opFormer})); err != nil {
				return // the worker has ended
			}
		}
		_, _ = s.conn.Write([]byte{opEnded})
	}()
	buffer, rights := make([]byte, maxMessage), make([]byte, unix.CmsgSpace(4))
	for {
		n, nr, _, _, err := s.conn.ReadMsgUnix(buffer, rights)
		if err != nil || n == 0 {
			break
		}
		s.told(buffer[:n], descriptors(rights[:nr]))
	}
	s.conn.Close()
	<-tell
}

// told does what the worker says. A descriptor that came with anything else is closed.
func (s *serving) told(b []byte, fds []int) {
	var id uint64
	if len(b) >= 9 {
		id = binary.BigEndian.Uint64(b[1:9])
	}
	switch {
	case len(b) == maxMessage && b[0] == opTake && len(fds) == 1:
		c, _ := site.ParseConnection(b[9:])
		s.drop(id) // never two of one
		s.held[id] = held{fds[0], c}
		return
	case len(b) == 9 && b[0] == opDrop:
		s.drop(id)
	}
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}

func (s *serving) drop(id uint64) {
	if k, ok := s.held[id]; ok {
		_ = unix.Close(k.fd)
		delete(s.held, id)
	}
}

func descriptors(rights []byte) []int {
	messages, err := unix.ParseSocketControlMessage(rights)
	if err != nil {
		return nil
	}
	var fds []int
	for _, m := range messages {
		if got, err := unix.ParseUnixRights(&m); err == nil {
			fds = slices.Concat(fds, got)
		}
	}
	return fds
}

// ids returns what is held, for tests; done must be closed.
func (s *serving) ids() []uint64 { return slices.Sorted(maps.Keys(s.held)) }
