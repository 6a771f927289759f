package vip

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/mdlayher/arp"
	"github.com/mdlayher/ethernet"
	"github.com/mdlayher/packet"
)

// neighbours sends gratuitous ARP and unsolicited neighbour advertisements. Package arp's own client needs an address on the interface at
// Dial and keeps it; frames on a packet socket need none.
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
		for _, op := range []arp.Operation{arp.OperationRequest, arp.OperationReply} {
			f, err := gratuitous(op, mac, addr)
			if err != nil {
				return nil, fmt.Errorf("making gratuitous ARP for %s on %s: %w", addr, link.Name, err)
			}
			s.frames = append(s.frames, f)
		}
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

// gratuitous returns the frame that tells everybody that addr is at mac. Some devices heed only the request form, some only
// the reply. The target's hardware address is nothing in a request (RFC 5227 §2.3), the sender's in a reply (RFC 5944 §4.6).
func gratuitous(op arp.Operation, mac net.HardwareAddr, addr netip.Addr) ([]byte, error) {
	target := mac
	if op == arp.OperationRequest {
		target = make(net.HardwareAddr, len(mac))
	}
	p, err := arp.NewPacket(op, mac, addr, target, addr)
	if err != nil {
		return nil, err
	}
	payload, err := p.MarshalBinary()
	if err != nil {
		return nil, err
	}
	f := ethernet.Frame{Destination: ethernet.Broadcast, Source: mac, EtherType: ethernet.EtherTypeARP, Payload: payload}
	return f.MarshalBinary()
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
