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

// TestFirstBlock: the block counts as delivered when its last byte has passed, however the bytes come, and not before.
func TestFirstBlock(t *testing.T) {
	answer := make([]byte, bhsSize)
	answer[0], answer[7] = byte(iscsi.OpDataIn), 36 // an INQUIRY's: too short for a block
	answer = append(answer, make([]byte, 36)...)
	block := make([]byte, bhsSize+blockSize)
	block[0], block[6] = byte(iscsi.OpDataIn), blockSize>>8
	stream := append(answer, block...)
	for _, step := range []int{1, 7, bhsSize, len(stream)} {
		initiator, near := net.Pipe()
		leg, far := net.Pipe()
		s := &session{initiator: near, leg: leg, block: func(time.Time) {}}
		ended := make(chan error, 1)
		go func() { ended <- s.open() }()
		go func() {
			for at := 0; at < len(stream); at += step {
				far.Write(stream[at:min(len(stream), at+step)])
			}
		}()
		initiator.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.ReadFull(initiator, make([]byte, len(stream)-1)); err != nil || s.blockAt.Load() != 0 {
			t.Errorf("steps of %d, before the last byte: %v, delivered %t", step, err, s.blockAt.Load() != 0)
		}
		if _, err := io.ReadFull(initiator, make([]byte, 1)); err != nil {
			t.Error(err)
		}
		if err := <-ended; err != nil || s.blockAt.Load() == 0 {
			t.Errorf("steps of %d: %v, delivered %t", step, err, s.blockAt.Load() != 0)
		}
		for _, c := range []net.Conn{initiator, near, leg, far} {
			c.Close()
		}
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
