package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// nic is what QEMU needs to be plugged into a segment: a descriptor (3 in QEMU) and the argument that tells what it is.
type nic struct {
	*os.File
	netdev string
}

// nic plugs the machine into its segment: by a tap, or where this user may not make one, by a wire.
func (m *Machine) nic(port string) (nic, error) {
	file, err := m.config.Segment.tap(port)
	if err == nil {
		return nic{file, "tap,id=net,fd=3"}, nil
	}
	if !errors.Is(err, fs.ErrPermission) && !errors.Is(err, fs.ErrNotExist) {
		return nic{}, err
	}
	m.lab.log.Info("machine gets its frames through the lab, which is slow", "machine", m.config.Name, "because", err)
	m.wire, file, err = m.config.Segment.wire(port)
	return nic{file, "dgram,id=net,local.type=fd,local.str=3"}, err
}

// tap makes a tap interface that is a port of the segment's bridge. It lives as long as its descriptor.
func (s *Segment) tap(port string) (*os.File, error) {
	var file *os.File
	err := s.space.do(func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return fmt.Errorf("opening /dev/net/tun: %w", err)
		}
		file = os.NewFile(uintptr(fd), port)
		request, err := unix.NewIfreq(port)
		if err != nil {
			return fmt.Errorf("naming a tap %q: %w", port, err)
		}
		request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
			return fmt.Errorf("making tap %s: %w", port, err)
		}
		return setPort(port, false, false)
	})
	if err != nil && file != nil {
		file.Close()
	}
	return file, err
}
