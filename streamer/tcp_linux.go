package streamer

import (
	"context"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// listen opens a listening socket also at an address that the host does not have yet, because a floating address comes later.
func listen(network, address string) (net.Listener, error) {
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		if cerr := raw.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1)
		}); cerr != nil {
			return cerr
		}
		return err
	}}
	return lc.Listen(context.Background(), network, address)
}

// tuneLeg makes the silent death of a streamer known in about 2 s, whether bytes are under way (TCP_USER_TIMEOUT) or not
// (keepalive). On a local network three retransmissions fit into that time.
func tuneLeg(conn net.Conn) {
	tune(conn, net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: time.Second, Count: 2}, 2*time.Second)
}

// tuneInitiator gives a target longer: its cable may be pulled and put back, or it may be a guest that is being moved.
// A machine that was switched off, or that runs another system by now, is noticed after that.
func tuneInitiator(conn net.Conn) {
	tune(conn, net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 4}, 30*time.Second)
}

// tune sets best-effort options; without them forwarding still works.
func tune(conn net.Conn, keepalive net.KeepAliveConfig, patience time.Duration) {
	c, ok := conn.(*net.TCPConn)
	if !ok {
		return
	}
	c.SetNoDelay(true)
	c.SetKeepAliveConfig(keepalive)
	if raw, err := c.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) {
			unix.SetsockoptInt(int(fd), unix.SOL_TCP, unix.TCP_USER_TIMEOUT, int(patience.Milliseconds()))
		})
	}
}

// tcpBytes asks the kernel how much a connection has received and how much of what it sent was acknowledged, so that
// counting costs nothing while bytes flow.
func tcpBytes(conn net.Conn) (received, acked uint64) {
	c, ok := conn.(*net.TCPConn)
	if !ok {
		return 0, 0
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, 0
	}
	raw.Control(func(fd uintptr) {
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.SOL_TCP, unix.TCP_INFO); err == nil {
			received, acked = info.Bytes_received, info.Bytes_acked
		}
	})
	return received, acked
}
