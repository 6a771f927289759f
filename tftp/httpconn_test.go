package tftp

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// TestUnsentIsBound protects the speed with many clients.
func TestUnsentIsBound(t *testing.T) {
	tcp, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	l := patientListener{tcp, make(chan struct{}, 1), func(net.Conn) func() { return func() {} }, t.Context()}
	client, err := net.Dial("tcp4", tcp.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	raw, err := c.(patientConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	bound := 0
	if err := raw.Control(func(fd uintptr) { bound, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT) }); err != nil {
		t.Fatal(err)
	}
	if err != nil || bound != unsent {
		t.Errorf("%d bytes (%v) may be unsent, want %d", bound, err, unsent)
	}
}
