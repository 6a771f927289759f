package vip

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/net/bpf"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"everboot/vip/vrrp"
)

// hearing says whether a socket takes packets in.
type hearing bool

const (
	listening hearing = true
	deaf      hearing = false // sends only; nothing piles up in its queue
)

// precedence marks advertisements as "internetwork control" (RFC 791 §3.1), as keepalived does, so that queues favour them.
const precedence = 0xc0

// open opens the rest of the edge in the namespace of the calling thread. The wire becomes part of it, and is closed if that fails.
func open(cfg Config, w sharedWire) (edge, error) {
	var opened closers
	opened.add(w)
	e := edge{wire: w, close: opened.Close}
	if len(cfg.Key) > 0 {
		e.auth, e.counter = vrrp.NewAuth(cfg.Key), cfg.Counter
		if e.counter == nil {
			e.counter = newCounter()
		}
	}
	fail := func(err error) (edge, error) { return edge{}, errors.Join(err, e.close()) }
	link, err := net.InterfaceByName(cfg.Interface)
	if err != nil {
		return fail(fmt.Errorf("looking up interface %s: %w", cfg.Interface, err))
	}
	own, err := ownAddresses(link, cfg.is6())
	if err != nil {
		return fail(err)
	}
	if e.primary, err = cfg.pickPrimary(own); err != nil {
		return fail(err)
	}
	t, err := openTable(link, cfg.addrs())
	if err != nil {
		return fail(err)
	}
	if e.table = t; cfg.VirtualMAC {
		v := openVirtualTable(link, cfg, t)
		e.table = v
		opened.add(v)
	} else {
		opened.add(t)
	}
	a, err := openNeighbours(link, cfg.hardware(link), cfg.addrs())
	if err != nil {
		return fail(err)
	}
	e.announcer = a
	opened.add(a)
	if cfg.VirtualMAC {
		e.owners = virtualSender{a.conn, cfg.hardware(link)}
	}
	family := unix.AF_INET
	if cfg.is6() {
		family = unix.AF_INET6
	}
	s, err := openRawSender(family)
	if err != nil {
		return fail(err)
	}
	e.tickler = s
	opened.add(s)
	return e, nil
}

// closers are what is open, to be closed together.
type closers []io.Closer

func (c *closers) add(o io.Closer) { *c = append(*c, o) }

// Close closes all of them.
func (c *closers) Close() error {
	var errs []error
	for _, o := range *c {
		errs = append(errs, o.Close())
	}
	return errors.Join(errs...)
}

// ownAddresses returns the addresses of one family that an interface has.
func ownAddresses(link *net.Interface, six bool) ([]netip.Prefix, error) {
	list, err := link.Addrs()
	if err != nil {
		return nil, fmt.Errorf("listing the addresses of %s: %w", link.Name, err)
	}
	var own []netip.Prefix
	for _, a := range list {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is6() == six {
			own = append(own, p)
		}
	}
	return own, nil
}

// rawWire is a raw socket of protocol 112 on one interface.
type rawWire struct {
	conn   *net.IPConn
	raw    syscall.RawConn
	send   func(message []byte, from, to netip.Addr) error
	recv   func(fd int, b []byte) (vrrp.Packet, vrrp.Reason, error)
	buffer []byte // of Receive
}

func openWire(link *net.Interface, cfg Config, h hearing) (*rawWire, error) {
	multicast := len(cfg.Peers) == 0
	if cfg.is6() {
		return openWire6(link, multicast, h)
	}
	return openWire4(link, multicast, h)
}

func openWire4(link *net.Interface, multicast bool, h hearing) (*rawWire, error) {
	c, err := openRaw("ip4", "0.0.0.0", link, func(fd int) error {
		return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_ALL, 0)
	})
	if err != nil {
		return nil, err
	}
	conn := ipv4.NewPacketConn(c)
	err = errors.Join(
		conn.SetMulticastInterface(link),
		conn.SetMulticastTTL(vrrp.TTL),
		conn.SetTTL(vrrp.TTL),
		conn.SetMulticastLoopback(false),
		conn.SetTOS(precedence))
	switch {
	case err == nil && h == listening && multicast:
		err = conn.JoinGroup(link, &net.IPAddr{IP: vrrp.Group4().AsSlice()})
	case err == nil && h == deaf:
		var nothing []bpf.RawInstruction
		if nothing, err = hearNothing(); err == nil {
			err = conn.SetBPF(nothing)
		}
	}
	send := func(message []byte, from, to netip.Addr) error {
		cm := &ipv4.ControlMessage{Src: from.AsSlice(), IfIndex: link.Index}
		_, err := conn.WriteTo(message, cm, &net.IPAddr{IP: to.AsSlice()})
		return err
	}
	return newRawWire(c, link, send, recv4, err)
}

// newRawWire finishes a socket that was prepared, or closes it if that failed.
func newRawWire(c *net.IPConn, link *net.Interface, send func([]byte, netip.Addr, netip.Addr) error,
	recv func(int, []byte) (vrrp.Packet, vrrp.Reason, error), err error) (*rawWire, error) {
	// The buffer is longer than an advertisement with 255 IPv4 addresses and IP options, or with 100 of IPv6, which is what fits
	// into a frame.
	w := &rawWire{conn: c, send: send, recv: recv, buffer: make([]byte, 2048)}
	if err == nil {
		w.raw, err = c.SyscallConn()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("preparing the raw socket for VRRP on %s: %w", link.Name, err), c.Close())
	}
	return w, nil
}

// hearNothing is a filter that lets no packet in.
func hearNothing() ([]bpf.RawInstruction, error) {
	return bpf.Assemble([]bpf.Instruction{bpf.RetConstant{Val: 0}})
}

// Send sends a message.
func (w *rawWire) Send(message []byte, from, to netip.Addr) error { return w.send(message, from, to) }

// Receive waits for a packet.
func (w *rawWire) Receive() (p vrrp.Packet, reason vrrp.Reason, err error) {
	waitErr := w.raw.Read(func(fd uintptr) bool {
		p, reason, err = w.recv(int(fd), w.buffer)
		return !errors.Is(err, unix.EAGAIN)
	})
	return p, reason, errors.Join(waitErr, err)
}

// Poll takes a packet that is in the socket's queue. Receive may be waiting at the same time.
func (w *rawWire) Poll() (p vrrp.Packet, reason vrrp.Reason, ok bool) {
	buffer := make([]byte, len(w.buffer))
	err := control(w.raw, func(fd int) error {
		var err error
		p, reason, err = w.recv(fd, buffer)
		return err
	})
	return p, reason, err == nil
}

// Close closes the socket and wakes Receive.
func (w *rawWire) Close() error { return w.conn.Close() }

// recv4 takes a packet off a raw IPv4 socket, which hands it over header first. It copies what it returns: the buffer is used
// again.
func recv4(fd int, b []byte) (vrrp.Packet, vrrp.Reason, error) {
	for {
		n, _, err := unix.Recvfrom(fd, b, unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return vrrp.Packet{}, vrrp.Accepted, err
		}
		p, reason := vrrp.ParseIPv4(b[:n])
		p.Payload = append([]byte(nil), p.Payload...)
		return p, reason, nil
	}
}

// control calls f with the file descriptor and returns its error.
func control(c syscall.RawConn, f func(fd int) error) error {
	var inner error
	if err := c.Control(func(fd uintptr) { inner = f(int(fd)) }); err != nil {
		return err
	}
	return inner
}
