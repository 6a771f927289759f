package streamer

import (
	"errors"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// tcpPair returns the two ends of a connection.
func tcpPair(t *testing.T) (near, far net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if far, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if near, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { far.Close() })
	return near, far
}

// TestUrgentDataEndsASession: splice stops before an urgent byte for ever, and the relay would turn without an end for it.
func TestUrgentDataEndsASession(t *testing.T) {
	r, err := newRelay()
	if err != nil {
		t.Fatal(err)
	}
	go r.run()
	defer r.end()
	initiator, target := tcpPair(t)
	leg, _ := tcpPair(t)
	var why error
	line := r.join(detach(initiator), detach(leg), nil, nil, func(_ *socket, err error) { why = err })
	raw, err := target.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) { err = unix.Sendto(int(fd), []byte("!"), unix.MSG_OOB, nil) }); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	_, _ = target.Write([]byte("behind it")) // it may have ended already
	select {
	case <-line.done:
		if !errors.Is(why, errUrgent) {
			t.Errorf("it ended because of: %v", why)
		}
	case <-time.After(20 * time.Second):
		t.Error("the session goes on")
	}
}
