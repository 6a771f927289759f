package vip

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"everboot/internal/arpframe"

	"github.com/mdlayher/ethernet"
	"github.com/mdlayher/packet"
)

// neighbours sends gratuitous ARP and unsolicited neighbour advertisements.
type neighbours struct {
	conn   *packet.Conn
	frames [][]byte
}

func openNeighbours(link *net.Interface, mac net.HardwareAddr, addrs []netip.Addr) (*neighbours, error) {
	s := &neighbours{}
	for _, addr := range addrs {
		if addr.Is6() {
			s.frames = append(s.frames, unsolicited(mac, addr, forwards(link)))
			continue
		}
		frames, err := arpframe.Announcements(mac, addr)
		if err != nil {
			return nil, fmt.Errorf("making gratuitous ARP for %s on %s: %w", addr, link.Name, err)
		}
		s.frames = append(s.frames, frames...)
	}
	// Protocol 0: the socket receives nothing.
	conn, err := packet.Listen(link, packet.Raw, 0, nil)
	if err != nil {
		return nil, fmt.Errorf("opening a packet socket on %s: %w", link.Name, err)
	}
	s.conn = conn
	return s, nil
}

// forwards reports whether the host is an IPv6 router, as its kernel says of itself when it is asked for an address.
func forwards(link *net.Interface) bool {
	text, err := os.ReadFile("/proc/sys/net/ipv6/conf/" + link.Name + "/forwarding")
	return err == nil && strings.TrimSpace(string(text)) != "0"
}

// Announce sends every frame once.
func (s *neighbours) Announce() error {
	var errs []error
	for _, f := range s.frames {
		_, err := s.conn.WriteTo(f, &packet.Addr{HardwareAddr: ethernet.Broadcast})
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Close closes the socket.
func (s *neighbours) Close() error { return s.conn.Close() }
