package vip

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/mdlayher/arp"
	"github.com/mdlayher/ethernet"
	"github.com/mdlayher/packet"
)

// arpSocket sends gratuitous ARP. Package arp's own client needs an address on the interface at Dial and keeps it; frames on
// a packet socket need none.
type arpSocket struct {
	conn   *packet.Conn
	frames [][]byte
}

func openARP(link *net.Interface, addrs []netip.Addr) (*arpSocket, error) {
	s := &arpSocket{}
	for _, addr := range addrs {
		for _, op := range []arp.Operation{arp.OperationRequest, arp.OperationReply} {
			f, err := gratuitous(op, link.HardwareAddr, addr)
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
func (s *arpSocket) Announce() error {
	var errs []error
	for _, f := range s.frames {
		_, err := s.conn.WriteTo(f, &packet.Addr{HardwareAddr: ethernet.Broadcast})
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Close closes the socket.
func (s *arpSocket) Close() error { return s.conn.Close() }
