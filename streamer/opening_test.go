package streamer

import (
	"testing"
	"time"

	"everboot/internal/iscsi"
)

// TestDigestsAreNotHeldBack: with a header digest (RFC 7143 §11.2.3, not looked for) four bytes of a PDU stand where the next header would. They are
// passed on although nothing follows: the streamer says no more until the initiator has seen them.
func TestDigestsAreNotHeldBack(t *testing.T) {
	pdu := make([]byte, bhsSize+4)
	pdu[0] = byte(iscsi.OpNopIn)
	var o opening
	for rest := pdu; len(rest) > 0; {
		o.see(rest[:min(o.wants(), len(rest))])
		if o.ahead == 0 {
			t.Fatalf("%d bytes are held back", len(rest))
		}
		rest = rest[o.ahead:]
		if found, over := o.passed(o.ahead); found || over {
			t.Fatalf("a NOP is a block: %v, %v", found, over)
		}
	}
}

// TestFirstBlock: the block counts as delivered when its last byte has passed, however the bytes come.
func TestFirstBlock(t *testing.T) {
	answer := make([]byte, bhsSize)
	answer[0], answer[7] = byte(iscsi.OpDataIn), 36 // an INQUIRY's: too short for a block
	answer = append(answer, make([]byte, 36)...)
	block := make([]byte, bhsSize+blockSize)
	block[0], block[6] = byte(iscsi.OpDataIn), blockSize>>8
	stream := append(answer, block...)
	for _, step := range []int{1, 7, bhsSize, len(stream)} {
		var o opening
		for at := 0; at < len(stream); {
			if o.ahead == 0 {
				o.see(stream[at:min(len(stream), at+min(o.wants(), step))])
			}
			n := min(o.ahead, step)
			at += n
			if found, over := o.passed(n); found != (at == len(stream)) || over != found {
				t.Fatalf("steps of %d, after %d of %d bytes: found %v, over %v", step, at, len(stream), found, over)
			}
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
