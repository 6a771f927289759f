package lab

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// trueFrames turns an interface's transmit offloads off, so that what crosses a cable looks as it does on a wire: checksums are
// there, and no frame is longer than the MTU. Programs that read raw frames (DHCP clients, captures, QEMU) depend on it.
func trueFrames(iface string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening a socket: %w", err)
	}
	defer unix.Close(fd)
	for _, command := range []uint32{unix.ETHTOOL_STXCSUM, unix.ETHTOOL_STSO, unix.ETHTOOL_SGSO, unix.ETHTOOL_SGRO} {
		value := struct{ command, on uint32 }{command: command}
		request := struct {
			name [unix.IFNAMSIZ]byte
			data unsafe.Pointer
			_    [16]byte
		}{data: unsafe.Pointer(&value)}
		copy(request.name[:unix.IFNAMSIZ-1], iface)
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request)))
		if errno != 0 && errno != unix.EOPNOTSUPP {
			return fmt.Errorf("turning an offload (ethtool %#x) of %s off: %w", command, iface, errno)
		}
	}
	return nil
}
