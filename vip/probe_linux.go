package vip

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"github.com/mdlayher/arp"
	"github.com/mdlayher/ethernet"
	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// arpProber sends ARP probes and reads all ARP of the segment from the first of them on.
type arpProber struct {
	conn    *packet.Conn
	own     net.HardwareAddr
	addrs   []netip.Addr
	frames  [][]byte
	hearing bool
	buffer  [ethernetHeader + arpLen]byte // of Answer; what is longer is cut off
	close   func() error
}

// openProber opens the socket. It hears nothing yet: what was said before the router starts may not be true any more.
func openProber(link *net.Interface, addrs []netip.Addr) (*arpProber, error) {
	p := &arpProber{own: link.HardwareAddr, addrs: addrs}
	for _, addr := range addrs {
		f, err := arpProbe(link.HardwareAddr, addr)
		if err != nil {
			return nil, fmt.Errorf("making an ARP probe for %s on %s: %w", addr, link.Name, err)
		}
		p.frames = append(p.frames, f)
	}
	nothing, err := hearNothing()
	if err != nil {
		return nil, err
	}
	if p.conn, err = packet.Listen(link, packet.Raw, unix.ETH_P_ARP, &packet.Config{Filter: nothing}); err != nil {
		return nil, fmt.Errorf("opening a packet socket for ARP on %s: %w", link.Name, err)
	}
	p.close = sync.OnceValue(p.conn.Close)
	return p, nil
}

// arpProbe returns the frame that asks who has addr without saying that we do (RFC 5227 §2.1.1): its sender's address is zero, so that
// nobody learns anything from it, and so that a proxy does not answer for others.
func arpProbe(mac net.HardwareAddr, addr netip.Addr) ([]byte, error) {
	p, err := arp.NewPacket(arp.OperationRequest, mac, netip.IPv4Unspecified(), make(net.HardwareAddr, len(mac)), addr)
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

// Probe implements prober.
func (p *arpProber) Probe() error {
	if !p.hearing {
		all, err := bpf.Assemble([]bpf.Instruction{bpf.RetConstant{Val: uint32(len(p.buffer))}})
		if err == nil {
			err = p.conn.SetBPF(all)
		}
		if err != nil {
			return err
		}
		p.hearing = true
	}
	var errs []error
	for _, f := range p.frames {
		_, err := p.conn.WriteTo(f, &packet.Addr{HardwareAddr: ethernet.Broadcast})
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Answer implements prober.
func (p *arpProber) Answer() (holder, bool) {
	for {
		n, _, err := p.conn.ReadFrom(p.buffer[:])
		if errors.Is(err, unix.ENETDOWN) {
			continue // said once when the interface goes down; it may come back
		}
		if err != nil {
			return holder{}, false
		}
		if h, ok := holderOf(p.buffer[:n], p.own, p.addrs); ok {
			return h, true
		}
	}
}

// Close implements prober.
func (p *arpProber) Close() error { return p.close() }
