package vip

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// rawSender sends whole IP packets by the kernel's routes and neighbours. Its socket receives nothing: no packet has protocol 255.
type rawSender struct{ fd int }

func openRawSender(family int) (*rawSender, error) {
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_RAW)
	if err != nil {
		return nil, fmt.Errorf("opening a raw socket for tickles: %w", err)
	}
	return &rawSender{fd: fd}, nil
}

// Tickle implements tickler.
func (s *rawSender) Tickle(packet []byte, to netip.Addr) error {
	if to.Is4() {
		return unix.Sendto(s.fd, packet, 0, &unix.SockaddrInet4{Addr: to.As4()})
	}
	return unix.Sendto(s.fd, packet, 0, &unix.SockaddrInet6{Addr: to.As16()})
}

// Close closes the socket.
func (s *rawSender) Close() error { return unix.Close(s.fd) }
