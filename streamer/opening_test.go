package streamer

import (
	"io"
	"net"
	"testing"
	"time"

	"everboot/internal/iscsi"
)

// TestDigestsAreNotHeldBack: with a header digest (RFC 7143 §11.2.3, not looked for) four bytes of a PDU stand where the next header would. They are
// passed on although nothing follows: the streamer says no more until the initiator has seen them.
func TestDigestsAreNotHeldBack(t *testing.T) {
	initiator, near := net.Pipe()
	leg, far := net.Pipe()
	for _, c := range []net.Conn{initiator, near, leg, far} {
		defer c.Close()
	}
	s := &session{initiator: near, leg: leg}
	ended := make(chan error, 1)
	go func() { ended <- s.open() }()
	pdu := make([]byte, bhsSize+4)
	pdu[0] = byte(iscsi.OpNopIn)
	go far.Write(pdu)
	initiator.SetReadDeadline(time.Now().Add(10 * time.Second))
	got := make([]byte, len(pdu))
	if n, err := io.ReadFull(initiator, got); err != nil {
		t.Fatalf("%d of %d bytes passed: %v", n, len(pdu), err)
	}
	far.Close()
	if err := <-ended; err == nil {
		t.Error("the end was not noticed")
	}
}

// TestRedirectedThatCannotReachItsStreamer: open-iscsi that meets a firewall is back after its login_timeout, 15 s in our initramfs, and is then
// forwarded; much later it lost the streamer, and is sent to the next one.
func TestRedirectedThatCannotReachItsStreamer(t *testing.T) {
	d := &Director{cfg: DirectorConfig{Redirect: true}, table: newTable()}
	c := &caller{device: [6]byte{2, 1}}
	c.login.Target = "iqn.2026-11.test:debian"
	copy(c.login.Request.ISID[:], openISCSI[:])
	now := time.Now()
	s := &session{target: c.login.Target}
	s.Device, s.Since, s.Streamer = c.device, now, "s1"
	if !d.redirects(c, now) {
		t.Error("it is forwarded at first")
	}
	d.table.moved(s)
	for after, want := range map[time.Duration]bool{6 * time.Second: false, 18 * time.Second: false, time.Minute: true} {
		if d.redirects(c, now.Add(after)) != want {
			t.Errorf("back after %s it is redirected: %v", after, !want)
		}
	}
}
