package streamer

import (
	"context"
	"net"
	"syscall"
	"time"
	"unsafe"

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

// backlogTime is how long a silenced listener still yields connections that the kernel has accepted for it.
const backlogTime = 20 * time.Millisecond

// fallSilent makes a listener drop every SYN that comes, and yield what it has accepted already. Closing it at once would reset
// that, and refuse the next.
func fallSilent(l net.Listener) {
	c, ok := l.(interface {
		syscall.Conn
		SetDeadline(time.Time) error
	})
	if !ok {
		l.Close()
		return
	}
	if raw, err := c.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) {
			nothing := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K} // keep 0 bytes of each packet
			unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &nothing})
		})
	}
	c.SetDeadline(time.Now().Add(backlogTime))
}

// reset ends a connection with a RST, which leaves no state behind. It does so also while another process holds a copy of the socket:
// closing ours would tell the peer nothing then (tcp_disconnect in the kernel's tcp.c).
func reset(conn net.Conn) {
	control(conn, func(fd int) {
		unix.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&unix.RawSockaddr{Family: unix.AF_UNSPEC})), unix.SizeofSockaddrInet4)
	})
	conn.Close()
}

// hangUp ends a connection after what was written, also while another process holds a copy of the socket.
func hangUp(conn net.Conn) {
	control(conn, func(fd int) { unix.Shutdown(fd, unix.SHUT_RDWR) })
	conn.Close()
}

// control runs f with the file descriptor of a TCP connection. What fails there is made up for by the close that follows.
func control(conn net.Conn, f func(fd int)) {
	c, ok := conn.(*net.TCPConn)
	if !ok {
		return
	}
	if raw, err := c.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) { f(int(fd)) })
	}
}

// legPatience is how long bytes to a streamer may stay unacknowledged before the kernel gives the connection up (TCP_USER_TIMEOUT).
// The pulse is quicker; this is for a portal that it does not reach.
const legPatience = time.Second

// tuneLeg makes the silent death of a streamer known also without the pulse.
func tuneLeg(conn net.Conn) {
	tune(conn, net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: time.Second, Count: 2}, legPatience)
}

// part closes the connection to a streamer that says nothing, so that the kernel goes on sending the FIN for a minute or two: if the host was only
// cut off, its target program must learn that this session has ended, or would count it as load for an hour.
func part(conn net.Conn) {
	control(conn, func(fd int) { unix.SetsockoptInt(fd, unix.SOL_TCP, unix.TCP_USER_TIMEOUT, 0) })
	conn.Close()
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
	control(conn, func(fd int) {
		unix.SetsockoptInt(fd, unix.SOL_TCP, unix.TCP_USER_TIMEOUT, int(patience.Milliseconds()))
	})
}

// tcpInfo asks the kernel about a connection, so that knowing costs nothing while bytes flow.
func tcpInfo(conn net.Conn) (info *unix.TCPInfo, ok bool) {
	control(conn, func(fd int) {
		var err error
		info, err = unix.GetsockoptTCPInfo(fd, unix.SOL_TCP, unix.TCP_INFO)
		ok = err == nil
	})
	return info, ok
}

// tcpBytes returns how much a connection has received, and how much of what it sent was acknowledged.
func tcpBytes(conn net.Conn) (received, acked uint64) {
	if info, ok := tcpInfo(conn); ok {
		return info.Bytes_received, info.Bytes_acked
	}
	return 0, 0
}

// gaveUp reports whether the kernel has given a connection up.
func gaveUp(conn net.Conn) bool {
	info, ok := tcpInfo(conn)
	return ok && info.State == unix.BPF_TCP_CLOSE
}
