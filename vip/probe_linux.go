package vip

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"everboot/internal/arpframe"

	"github.com/mdlayher/ethernet"
	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// neighbourProber sends ARP probes or neighbour solicitations, and reads the answers on the segment from the first of them on.
type neighbourProber struct {
	conn    *packet.Conn
	own     net.HardwareAddr
	addrs   []netip.Addr
	frames  [][]byte
	answers []bpf.Instruction // the filter that lets them in
	read    func(frame []byte, own net.HardwareAddr, addrs []netip.Addr) (holder, bool)
	hearing bool
	buffer  [probeLen]byte // of Answer
	close   func() error
}

// probeLen is as much of a frame as either kind of answer needs; what is longer is cut off.
const probeLen = icmpAt + icmpLen

// openProber opens the socket. It hears nothing yet: what was said before the router starts may not be true any more.
func openProber(link *net.Interface, addrs []netip.Addr) (*neighbourProber, error) {
	p := &neighbourProber{own: link.HardwareAddr, addrs: addrs, read: holderOf, answers: []bpf.Instruction{bpf.RetConstant{Val: probeLen}}}
	protocol := unix.ETH_P_ARP
	if addrs[0].Is6() {
		protocol, p.read, p.answers = unix.ETH_P_IPV6, holderOf6, advertisementsOnly()
	}
	for _, addr := range addrs {
		if addr.Is6() {
			p.frames = append(p.frames, solicitation(link.HardwareAddr, addr))
			continue
		}
		f, err := arpframe.Probe(link.HardwareAddr, addr)
		if err != nil {
			return nil, fmt.Errorf("making an ARP probe for %s on %s: %w", addr, link.Name, err)
		}
		p.frames = append(p.frames, f)
	}
	nothing, err := hearNothing()
	if err != nil {
		return nil, err
	}
	if p.conn, err = packet.Listen(link, packet.Raw, protocol, &packet.Config{Filter: nothing}); err != nil {
		return nil, fmt.Errorf("opening a packet socket for probes on %s: %w", link.Name, err)
	}
	p.close = sync.OnceValue(p.conn.Close)
	return p, nil
}

// advertisementsOnly lets no other IPv6 in than neighbour advertisements: there may be much of it.
func advertisementsOnly() []bpf.Instruction {
	return []bpf.Instruction{
		bpf.LoadAbsolute{Off: nextHeaderAt, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: icmpv6, SkipTrue: 3},
		bpf.LoadAbsolute{Off: icmpAt, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: neighbourAdvertisement, SkipTrue: 1},
		bpf.RetConstant{Val: probeLen},
		bpf.RetConstant{Val: 0},
	}
}

// Probe implements prober.
func (p *neighbourProber) Probe() error {
	if !p.hearing {
		all, err := bpf.Assemble(p.answers)
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
func (p *neighbourProber) Answer() (holder, bool) {
	for {
		n, _, err := p.conn.ReadFrom(p.buffer[:])
		if errors.Is(err, unix.ENETDOWN) {
			continue // said once when the interface goes down; it may come back
		}
		if err != nil {
			return holder{}, false
		}
		if h, ok := p.read(p.buffer[:n], p.own, p.addrs); ok {
			return h, true
		}
	}
}

// Close implements prober.
func (p *neighbourProber) Close() error { return p.close() }
