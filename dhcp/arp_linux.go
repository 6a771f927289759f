package dhcp

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"everboot/internal/arpframe"
	"everboot/site"

	eth "github.com/mdlayher/ethernet"
	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"
)

// arpSocket sends ARP probes and hears all ARP of the segment.
type arpSocket struct {
	conn *packet.Conn
	own  net.HardwareAddr
	done chan struct{}
}

// listenARP opens a socket in the network namespace of the calling thread and calls seen for each machine that says that it has an address, until
// it is closed.
func listenARP(link string, seen func(netip.Addr, site.MAC)) (prober, error) {
	iface, err := net.InterfaceByName(link)
	if err != nil {
		return nil, noInterface(link)
	}
	conn, err := packet.Listen(iface, packet.Raw, unix.ETH_P_ARP, nil)
	if err != nil {
		return nil, fmt.Errorf("opening a packet socket for ARP on %s: %w", link, err)
	}
	s := &arpSocket{conn, iface.HardwareAddr, make(chan struct{})}
	go s.read(seen)
	return s, nil
}

// Probe implements prober.
func (s *arpSocket) Probe(a netip.Addr) error {
	b, err := arpframe.Probe(s.own, a)
	if err != nil {
		return err
	}
	_, err = s.conn.WriteTo(b, &packet.Addr{HardwareAddr: eth.Broadcast})
	return err
}

// arpFrame is an Ethernet header and ARP for IPv4 (RFC 826).
const arpFrame = 14 + 28

func (s *arpSocket) read(seen func(netip.Addr, site.MAC)) {
	defer close(s.done)
	b := make([]byte, arpFrame)
	for {
		n, _, err := s.conn.ReadFrom(b)
		if err != nil {
			return // closed, or the interface went away, which the others notice
		}
		// Hardware Ethernet, protocol IPv4, and the lengths of their addresses.
		if n < arpFrame || binary.BigEndian.Uint64(b[14:])>>16 != 0x0001_0800_0604 {
			continue
		}
		if a := netip.AddrFrom4([4]byte(b[28:32])); !a.IsUnspecified() {
			seen(a, site.MAC(b[22:28]))
		}
	}
}

// Close implements prober.
func (s *arpSocket) Close() {
	s.conn.Close()
	<-s.done
}
