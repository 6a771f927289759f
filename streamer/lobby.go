package streamer

import (
	"container/list"
	"net"
	"net/netip"
	"sync"
)

// lobby holds the connections whose first PDU has not come yet. It never refuses one: when it is full, the address that has most
// of them loses its oldest, so that ten thousand silent connections keep nobody out who says who it is.
type lobby struct {
	mu      sync.Mutex
	max     int
	count   int
	waiting map[netip.Addr]*list.List // of *guest, the oldest first
}

type guest struct {
	conn   net.Conn
	from   netip.Addr
	place  *list.Element
	thrown bool
}

func newLobby(most int) *lobby { return &lobby{max: most, waiting: make(map[netip.Addr]*list.List)} }

// enter takes a connection in, and throws another out if there is no room.
func (l *lobby) enter(conn net.Conn) *guest {
	g := &guest{conn: conn, from: remote(conn)}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.count >= l.max {
		l.throw()
	}
	if l.waiting[g.from] == nil {
		l.waiting[g.from] = list.New()
	}
	g.place = l.waiting[g.from].PushBack(g)
	l.count++
	return g
}

func (l *lobby) throw() {
	var most *list.List
	for _, guests := range l.waiting {
		if most == nil || guests.Len() > most.Len() {
			most = guests
		}
	}
	oldest := most.Front().Value.(*guest)
	oldest.thrown = true
	l.remove(oldest)
	reset(oldest.conn)
}

// leave lets a connection go. It reports whether it was thrown out before.
func (l *lobby) leave(g *guest) (thrown bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if g.thrown {
		return true
	}
	l.remove(g)
	return false
}

func (l *lobby) remove(g *guest) {
	guests := l.waiting[g.from]
	guests.Remove(g.place)
	if guests.Len() == 0 {
		delete(l.waiting, g.from)
	}
	l.count--
}

// remote is where a connection comes from; the zero address if nobody can tell.
func remote(conn net.Conn) netip.Addr {
	from, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	if err != nil {
		return netip.Addr{}
	}
	return from.Addr().Unmap()
}
