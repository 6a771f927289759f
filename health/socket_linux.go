package health

import (
	"cmp"
	"context"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// listenForErrors returns a socket for a server that answers from another port than it is asked at. It is told, as sockets that know their peer are, when the server's
// host says that nobody listens (ip(7), IP_RECVERR).
func listenForErrors(server netip.Addr) (*net.UDPConn, error) {
	network, level, option := "udp4", unix.IPPROTO_IP, unix.IP_RECVERR
	if server.Is6() {
		network, level, option = "udp6", unix.IPPROTO_IPV6, unix.IPV6_RECVERR
	}
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		ctl := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, option, 1) })
		return cmp.Or(err, ctl)
	}}
	conn, err := lc.ListenPacket(context.Background(), network, ":0")
	if err != nil {
		return nil, err
	}
	return conn.(*net.UDPConn), nil
}
