package lab

import (
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// wire carries frames between a veth at a bridge and QEMU's datagram socket. It does what a tap does, for users who have network
// namespaces but may not open /dev/net/tun.
type wire struct {
	frames *os.File // a packet socket at the far end of the veth
	ring   []byte   // where the kernel puts what it receives
	qemu   net.Conn
	both   sync.WaitGroup
}

// wireMark ends the name of the far end.
const wireMark = "~"

// The ring takes bursts: a sender does not know how slow an emulated machine is, and the limits on a socket's own buffer (200 KB)
// cannot be raised inside a user namespace.
const (
	ringFrame = 2048 // a power of two that takes a header and a frame of 1,514 bytes
	ringCount = 4096
)

// wire makes a wire from a new port of the bridge, and returns QEMU's end too.
func (s *Segment) wire(port string) (*wire, *os.File, error) {
	w := &wire{}
	err := s.space.do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = port
		veth := netlink.NewVeth(attrs)
		veth.PeerName = port + wireMark
		if err := netlink.LinkAdd(veth); err != nil {
			return fmt.Errorf("adding veth %s: %w", port, err)
		}
		for _, end := range []string{port, veth.PeerName} {
			if err := trueFrames(end); err != nil {
				return err
			}
		}
		if err := configure(veth.PeerName, nil); err != nil {
			return err
		}
		if err := w.open(veth.PeerName); err != nil {
			return err
		}
		return setPort(port, false, false)
	})
	if err != nil {
		w.close()
		return nil, nil, err
	}
	var theirs *os.File
	if w.qemu, theirs, err = socketPair(unix.SOCK_DGRAM); err != nil {
		w.close()
		return nil, nil, err
	}
	w.both.Go(w.fromSegment)
	w.both.Go(w.fromMachine)
	return w, theirs, nil
}

// open opens the packet socket, with its ring, in the namespace of the calling thread.
func (w *wire) open(iface string) error {
	link, err := net.InterfaceByName(iface)
	if err != nil {
		return fmt.Errorf("finding %s: %w", iface, err)
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("opening a packet socket: %w", err)
	}
	w.frames = os.NewFile(uintptr(fd), iface)
	const blocks = 64
	request := unix.TpacketReq{Block_size: ringFrame * ringCount / blocks, Block_nr: blocks, Frame_size: ringFrame, Frame_nr: ringCount}
	for _, set := range []func() error{
		func() error { return unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V2) },
		func() error { return unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1) },
		func() error { return unix.SetsockoptTpacketReq(fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &request) },
		func() (err error) {
			w.ring, err = unix.Mmap(fd, 0, ringFrame*ringCount, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			return err
		},
		func() error {
			all := uint16(unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8) // in network byte order
			return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: link.Index})
		},
	} {
		if err := set(); err != nil {
			return fmt.Errorf("preparing a packet socket: %w", err)
		}
	}
	return nil
}

// fromSegment passes what the ring receives on to QEMU until the socket is closed.
func (w *wire) fromSegment() {
	socket, err := w.frames.SyscallConn()
	if err != nil {
		return
	}
	next := 0
	_ = socket.Read(func(uintptr) (done bool) { // its only error is that the socket is closed
		for {
			slot := w.ring[next*ringFrame : (next+1)*ringFrame]
			header := (*unix.Tpacket2Hdr)(unsafe.Pointer(&slot[0]))
			if atomic.LoadUint32(&header.Status)&unix.TP_STATUS_USER == 0 {
				return false
			}
			start := int(header.Mac)
			_, err := w.qemu.Write(slot[start:min(start+int(header.Snaplen), len(slot))])
			atomic.StoreUint32(&header.Status, unix.TP_STATUS_KERNEL)
			if err != nil {
				return true
			}
			next = (next + 1) % ringCount
		}
	})
}

// fromMachine passes what QEMU sends on to the segment until QEMU's socket is closed. A frame that cannot be sent is lost.
func (w *wire) fromMachine() {
	buffer := make([]byte, 1<<16)
	for {
		n, err := w.qemu.Read(buffer)
		if err != nil || n == 0 {
			return
		}
		_, _ = w.frames.Write(buffer[:n])
	}
}

func (w *wire) close() {
	if w == nil {
		return
	}
	if w.qemu != nil {
		w.qemu.Close()
	}
	if w.frames != nil {
		w.frames.Close()
	}
	w.both.Wait()
	if w.ring != nil {
		_ = unix.Munmap(w.ring)
	}
}
