package tftp

import (
	"context"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// writeTimeout is how long a client may take for one piece. A time-out for the whole answer would cut off large files on slow lines.
	writeTimeout = 30 * time.Second
	// writePiece is what the kernel is handed at once: 30 s for it allow 35 KB/s.
	writePiece = 1 << 20
	// unsent is how much of an answer the kernel takes before it can send it (TCP_NOTSENT_LOWAT). A hundred clients at once are served a third faster
	// than without a bound; with 512 KiB that is lost again.
	unsent = 128 << 10
)

// places are those for connections, shared by the listeners of a server. No address has more than its part, so that one client cannot take them all. A
// machine can have any address of its IPv6 /64, and so can all the targets of a segment: together they have half.
type places struct {
	all     chan struct{}
	each    int // of one address
	refused func(client netip.Prefix)

	mu   sync.Mutex
	held map[netip.Prefix]int
}

func newPlaces(all, each int, refused func(netip.Prefix)) *places {
	return &places{all: make(chan struct{}, all), each: each, refused: refused, held: make(map[netip.Prefix]int)}
}

// take gives an address one of its places. What it returns gives the place back; nil: it has all that it may have, or its network full does.
func (p *places) take(a netip.Addr) (back func(), full netip.Prefix) {
	a = a.Unmap().WithZone("")
	shares := []netip.Prefix{netip.PrefixFrom(a, a.BitLen())}
	if network, err := a.Prefix(64); err == nil && a.Is6() {
		shares = append(shares, network)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, most := range []int{p.each, max(p.each, cap(p.all)/2)}[:len(shares)] {
		if p.held[shares[i]] >= most {
			return nil, shares[i]
		}
	}
	for _, s := range shares {
		p.held[s]++
	}
	return func() { p.giveBack(shares) }, full
}

func (p *places) giveBack(shares []netip.Prefix) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range shares {
		if p.held[s]--; p.held[s] == 0 {
			delete(p.held, s)
		}
	}
}

// patientListener gives each piece of an answer its own time-out, and takes no more connections than there are places. It is not
// netutil.LimitListener, whose connections hide that the kernel can send a file by itself (sendfile).
type patientListener struct {
	*net.TCPListener
	places *places
	opened func(net.Conn) (closed func())
	stop   context.Context
}

// Accept implements net.Listener.
func (l patientListener) Accept() (net.Conn, error) {
	select {
	case l.places.all <- struct{}{}:
	case <-l.stop.Done():
		return nil, net.ErrClosed
	}
	for {
		c, err := l.AcceptTCP()
		if err != nil {
			<-l.places.all
			return nil, err
		}
		back, full := l.places.take(c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr())
		if back == nil {
			_ = c.Close() // to say why, over TLS too, would cost more than it is worth
			l.places.refused(full)
			continue
		}
		boundUnsent(c)
		told := l.opened(c)
		return patientConn{c, sync.OnceFunc(func() { told(); back(); <-l.places.all })}, nil
	}
}

// boundUnsent bounds what the kernel takes before it can send it. A kernel that cannot is only slower.
func boundUnsent(c syscall.Conn) {
	if raw, err := c.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, unsent) })
	}
}

type patientConn struct {
	*net.TCPConn
	closed func()
}

// Close implements net.Conn.
func (c patientConn) Close() error {
	defer c.closed()
	return c.TCPConn.Close()
}

// Write implements net.Conn.
func (c patientConn) Write(p []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return 0, err
	}
	return c.TCPConn.Write(p)
}

// ReadFrom implements io.ReaderFrom: net/http hands files over here, and the kernel sends them (sendfile) piece by piece.
func (c patientConn) ReadFrom(r io.Reader) (sent int64, err error) {
	limited, ok := r.(*io.LimitedReader)
	if !ok {
		limited = &io.LimitedReader{R: r, N: 1<<63 - 1}
	}
	for limited.N > 0 {
		if err := c.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
			return sent, err
		}
		piece := min(limited.N, writePiece)
		n, err := c.TCPConn.ReadFrom(&io.LimitedReader{R: limited.R, N: piece})
		sent += n
		limited.N -= n
		if err != nil || n < piece {
			return sent, err
		}
	}
	return sent, nil
}
