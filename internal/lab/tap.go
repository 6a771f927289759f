package lab

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// nic is what QEMU needs to be plugged into a segment: a descriptor (3 in QEMU) and the argument that tells what it is.
type nic struct {
	*os.File
	netdev string
}

// tap makes a tap interface that is a port of the segment's bridge. It lives as long as its descriptor.
func (s *Segment) tap(port string) (nic, error) {
	var file *os.File
	err := s.space.do(func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return fmt.Errorf("opening /dev/net/tun: %w", err)
		}
		file = os.NewFile(uintptr(fd), port)
		request, err := unix.NewIfreq(port)
		if err != nil {
			return err
		}
		request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
			return fmt.Errorf("making tap %s: %w", port, err)
		}
		return plug(port)
	})
	if err != nil {
		if file != nil {
			file.Close()
		}
		return nic{}, err
	}
	return nic{file, "tap,id=net,fd=3"}, nil
}
