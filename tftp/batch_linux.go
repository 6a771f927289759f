package tftp

import (
	"encoding/binary"
	"net/netip"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"everboot/tftp/wire"
)

const (
	// batch is how many datagrams one system call takes or gives at most.
	batch = 128
	// maxPacket is more than any honest client sends: a request fits 512 bytes (RFC 2347).
	maxPacket = 1024
	// maxPieces is the kernel's most pieces in one datagram, and in ours: two a block.
	maxPieces = 1024
	// gsoBytes and gsoBlocks are the kernel's most for one send that it cuts into datagrams (UDP_SEGMENT).
	gsoBytes, gsoBlocks = 65000, 64
	// fullTimeout is how long a full send queue is waited for; then what is left counts as lost on the way.
	fullTimeout = 10 * time.Millisecond
	// controlSize holds both kinds of packet information, of which a socket of both protocols tells each for IPv4.
	controlSize = 80
)

// mmsghdr is the kernel's (recvmmsg(2)); x/sys has none.
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
	_   [4]byte
}

// endpoints are the two ends of a transfer. IPv4 addresses are mapped into IPv6.
type endpoints struct {
	remote, local [16]byte
	port          uint16 // of the client
	zone          uint32 // of a link-local client
}

// Client returns the client's address and port.
func (e *endpoints) client() netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom16(e.remote).Unmap(), e.port)
}

func (e *endpoints) server() netip.Addr { return netip.AddrFrom16(e.local).Unmap() }

// arrival is a datagram that came in. Its bytes are valid until the next receive.
type arrival struct {
	ends    endpoints
	payload []byte
	// group tells that it was sent to a broadcast or multicast address.
	group bool
	cut   bool // longer than maxPacket
}

// receiver reads many datagrams with one system call.
type receiver struct {
	messages [batch]mmsghdr
	pieces   [batch]unix.Iovec
	names    [batch]unix.RawSockaddrInet6
	control  [batch][controlSize]byte
	data     [batch][maxPacket]byte
	used     int // messages that the last receive wrote to
}

func newReceiver() *receiver {
	r := &receiver{used: batch}
	for i := range r.messages {
		r.pieces[i].Base = &r.data[i][0]
		r.pieces[i].SetLen(maxPacket)
		h := &r.messages[i].hdr
		h.Name = (*byte)(unsafe.Pointer(&r.names[i]))
		h.Iov = &r.pieces[i]
		h.SetIovlen(1)
		h.Control = &r.control[i][0]
	}
	return r
}

// receive returns how many datagrams are there; it does not wait.
func (r *receiver) receive(s *socket) int {
	for i := range r.used {
		h := &r.messages[i].hdr
		h.Namelen = unix.SizeofSockaddrInet6
		h.SetControllen(controlSize)
	}
	n, _, errno := syscall.RawSyscall6(unix.SYS_RECVMMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&r.messages[0])), batch, unix.MSG_DONTWAIT, 0, 0)
	if r.used = int(n); errno != 0 {
		r.used = 1
		return 0 // nothing there, or an error of an earlier send: the next call goes on
	}
	return int(n)
}

// at returns a datagram of the last receive.
func (r *receiver) at(i int, six bool) (a arrival) {
	m := &r.messages[i]
	a.payload, a.cut = r.data[i][:m.n], m.hdr.Flags&unix.MSG_TRUNC != 0
	name := &r.names[i]
	a.ends.port = ntohs(name.Port)
	control := r.control[i][:m.hdr.Controllen]
	if six {
		a.ends.remote, a.ends.zone = name.Addr, name.Scope_id
		if info := control[min(len(control), unix.SizeofCmsghdr):]; len(info) >= 16 {
			a.ends.local = [16]byte(info)
		}
		a.group = a.ends.local[0] == 0xff
		if four := control[min(len(control), bothInfo):]; len(four) >= unix.SizeofInet4Pktinfo {
			a.group = [4]byte(four[4:8]) != [4]byte(four[8:12])
		}
		return a
	}
	four := (*unix.RawSockaddrInet4)(unsafe.Pointer(name))
	a.ends.remote = mapped(four.Addr)
	if info := control[min(len(control), unix.SizeofCmsghdr):]; len(info) >= unix.SizeofInet4Pktinfo {
		a.ends.local = mapped([4]byte(info[4:8])) // ipi_spec_dst: where an answer leaves from
		a.group = [4]byte(info[4:8]) != [4]byte(info[8:12])
	}
	return a
}

// bothInfo is where IP_PKTINFO is behind IPV6_PKTINFO (a header, 20 bytes, both in words of 8) and its own header.
const bothInfo = unix.SizeofCmsghdr + (unix.SizeofInet6Pktinfo+7)&^7 + unix.SizeofCmsghdr

func mapped(a [4]byte) [16]byte {
	return [16]byte{10: 0xff, 11: 0xff, 12: a[0], 13: a[1], 14: a[2], 15: a[3]}
}

func ntohs(n uint16) uint16 { return n<<8 | n>>8 } // both machines that Linux and Go share with firmware are little endian

// route is where a transfer's datagrams go to and come from, as the kernel wants to be told.
type route struct {
	name    unix.RawSockaddrInet6 // the first field: see routeOf
	nameLen uint32
	// control is the local address, and behind it the size of the blocks that one send is cut into.
	control  [controlSize]byte
	plainLen int // without the size
	gsoLen   int // with it; 0: none
}

