package tftpload

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"everboot/tftp/wire"
)

// client reads one file after another, each from a port of its own.
type client struct {
	load     *load
	number   int
	firmware Firmware
	left     int

	fd     int
	open   bool
	locked bool // the server's port is known: firmware takes packets from nowhere else
	block  int
	window int
	have   uint64 // blocks that came in order
	since  int    // of them, after the last ACK
	last   []byte // packet sent last
	tries  int
	sentAt time.Time
	heard  time.Time
	ack    [4]byte
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

// begin opens a port and asks for the file.
func (c *client) begin() error {
	o := &c.load.o
	family := unix.AF_INET
	if o.Server.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	c.fd, c.open, c.locked = fd, true, false
	c.block, c.window, c.have, c.since, c.tries = wire.DefaultBlock, 1, 0, 0, 0
	if len(o.From) > 0 {
		if err := unix.Bind(fd, sockaddr(netip.AddrPortFrom(o.From[c.number%len(o.From)], 0))); err != nil {
			return fmt.Errorf("binding %v: %w", o.From[c.number%len(o.From)], err)
		}
	}
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(c.number)}
	if err := unix.EpollCtl(c.load.epoll, unix.EPOLL_CTL_ADD, fd, &event); err != nil {
		return err
	}
	c.load.running++
	c.last = binary.BigEndian.AppendUint16(nil, uint16(wire.OpRead))
	words := []string{o.File, "octet"}
	if o.Block > 0 {
		words = append(words, "tsize", "0", "blksize", strconv.Itoa(o.Block))
	}
	if o.Window > 0 {
		words = append(words, "windowsize", strconv.Itoa(o.Window))
	}
	for _, w := range words {
		c.last = append(append(c.last, w...), 0)
	}
	c.heard = c.load.now
	return c.send()
}

func (c *client) send() error {
	c.sentAt = c.load.now
	if !c.locked {
		return unix.Sendto(c.fd, c.last, 0, sockaddr(c.load.o.Server))
	}
	_, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(c.fd), ptr(c.last), uintptr(len(c.last)))
	if errno == unix.ECONNREFUSED {
		c.refused()
	}
	return nil // whatever else it is, the packet counts as lost
}

// refused is an ICMP error.
func (c *client) refused() {
	c.load.result.Refused++
	if c.firmware == EDK2 {
		c.fail("ICMP: port unreachable")
	}
}

func (c *client) close() {
	if c.open {
		unix.Close(c.fd)
		c.open = false
		c.load.running--
	}
}

func (c *client) fail(why string) {
	if !c.open {
		return
	}
	c.load.result.Failed++
	c.load.result.Why[why]++
	c.left = 0
	c.close()
}

// readable takes everything that is there, a window at most.
func (c *client) readable() {
	for range max(c.window, 1) {
		if !c.open {
			return
		}
		p := c.load.packet
		n, _, errno := uintptr(0), uintptr(0), unix.Errno(0)
		if c.locked {
			n, _, errno = unix.RawSyscall(unix.SYS_READ, uintptr(c.fd), ptr(p), uintptr(len(p)))
		} else {
			errno = c.lock(&n)
		}
		if errno == unix.ECONNREFUSED {
			c.refused()
			return
		}
		if errno != 0 {
			return
		}
		c.received(p[:n])
	}
}

// lock takes the first packet, and from then on only what comes from where it came from.
func (c *client) lock(n *uintptr) unix.Errno {
	got, from, err := unix.Recvfrom(c.fd, c.load.packet, 0)
	if err != nil {
		errno, _ := err.(unix.Errno)
		return max(errno, 1)
	}
	if wire.ParseOpcode(c.load.packet[:got]) != wire.OpError {
		if err := unix.Connect(c.fd, from); err != nil {
			c.fail("connecting: " + err.Error())
		}
		c.locked = true
	}
	*n = uintptr(got)
	return 0
}

func (c *client) received(p []byte) {
	if silent := c.load.now.Sub(c.heard); silent > c.load.result.Silence {
		c.load.result.Silence = silent
	}
	c.heard, c.tries = c.load.now, 0
	switch wire.ParseOpcode(p) {
	case wire.OpData:
		if len(p) >= wire.HeaderSize {
			c.data(binary.BigEndian.Uint16(p[2:]), p[wire.HeaderSize:])
		}
	case wire.OpOAck:
		if c.have == 0 {
			c.options(p[2:])
			c.acknowledge()
		}
	case wire.OpError:
		_, text, _ := wire.ParseError(p)
		c.fail("ERROR: " + text)
	}
}

func (c *client) options(p []byte) {
	words := bytes.Split(p, []byte{0})
	for i := 0; i+1 < len(words); i += 2 {
		n, _ := strconv.Atoi(string(words[i+1]))
		switch string(bytes.ToLower(words[i])) {
		case "blksize":
			c.block = n
		case "windowsize":
			c.window = n
		}
	}
}

func (c *client) data(number uint16, content []byte) {
	if number != uint16(c.have+1) {
		// Both say what they have, when a block comes that is not the next.
		c.acknowledge()
		return
	}
	want := c.load.o.Want
	from := min(int64(c.have)*int64(c.block), int64(len(want)))
	to := min(from+int64(c.block), int64(len(want)))
	if !bytes.Equal(content, want[from:to]) {
		c.fail(fmt.Sprintf("block %d has other bytes", c.have+1))
		return
	}
	c.have++
	c.since++
	c.load.result.Bytes += int64(len(content))
	last := len(content) < c.block
	if c.since >= c.window || last {
		c.acknowledge()
	}
	if !last {
		return
	}
	c.load.result.Complete++
	c.close()
	if c.left--; c.left > 0 {
		if err := c.begin(); err != nil {
			c.fail("again: " + err.Error())
		}
	}
}

func (c *client) acknowledge() {
	c.since = 0
	binary.BigEndian.PutUint16(c.ack[:], uint16(wire.OpAck))
	binary.BigEndian.PutUint16(c.ack[2:], uint16(c.have))
	c.last = c.ack[:]
	_ = c.send() // lost, if not
}

// tick sends again what nobody answered.
func (c *client) tick() {
	if !c.open {
		return
	}
	wait := c.firmware.wait(c.tries)
	if wait == 0 {
		c.fail("silence")
		return
	}
	if c.load.now.Sub(c.sentAt) < wait {
		return
	}
	c.tries++
	c.load.result.Resent++
	if err := c.send(); err != nil {
		c.fail(err.Error())
	}
}
