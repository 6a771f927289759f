package tftp

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// socketBuffer holds the ACKs of thousands of clients that come at once. The kernel counts about 1 KB for each.
const socketBuffer = 8 << 20

// socket is a UDP socket that tells where each datagram was sent to. It is not one of package net: the runtime watches those, and each
// datagram then wakes threads of it that have nothing to do, at twice the price of the answer.
type socket struct {
	fd  int
	six bool // of IPv6; IPv4 addresses are mapped into its, if it is of both
	all bool // of both
	// port is the transfer's own; 0: it is the one that all requests come to.
	port   uint16
	buffer int // bytes for what is received, and for what is sent
}

// openSocket listens at an address.
func openSocket(addr *net.UDPAddr) (*socket, error) {
	s, err := listenUDP(addr)
	if err != nil {
		return nil, fmt.Errorf("listening for TFTP on %s: %w%s", addr, err, portHint("udp", addr.Port, err))
	}
	return s, nil
}

// listenUDP listens at every address of both protocols unless one is named. Where the kernel has no IPv6, that is every one of IPv4.
func listenUDP(addr *net.UDPAddr) (*socket, error) {
	s := &socket{all: addr.IP == nil, buffer: socketBuffer}
	s.six = s.all || addr.IP.To4() == nil
	err := s.create()
	if s.all && errors.Is(err, unix.EAFNOSUPPORT) {
		s.all, s.six = false, false
		err = s.create()
	}
	if err != nil {
		return nil, err
	}
	// First what is set before the port is bound: a request that came in between would be answered from any address.
	if err = cmp.Or(s.prepare(), s.bind(addr)); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *socket) create() (err error) {
	family := unix.AF_INET
	if s.six {
		family = unix.AF_INET6
	}
	s.fd, err = unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	return os.NewSyscallError("socket", err)
}

func (s *socket) prepare() error {
	for _, o := range []struct{ forced, plain int }{{unix.SO_RCVBUFFORCE, unix.SO_RCVBUF}, {unix.SO_SNDBUFFORCE, unix.SO_SNDBUF}} {
		if unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, o.forced, s.buffer) != nil { // needs CAP_NET_ADMIN
			_ = unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, o.plain, s.buffer) // the host's limit is what there is
		}
	}
	var errs []error
	set := func(level, option, value int) {
		errs = append(errs, os.NewSyscallError("setsockopt", unix.SetsockoptInt(s.fd, level, option, value)))
	}
	if s.six {
		only := 1
		if s.all {
			only = 0
		}
		set(unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only)
		set(unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
	}
	if !s.six || s.all { // with both it comes second, and tells what was broadcast
		set(unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
	}
	return errors.Join(errs...)
}

func (s *socket) bind(addr *net.UDPAddr) error {
	var zone uint32
	if link, err := net.InterfaceByName(addr.Zone); err == nil {
		zone = uint32(link.Index)
	}
	return s.bindIn(addr, zone)
}

// bindIn binds to an address; zone is the link that a link-local one is of.
func (s *socket) bindIn(addr *net.UDPAddr, zone uint32) error {
	if !s.six {
		to := &unix.SockaddrInet4{Port: addr.Port}
		copy(to.Addr[:], addr.IP.To4())
		return os.NewSyscallError("bind", unix.Bind(s.fd, to))
	}
	to := &unix.SockaddrInet6{Port: addr.Port, ZoneId: zone}
	copy(to.Addr[:], addr.IP)
	return os.NewSyscallError("bind", unix.Bind(s.fd, to))
}

// close closes the socket.
func (s *socket) close() { _ = unix.Close(s.fd) } // what was sent is sent

// SyscallConn implements syscall.Conn, for whoever wants a duplicate.
func (s *socket) SyscallConn() (syscall.RawConn, error) { return rawSocket{s.fd}, nil }

type rawSocket struct{ fd int }

// Control implements syscall.RawConn.
func (r rawSocket) Control(f func(uintptr)) error {
	f(uintptr(r.fd))
	return nil
}

// Read implements syscall.RawConn.
func (rawSocket) Read(func(uintptr) bool) error { return errors.ErrUnsupported }

// Write implements syscall.RawConn.
func (rawSocket) Write(func(uintptr) bool) error { return errors.ErrUnsupported }
