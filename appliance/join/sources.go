package join

import (
	"net"
	"net/netip"
	"sync"
)

// sources is a listener that closes what one address has too many of at once.
type sources struct {
	net.Listener
	most int

	mu    sync.Mutex
	count map[netip.Addr]int
}

func newSources(l net.Listener, most int) *sources {
	return &sources{Listener: l, most: most, count: map[netip.Addr]int{}}
}

// Accept returns the next connection of an address that has not too many.
func (s *sources) Accept() (net.Conn, error) {
	for {
		c, err := s.Listener.Accept()
		if err != nil {
			return nil, err
		}
		from := c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr()
		if s.enter(from) {
			return &counted{Conn: c, leave: sync.OnceFunc(func() { s.leave(from) })}, nil
		}
		c.Close()
	}
}

func (s *sources) enter(from netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.count[from] >= s.most {
		return false
	}
	s.count[from]++
	return true
}

func (s *sources) leave(from netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.count[from]--; s.count[from] == 0 {
		delete(s.count, from)
	}
}

// counted is a connection that stands in the count until it is closed.
type counted struct {
	net.Conn
	leave func()
}

// Close closes the connection.
func (c *counted) Close() error {
	defer c.leave()
	return c.Conn.Close()
}
