package vip

import (
	"context"
	"errors"
	"fmt"
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

// open opens the edge in the namespace of the calling thread.
func open(cfg Config, h hearing) (edge, error) {
	link, err := net.InterfaceByName(cfg.Interface)
	if err != nil {
		return edge{}, fmt.Errorf("looking up interface %s: %w", cfg.Interface, err)
	}
	own, err := ownAddresses(link)
	if err != nil {
		return edge{}, err
	}
	primary, err := cfg.pickPrimary(own)
	if err != nil {
		return edge{}, err
	}
	w, err := openWire(link, primary, h)
	if err != nil {
		return edge{}, err
	}
	t, err := openTable(link, cfg.addrs())
	if err != nil {
		return edge{}, errors.Join(err, w.Close())
	}
	a, err := openARP(link, cfg.addrs())
	if err != nil {
		return edge{}, errors.Join(err, w.Close(), t.Close())
	}
	s, err := openRawSender(unix.AF_INET)
	if err != nil {
		return edge{}, errors.Join(err, w.Close(), t.Close(), a.Close())
	}
	closeAll := func() error { return errors.Join(w.Close(), t.Close(), a.Close(), s.Close()) }
	return edge{wire: w, table: t, announcer: a, tickler: s, primary: primary, close: closeAll}, nil
}

func ownAddresses(link *net.Interface) ([]netip.Prefix, error) {
	list, err := link.Addrs()
	if err != nil {
		return nil, fmt.Errorf("listing the addresses of %s: %w", link.Name, err)
	}
	var own []netip.Prefix
	for _, a := range list {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() {
			own = append(own, p)
		}
	}
	return own, nil
}

// rawWire is a raw IPv4 socket of protocol 112 on one interface.
type rawWire struct {
	conn   *ipv4.PacketConn
	raw    syscall.RawConn
	from   *ipv4.ControlMessage
	group  *net.IPAddr
	buffer []byte // of Receive
}

func openWire(link *net.Interface, primary netip.Addr, h hearing) (*rawWire, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return control(c, func(fd int) error {
			// Only joined groups, and only this interface: a raw socket gets everything of its protocol otherwise.
			return errors.Join(
				unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_ALL, 0),
				unix.BindToDevice(fd, link.Name))
		})
	}}
	c, err := lc.ListenPacket(context.Background(), fmt.Sprintf("ip4:%d", vrrp.Protocol), "0.0.0.0")
	if err != nil {
		return nil, fmt.Errorf("opening a raw socket for VRRP on %s: %w", link.Name, err)
	}
	w := &rawWire{
		conn:  ipv4.NewPacketConn(c),
		from:  &ipv4.ControlMessage{Src: primary.AsSlice(), IfIndex: link.Index},
		group: &net.IPAddr{IP: vrrp.Group4().AsSlice()},
		// Longer than an advertisement with 255 addresses and IP options.
		buffer: make([]byte, 2048),
	}
	if w.raw, err = c.(*net.IPConn).SyscallConn(); err == nil {
		err = w.configure(link, h)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("preparing the raw socket for VRRP on %s: %w", link.Name, err), c.Close())
	}
	return w, nil
}

func (w *rawWire) configure(link *net.Interface, h hearing) error {
	err := errors.Join(
		w.conn.SetMulticastInterface(link),
		w.conn.SetMulticastTTL(vrrp.TTL),
		w.conn.SetMulticastLoopback(false),
		w.conn.SetTOS(precedence))
	if err != nil {
		return err
	}
	if h == listening {
		return w.conn.JoinGroup(link, w.group)
	}
	nothing, err := bpf.Assemble([]bpf.Instruction{bpf.RetConstant{Val: 0}})
	if err != nil {
		return err
	}
	return w.conn.SetBPF(nothing)
}

// Send sends a message to the group.
func (w *rawWire) Send(message []byte) error {
	_, err := w.conn.WriteTo(message, w.from, w.group)
	return err
}

// Receive waits for a packet.
func (w *rawWire) Receive() (vrrp.Packet, vrrp.Reason, error) {
	var n int
	var err error
	waitErr := w.raw.Read(func(fd uintptr) bool {
		n, err = recv(int(fd), w.buffer)
		return !errors.Is(err, unix.EAGAIN)
	})
	if err := errors.Join(waitErr, err); err != nil {
		return vrrp.Packet{}, vrrp.Accepted, err
	}
	p, reason := parse(w.buffer[:n])
	return p, reason, nil
}

// Poll takes a packet that is in the socket's queue. Receive may be waiting at the same time.
func (w *rawWire) Poll() (vrrp.Packet, vrrp.Reason, bool) {
	buffer := make([]byte, len(w.buffer))
	var n int
	err := control(w.raw, func(fd int) error {
		var err error
		n, err = recv(fd, buffer)
		return err
	})
	if err != nil {
		return vrrp.Packet{}, vrrp.Accepted, false
	}
	p, reason := parse(buffer[:n])
	return p, reason, true
}

// Close closes the socket and wakes Receive.
func (w *rawWire) Close() error { return w.conn.Close() }

// parse copies what it returns: the buffer is used again.
func parse(b []byte) (vrrp.Packet, vrrp.Reason) {
	p, reason := vrrp.ParseIPv4(b)
	p.Payload = append([]byte(nil), p.Payload...)
	return p, reason
}

func recv(fd int, b []byte) (int, error) {
	for {
		n, _, err := unix.Recvfrom(fd, b, unix.MSG_DONTWAIT)
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
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
