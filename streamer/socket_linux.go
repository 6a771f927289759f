package streamer

import (
	"net"
	"sync"

	"golang.org/x/sys/unix"
)

// socket is a TCP connection that the runtime's poller no longer watches: its relay does.
type socket struct {
	mu sync.RWMutex
	fd int // -1: closed
}

// detach takes a connection away from the runtime. If there is no descriptor for it the socket is a closed one, and its session ends at once.
func detach(conn net.Conn) *socket {
	s := &socket{fd: -1}
	control(conn, func(fd int) {
		if n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0); err == nil {
			s.fd = n
		}
	})
	conn.Close()
	return s
}

// use runs f with the descriptor, unless the socket is closed.
func (s *socket) use(f func(fd int)) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.fd >= 0 {
		f(s.fd)
	}
}

// close is for the relay alone, which reads fd without the lock.
func (s *socket) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd >= 0 {
		unix.Close(s.fd)
	}
	s.fd = -1
}
