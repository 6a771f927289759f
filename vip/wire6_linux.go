package vip

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/net/bpf"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"everboot/vip/vrrp"
)

// ipv6MulticastAll is IPV6_MULTICAST_ALL of linux/in6.h.
const ipv6MulticastAll = 29

// openWire6 opens a raw IPv6 socket of protocol 112 on one interface. It hands over no header: hop limit and destination come as
// control messages.
func openWire6(link *net.Interface, multicast bool, h hearing) (*rawWire, error) {
	c, err := openRaw("ip6", "::", link, func(fd int) error {
		return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, ipv6MulticastAll, 0)
	})
	if err != nil {
		return nil, err
	}
	conn := ipv6.NewPacketConn(c)
	group := &net.IPAddr{IP: vrrp.Group6().AsSlice()}
	err = errors.Join(
		conn.SetMulticastInterface(link),
		conn.SetMulticastHopLimit(vrrp.TTL),
		conn.SetHopLimit(vrrp.TTL),
		conn.SetMulticastLoopback(false),
		conn.SetTrafficClass(precedence),
		conn.SetControlMessage(ipv6.FlagHopLimit|ipv6.FlagDst, true))
	switch {
	case err == nil && h == listening && multicast:
		err = conn.JoinGroup(link, group)
	case err == nil && h == deaf:
		var nothing []bpf.RawInstruction
		if nothing, err = hearNothing(); err == nil {
			err = conn.SetBPF(nothing)
		}
	}
	send := func(message []byte, from, to netip.Addr) error {
		cm := &ipv6.ControlMessage{Src: from.AsSlice(), IfIndex: link.Index}
		_, err := conn.WriteTo(message, cm, &net.IPAddr{IP: to.AsSlice(), Zone: link.Name})
		return err
	}
	return newRawWire(c, link, send, recv6, err)
}

// recv6 takes a packet off a raw IPv6 socket.
func recv6(fd int, b []byte) (vrrp.Packet, vrrp.Reason, error) {
	var control [128]byte
	for {
		n, controlLen, flags, from, err := unix.Recvmsg(fd, b, control[:], unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return vrrp.Packet{}, vrrp.Accepted, err
		}
		p := vrrp.Packet{Payload: append([]byte(nil), b[:n]...)}
		if sa, ok := from.(*unix.SockaddrInet6); ok {
			p.Source = netip.AddrFrom16(sa.Addr)
		}
		if flags&unix.MSG_TRUNC != 0 || !readControl(&p, control[:controlLen]) {
			return vrrp.Packet{}, vrrp.BadLength, nil
		}
		return p, vrrp.Accepted, nil
	}
}

// readControl fills in what the kernel says beside the payload, and reports whether it said all.
func readControl(p *vrrp.Packet, control []byte) bool {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return false
	}
	seen := 0
	for _, m := range messages {
		switch {
		case m.Header.Level != unix.IPPROTO_IPV6:
		case m.Header.Type == unix.IPV6_HOPLIMIT && len(m.Data) >= 4:
			p.TTL = uint8(binary.NativeEndian.Uint32(m.Data))
			seen++
		case m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= 16:
			p.Destination = netip.AddrFrom16([16]byte(m.Data[:16]))
			seen++
		}
	}
	return seen == 2
}

// openRaw opens a raw socket of VRRP that hears joined groups only, and this interface only: otherwise it would get everything of
// its protocol.
func openRaw(family, address string, link *net.Interface, set func(fd int) error) (*net.IPConn, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return control(c, func(fd int) error { return errors.Join(set(fd), unix.BindToDevice(fd, link.Name)) })
	}}
	c, err := lc.ListenPacket(context.Background(), fmt.Sprintf("%s:%d", family, vrrp.Protocol), address)
	if err != nil {
		return nil, fmt.Errorf("opening a raw socket for VRRP on %s: %w", link.Name, err)
	}
	return c.(*net.IPConn), nil
}
