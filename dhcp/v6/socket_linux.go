package v6

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"syscall"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"everboot/internal/ports"
)

// receiveBuffer holds what arrives while the reader waits for a core.
const receiveBuffer = 1 << 20

// socket is the real conn.
type socket struct {
	link  *net.Interface
	udp   *net.UDPConn
	group *ipv6.PacketConn
}

// The groups of servers and relay agents on a link, and of servers in a site (RFC 8415 §7.1).
var groups = []net.IP{dhcpv6.AllDHCPRelayAgentsAndServers, dhcpv6.AllDHCPServers}

// listen opens the socket, in the network namespace of the calling thread.
func listen(link string) (conn, error) {
	iface, err := net.InterfaceByName(link)
	if err != nil {
		return nil, fmt.Errorf("finding interface %s: %w", link, err)
	}
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		ctl := raw.Control(func(fd uintptr) {
			err = unix.BindToDevice(int(fd), link)
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) // less will do, too
		})
		return cmp.Or(err, ctl)
	}}
	c, err := lc.ListenPacket(context.Background(), "udp6", "[::]:"+strconv.Itoa(dhcpv6.DefaultServerPort))
	if errors.Is(err, unix.EADDRINUSE) {
		return nil, fmt.Errorf("%w; %s has the port: stop it", err, ports.Owner("udp", dhcpv6.DefaultServerPort))
	}
	if err != nil {
		return nil, err
	}
	s := &socket{link: iface, udp: c.(*net.UDPConn), group: ipv6.NewPacketConn(c)}
	err = s.group.SetControlMessage(ipv6.FlagDst, true)
	for _, g := range groups {
		err = errors.Join(err, s.group.JoinGroup(iface, &net.UDPAddr{IP: g}))
	}
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("joining the group of DHCPv6 servers on %s: %w; is IPv6 on?", link, err)
	}
	return s, nil
}

// Read implements conn.
func (s *socket) Read(b []byte) (int, netip.AddrPort, bool, error) {
	n, cm, from, err := s.group.ReadFrom(b)
	if err != nil {
		return 0, netip.AddrPort{}, false, err
	}
	udp, _ := from.(*net.UDPAddr)
	return n, udp.AddrPort(), cm != nil && !cm.Dst.IsMulticast(), nil
}

// Write implements conn.
func (s *socket) Write(b []byte, to netip.AddrPort) error {
	_, err := s.udp.WriteToUDPAddrPort(b, to)
	return err
}

// Gone implements conn.
func (s *socket) Gone() bool {
	now, err := net.InterfaceByName(s.link.Name)
	return err != nil || now.Index != s.link.Index
}

// Close implements conn.
func (s *socket) Close() error { return s.udp.Close() }
