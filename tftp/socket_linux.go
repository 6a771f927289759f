package tftp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// socketBuffer holds the ACKs of thousands of clients that come at once. The kernel counts about 1 KB for each.
const socketBuffer = 8 << 20

// socket is a UDP socket that tells where each datagram was sent to.
type socket struct {
	conn *net.UDPConn // it owns the descriptor
	fd   int          // valid while conn is open
	six  bool
}

// openSocket listens at an address.
func openSocket(ctx context.Context, addr *net.UDPAddr) (*socket, error) {
	s := &socket{six: addr.IP != nil && addr.IP.To4() == nil}
	// Before the port is bound: a request that came in between would be answered from any address.
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var set error
		err := raw.Control(func(fd uintptr) { set = s.prepare(int(fd)) })
		return errors.Join(err, set)
	}}
	conn, err := lc.ListenPacket(ctx, network("udp", addr.IP), addr.String())
	if err != nil {
		return nil, fmt.Errorf("listening for TFTP on %s: %w%s", addr, err, portHint("udp", addr.Port, err))
	}
	s.conn = conn.(*net.UDPConn)
	raw, err := s.conn.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { s.fd = int(fd) })
	}
	if err != nil {
		_ = conn.Close() // nothing was sent
		return nil, fmt.Errorf("listening for TFTP on %s: %w", addr, err)
	}
	return s, nil
}

func (s *socket) prepare(fd int) error {
	for _, o := range []struct{ forced, plain int }{{unix.SO_RCVBUFFORCE, unix.SO_RCVBUF}, {unix.SO_SNDBUFFORCE, unix.SO_SNDBUF}} {
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, o.forced, socketBuffer) != nil { // needs CAP_NET_ADMIN
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, o.plain, socketBuffer) // the host's limit is what there is
		}
	}
	if s.six {
		return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
	}
	return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
}

// close closes the socket.
func (s *socket) close() { _ = s.conn.Close() } // what was sent is sent
