package vip

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"time"

	"everboot/vip/vrrp"
)

// prober asks the neighbours who has the floating addresses.
type prober interface {
	// Probe asks once for each address.
	Probe() error
	// Answer waits for somebody who has one; false: the prober is closed.
	Answer() (holder, bool)
	// Close ends Answer. It may be called again.
	Close() error
}

// holder is another host that has one of the floating addresses.
type holder struct {
	addr netip.Addr
	mac  net.HardwareAddr
}

// Lengths and places in an ARP packet for IPv4 on Ethernet (RFC 826), the frame's header before it.
const (
	ethernetHeader = 14
	arpLen         = 28
	arpSenderMAC   = 8
	arpSenderIP    = 14
)

// arpKind is how each such packet begins: hardware and protocol type, the lengths of both addresses.
var arpKind = []byte{0, 1, 8, 0, 6, 4}

// holderOf reads a frame. Whoever says in any ARP packet that one of the addresses is at a hardware address other than ours has it (RFC
// 5227 §2.1.1). One that only probes for it, as another router of the group does that starts at the same time, has not.
func holderOf(frame []byte, own net.HardwareAddr, addrs []netip.Addr) (holder, bool) {
	if len(frame) < ethernetHeader+arpLen || binary.BigEndian.Uint16(frame[12:]) != 0x0806 {
		return holder{}, false
	}
	p := frame[ethernetHeader:]
	h := holder{addr: netip.AddrFrom4([4]byte(p[arpSenderIP:])), mac: bytes.Clone(p[arpSenderMAC:arpSenderIP])}
	if !bytes.HasPrefix(p, arpKind) || bytes.Equal(h.mac, own) || !slices.Contains(addrs, h.addr) {
		return holder{}, false
	}
	return h, true
}

// hearHolders is the goroutine that waits for answers. It ends when the prober is closed.
func (r *Router) hearHolders(done chan<- struct{}) {
	defer close(done)
	for r.edge.probes != nil {
		h, ok := r.edge.probes.Answer()
		if !ok {
			return
		}
		select {
		case r.holders <- h:
		default: // one is waiting already
		}
	}
}

// heardHolder is what follows from an answer.
func (r *Router) heardHolder(h holder) {
	if r.machine.Probing() {
		r.holder = h
		r.step(vrrp.AddressesInUse{})
	}
}

// ask asks for the addresses now, and once more half way to the claim, for the first may be lost.
func (r *Router) ask(p vrrp.Probe) {
	if p.PutOff {
		r.board.change(func(s *Status) { s.Odd[InUse]++ })
		if !r.told[InUse] {
			r.told[InUse] = true
			r.log.Error("another host has a floating address, and no advertisement of it is heard; it is not claimed while it answers", "address", r.holder.addr, "at", r.holder.mac.String())
		}
	}
	r.probe()
	if deadline := r.machine.Deadline(); !deadline.IsZero() {
		r.probeAt = time.Now().Add(time.Until(deadline) / 2)
	}
}

func (r *Router) probe() {
	r.probeAt = time.Time{}
	if r.edge.probes == nil || !r.machine.Probing() {
		return
	}
	if err := r.edge.probes.Probe(); err != nil {
		r.log.Warn("asking for the addresses", "error", err)
	}
}

// endProbing closes the prober as soon as answers do not count any more: it would go on reading what others say.
func (r *Router) endProbing() {
	if r.edge.probes == nil || r.machine.Probing() {
		return
	}
	if err := r.edge.probes.Close(); err != nil {
		r.log.Warn("closing the socket for probes", "error", err)
	}
}
