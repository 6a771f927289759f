package dhcp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"syscall"

	"everboot/site"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"
)

// transport brings messages and takes answers away.
type transport interface {
	// Send sends an answer. Several goroutines call it.
	Send(payload []byte, to destination) error
	// Wait returns when no more messages can come, with the reason.
	Wait() error
	Close()
}

// inbox takes in what arrives.
type inbox struct {
	receive func(question) // each message; without one: a datagram that is none
	drained func()         // there are no more for now
}

// sockets is the real transport: one socket to listen, and two to send with, which receive nothing. The listener is our own and not
// coredhcp's: that one drops DECLINE and BOOTP, shares the port with whoever else wants it, and takes 64 KiB and a goroutine for each
// packet.
type sockets struct {
	from   netip.Addr
	mac    site.MAC
	link   *packet.Conn // frames
	routed int          // raw IP: the kernel finds the way, the header with the source address is ours. Bound to no port, so that it takes no messages away
	in     *listener
	gone   chan error // why link broke
	ended  chan error // why in broke
}

// etherTypeUnused is the second of the local experimental EtherTypes (IEEE 802, 9.2.3): nobody sends it. A packet socket has to wait for
// some type, or the kernel does not tell it that its interface went away, which the UDP socket never hears of: bound to an interface
// that was made anew under the same name, it stays deaf.
const etherTypeUnused = 0x88b6

// listen opens the sockets in the network namespace of the calling thread.
func listen(cfg Config, in inbox) (transport, error) {
	link, err := net.InterfaceByName(cfg.Interface)
	if err != nil {
		return nil, noInterface(cfg.Interface)
	}
	if len(link.HardwareAddr) != 6 {
		return nil, fmt.Errorf("dhcp: interface %s is not an Ethernet one: DHCP needs MAC addresses", link.Name)
	}
	if link.Flags&net.FlagUp == 0 {
		return nil, interfaceDown(link.Name)
	}
	if err := portTaken(cfg); err != nil {
		return nil, err
	}
	s := &sockets{from: cfg.ServerAddress, mac: site.MAC(link.HardwareAddr), routed: -1, gone: make(chan error, 1), ended: make(chan error, 1)}
	if err := s.open(link, in); err != nil {
		s.closeSenders()
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
			return nil, fmt.Errorf("dhcp: %w: run as root, or with the capabilities NET_RAW, NET_BIND_SERVICE and NET_ADMIN", err)
		}
		return nil, fmt.Errorf("dhcp: %w", err)
	}
	return s, nil
}

func (s *sockets) open(link *net.Interface, in inbox) (err error) {
	if s.link, err = packet.Listen(link, packet.Raw, etherTypeUnused, nil); err != nil {
		return fmt.Errorf("opening a packet socket on %s: %w", link.Name, err)
	}
	if s.routed, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW); err != nil {
		return fmt.Errorf("opening a raw IP socket: %w", err)
	}
	if s.in, err = newListener(link.Name, dhcpv4.ServerPort); err != nil {
		return fmt.Errorf("listening on port %d of %s: %w", dhcpv4.ServerPort, link.Name, err)
	}
	go s.watch()
	go func() { s.ended <- s.in.read(in) }()
	return nil
}

// receiveBuffer holds what arrives while all goroutines wait for a core: at 8,000 messages a second, half a second of them.
const receiveBuffer = 4 << 20

// listenUDP opens a UDP socket that hears an interface alone, broadcasts too.
func listenUDP(link string, port int) (net.PacketConn, error) {
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		ctl := raw.Control(func(fd uintptr) {
			if err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 1); err == nil {
				err = unix.BindToDevice(int(fd), link)
			}
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) // less will do, too
		})
		return cmp.Or(err, ctl)
	}}
	return lc.ListenPacket(context.Background(), "udp4", ":"+strconv.Itoa(port))
}

// watch ends when the interface goes away, and takes the listener with it.
func (s *sockets) watch() {
	b := make([]byte, 64)
	for {
		if _, _, err := s.link.ReadFrom(b); err != nil {
			s.gone <- err
			s.in.close()
			return
		}
	}
}

// Send implements transport.
func (s *sockets) Send(payload []byte, to destination) error {
	ip := packetOf(cmp.Or(to.from, s.from), to.addr, payload)
	if to.mac.IsZero() {
		return unix.Sendto(s.routed, ip, 0, &unix.SockaddrInet4{Addr: to.addr.Addr().As4()})
	}
	_, err := s.link.WriteTo(ethernet(s.mac, to.mac, ip), &packet.Addr{HardwareAddr: to.mac[:]})
	return err
}

// Wait implements transport.
func (s *sockets) Wait() error {
	err := <-s.ended
	s.link.Close()
	return cmp.Or(<-s.gone, err)
}

// Close implements transport.
func (s *sockets) Close() {
	s.in.close()
	s.closeSenders()
}

func (s *sockets) closeSenders() {
	if s.link != nil {
		s.link.Close()
	}
	if s.routed >= 0 {
		unix.Close(s.routed)
	}
}
