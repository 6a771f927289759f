package tftp

import (
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// portBuffer holds what one client sends and is sent.
const portBuffer = 1 << 20

// portSet is the sockets of transfers that have a port of their own (RFC 1350 §4), beside the one that all requests come to.
type portSet struct {
	epoll  int
	events [batch]unix.EpollEvent
	byFD   map[int32]*socket
}

func newPortSet() (*portSet, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	return &portSet{epoll: fd, byFD: make(map[int32]*socket)}, nil
}

// open opens a port for a transfer, where its client asked. With port 0 the kernel chooses one.
func (p *portSet) open(e *endpoints, port uint16) (*socket, error) {
	local := e.server()
	s := &socket{six: local.Is6(), buffer: portBuffer}
	addr := &net.UDPAddr{IP: local.AsSlice(), Port: int(port)}
	err := s.create()
	if err == nil {
		if err = errors.Join(s.prepare(), s.freebind(), s.bindIn(addr, e.zone)); err == nil {
			err = unix.EpollCtl(p.epoll, unix.EPOLL_CTL_ADD, s.fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(s.fd)})
		}
		if err == nil {
			s.port, err = portOf(s.fd)
		}
		if err != nil {
			s.close()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("opening port %d of %s: %w", port, local, err)
	}
	p.byFD[int32(s.fd)] = s
	return s, nil
}

// close gives a port back.
func (p *portSet) close(s *socket) {
	delete(p.byFD, int32(s.fd))
	s.close() // which takes it out of the epoll set
	s.fd = -1
}

// ready returns the sockets that have something to read, a batch at most. It does not wait.
func (p *portSet) ready() (list []*socket) {
	if len(p.byFD) == 0 {
		return nil
	}
	n, err := unix.EpollWait(p.epoll, p.events[:], 0)
	if err != nil { // EINTR: the next call says it again
		return nil
	}
	for _, e := range p.events[:n] {
		if s := p.byFD[e.Fd]; s != nil {
			list = append(list, s)
		}
	}
	return list
}

// closeAll gives back what is left.
func (p *portSet) closeAll() {
	for _, s := range p.byFD {
		p.close(s)
	}
	_ = unix.Close(p.epoll)
}

// freebind lets a port be opened at a floating address in the moment before it is ours.
func (s *socket) freebind() error {
	return os.NewSyscallError("setsockopt", unix.SetsockoptInt(s.fd, unix.SOL_IP, unix.IP_FREEBIND, 1))
}

// portOf returns the port that a socket is bound to.
func portOf(fd int) (uint16, error) {
	name, err := unix.Getsockname(fd)
	if err != nil {
		return 0, os.NewSyscallError("getsockname", err)
	}
	switch a := name.(type) {
	case *unix.SockaddrInet4:
		return uint16(a.Port), nil
	case *unix.SockaddrInet6:
		return uint16(a.Port), nil
	}
	return 0, fmt.Errorf("a socket of %T", name)
}
