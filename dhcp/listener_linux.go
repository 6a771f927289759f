package dhcp

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/sys/unix"
)

const (
	// maxDatagram is the longest message that is read; option 57 has clients announce 1,500 at most.
	maxDatagram = 4096
	// crowded is how many messages are read at once when they come faster than one by one. Then the next are left to gather for gatherFor: a
	// wake-up costs as much as the answer, and a client does not notice half a millisecond.
	crowded   = 4
	gatherFor = 500 * time.Microsecond
)

// listener is a UDP socket that is not one of package net: the runtime watches those, and each datagram then wakes threads of it that have
// nothing to do, at twice the price of the answer. Its reader waits in the kernel.
type listener struct {
	fd    int
	event int // eventfd: written to when the reader is to end

	mu     sync.Mutex
	closed bool // the reader has been told to end
}

// newListener opens a UDP socket in the network namespace of the calling thread. read must be called: it closes what was opened.
func newListener(link string, port int) (*listener, error) {
	conn, err := listenUDP(link, port)
	if err != nil {
		return nil, err
	}
	defer conn.Close() // which takes it away from the runtime; ours stays
	l := &listener{}
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("reaching the socket: %w", err)
	}
	ctl := raw.Control(func(fd uintptr) {
		if err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1); err == nil {
			l.fd, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
		}
	})
	if err := cmp.Or(err, ctl); err != nil {
		return nil, fmt.Errorf("taking the socket from the runtime: %w", err)
	}
	if l.event, err = unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC); err != nil {
		unix.Close(l.fd)
		return nil, fmt.Errorf("making an eventfd: %w", err)
	}
	return l, nil
}

// close has read return.
func (l *listener) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.closed = true
		_, _ = unix.Write(l.event, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // full only after 2^64 calls
	}
}

// free closes the descriptors. close does nothing any more: their numbers may be others' soon.
func (l *listener) free() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	unix.Close(l.fd)
	unix.Close(l.event)
}

// read fills the inbox until the socket fails or close is called.
func (l *listener) read(in inbox) error {
	defer l.free()
	fds := []unix.PollFd{{Fd: int32(l.fd), Events: unix.POLLIN}, {Fd: int32(l.event), Events: unix.POLLIN}}
	b := make([]byte, maxDatagram)
	for {
		if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("waiting for messages: %w", err)
		}
		if fds[1].Revents != 0 {
			return net.ErrClosed
		}
		n, err := l.drain(b, in.receive)
		if err != nil {
			return err
		}
		in.drained()
		if n >= crowded {
			pause := unix.NsecToTimespec(int64(gatherFor))
			_ = unix.Nanosleep(&pause, nil) // a signal ends it early
		}
	}
}

// drainMost is how many datagrams are read before the end is looked for again: a flood must not hide it.
const drainMost = 256

// drain reads what is there, up to drainMost, and returns how many datagrams that were.
func (l *listener) drain(b []byte, receive func(question)) (count int, err error) {
	var control [64]byte
	for count < drainMost {
		n, size, _, _, err := unix.Recvmsg(l.fd, b, control[:], 0)
		switch {
		case err == nil:
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return count, nil
		default:
			return count, fmt.Errorf("reading messages: %w", err)
		}
		count++
		q, err := dhcpv4.FromBytes(b[:n])
		if err != nil {
			q = nil
		}
		receive(question{q, sentTo(control[:size])})
	}
	return count, nil
}

// sentTo returns the address that a datagram was sent to (struct in_pktinfo in ip(7)), as the kernel says it beside it; zero: it does not.
func sentTo(control []byte) netip.Addr {
	h, data, _, err := unix.ParseOneSocketControlMessage(control)
	if err != nil || h.Level != unix.IPPROTO_IP || h.Type != unix.IP_PKTINFO || len(data) < unix.SizeofInet4Pktinfo {
		return netip.Addr{}
	}
	return netip.AddrFrom4([4]byte(data[8:])) // behind the interface's index and our own address
}
