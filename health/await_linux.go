package health

import (
	"context"
	"errors"
	"io"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// awaitEnd blocks until the peer has closed or reset an idle connection, and says so; or until ctx ends or data comes, which the next
// reader shall find (hence MSG_PEEK), and returns nil. It leaves the connection without a deadline.
func awaitEnd(ctx context.Context, conn net.Conn) error {
	c, ok := conn.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = conn.SetReadDeadline(time.Unix(1, 0)) // fails on a closed connection only
		close(ended)
	})
	var end error
	err = raw.Read(func(fd uintptr) bool {
		var one [1]byte
		n, _, err := unix.Recvfrom(int(fd), one[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR):
			return false
		case err != nil:
			end = err
		case n == 0:
			end = io.EOF
		}
		return true
	})
	if !stop() {
		<-ended
	}
	if clear := conn.SetReadDeadline(time.Time{}); end == nil && clear != nil {
		end = clear
	}
	if end != nil {
		return end
	}
	if err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}