func newRoute(e *endpoints, six bool) (r route) {
	info := (*unix.Cmsghdr)(unsafe.Pointer(&r.control[0]))
	if six {
		r.name = unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: ntohs(e.port), Addr: e.remote, Scope_id: e.zone}
		r.nameLen = unix.SizeofSockaddrInet6
		info.Level, info.Type = unix.IPPROTO_IPV6, unix.IPV6_PKTINFO
		info.SetLen(unix.CmsgLen(unix.SizeofInet6Pktinfo))
		copy(r.control[unix.SizeofCmsghdr:], e.local[:])
		r.plainLen = unix.CmsgSpace(unix.SizeofInet6Pktinfo)
		return r
	}
	four := (*unix.RawSockaddrInet4)(unsafe.Pointer(&r.name))
	*four = unix.RawSockaddrInet4{Family: unix.AF_INET, Port: ntohs(e.port), Addr: [4]byte(e.remote[12:])}
	r.nameLen = unix.SizeofSockaddrInet4
	info.Level, info.Type = unix.IPPROTO_IP, unix.IP_PKTINFO
	info.SetLen(unix.CmsgLen(unix.SizeofInet4Pktinfo))
	copy(r.control[unix.SizeofCmsghdr+4:], e.local[12:])
	r.plainLen = unix.CmsgSpace(unix.SizeofInet4Pktinfo)
	return r
}

// segment makes one send carry many blocks of the size.
func (r *route) segment(size int) {
	h := (*unix.Cmsghdr)(unsafe.Pointer(&r.control[r.plainLen]))
	h.Level, h.Type = unix.IPPROTO_UDP, unix.UDP_SEGMENT
	h.SetLen(unix.CmsgLen(2))
	binary.NativeEndian.PutUint16(r.control[r.plainLen+unix.SizeofCmsghdr:], uint16(size))
	r.gsoLen = r.plainLen + unix.CmsgSpace(2)
}

// sender collects datagrams for one system call. What it points at must stay until flush.
type sender struct {
	socket   *socket
	messages [batch]mmsghdr
	pieces   [maxPieces]unix.Iovec
	headers  [maxPieces][wire.HeaderSize]byte
	count    int    // of messages
	used     int    // of pieces
	blocks   int    // of headers
	noGSO    bool   // the kernel or the interface's driver cannot
	failed   uint64 // sends that the kernel did not take: they count as lost on the way
}

// packet sends one datagram.
func (s *sender) packet(to *socket, r *route, p []byte) {
	h := s.message(to, r, 1)
	s.piece(p)
	h.SetIovlen(1)
}

// message begins a datagram of so many pieces.
func (s *sender) message(to *socket, r *route, pieces int) *unix.Msghdr {
	if s.socket != to || s.count == batch || s.used+pieces > maxPieces {
		s.flush()
		s.socket = to
	}
	h := &s.messages[s.count].hdr
	s.count++
	h.Name, h.Namelen = (*byte)(unsafe.Pointer(&r.name)), r.nameLen
	h.Iov = &s.pieces[s.used]
	h.Control = &r.control[0]
	h.SetControllen(r.plainLen)
	return h
}

func (s *sender) piece(p []byte) {
	v := &s.pieces[s.used]
	s.used++
	v.Base = unsafe.SliceData(p)
	v.SetLen(len(p))
}

// data sends the blocks first to first+count-1 of content, in as few sends as can be.
func (s *sender) data(to *socket, r *route, content []byte, block int, first uint64, count int) {
	for count > 0 {
		n := 1
		if r.gsoLen > 0 && !s.noGSO {
			n = min(count, gsoBlocks, max(gsoBytes/(block+wire.HeaderSize), 1))
		}
		h := s.message(to, r, 2*n)
		if n > 1 {
			h.SetControllen(r.gsoLen)
		}
		pieces := s.used
		for i := range n {
			header := &s.headers[s.blocks]
			s.blocks++
			wire.PutData(header, first+uint64(i))
			s.piece(header[:])
			from := int64(first+uint64(i)-1) * int64(block)
			if part := content[from:min(from+int64(block), int64(len(content)))]; len(part) > 0 {
				s.piece(part)
			}
		}
		h.SetIovlen(s.used - pieces)
		first, count = first+uint64(n), count-n
	}
}

// flush hands everything to the kernel.
func (s *sender) flush() {
	waited := false
	for done := 0; done < s.count; {
		// Not RawSyscall6: a page of the file that memory has lost makes this wait for the disk, and the whole process with it.
		n, _, errno := syscall.Syscall6(unix.SYS_SENDMMSG, uintptr(s.socket.fd), uintptr(unsafe.Pointer(&s.messages[done])), uintptr(s.count-done), unix.MSG_DONTWAIT, 0, 0)
		switch {
		case errno == 0:
			done += int(n)
			continue
		case errno == syscall.EINTR:
			continue
		case (errno == syscall.EAGAIN || errno == syscall.ENOBUFS) && !waited:
			waited = true
			fds := []unix.PollFd{{Fd: int32(s.socket.fd), Events: unix.POLLOUT}}
			_, _ = unix.Poll(fds, int(fullTimeout/time.Millisecond)) // full still: the next send says so
			continue
		}
		switch r := s.routeOf(done); {
		case errno == syscall.EIO: // what a driver without checksums says of UDP_SEGMENT, before Linux 6.11
			s.noGSO = true
		case (errno == syscall.EINVAL || errno == syscall.EMSGSIZE) && s.messages[done].hdr.Controllen > uint64(r.plainLen):
			r.gsoLen = 0 // a block is longer than the path's MTU: alone it goes in fragments, and UDP_SEGMENT makes none
		}
		s.failed++
		done++
	}
	s.count, s.used, s.blocks = 0, 0, 0
}

// routeOf returns the route of a message.
func (s *sender) routeOf(i int) *route { return (*route)(unsafe.Pointer(s.messages[i].hdr.Name)) }
