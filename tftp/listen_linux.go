package tftp

import (
	"context"
	"errors"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// listenUDP opens a socket that tells each datagram's destination from the first one on. pin/tftp asks for that too, but after the
// socket is open: a request that comes in between would be answered from any address, with blocks of 512 bytes.
func listenUDP(ctx context.Context, addr *net.UDPAddr) (*net.UDPConn, error) {
	six := addr.IP != nil && addr.IP.To4() == nil
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var set error
		err := raw.Control(func(fd uintptr) {
			if six {
				set = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
			} else {
				set = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
			}
		})
		return errors.Join(err, set)
	}}
	conn, err := lc.ListenPacket(ctx, network("udp", addr.IP), addr.String())
	if err != nil {
		return nil, err
	}
	return conn.(*net.UDPConn), nil
}
