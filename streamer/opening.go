package streamer

import (
	"encoding/binary"
	"time"

	"everboot/internal/iscsi"
)

const (
	// openingPDUs is how many PDUs of a streamer are looked at for the first block: a login and the questions about the disk take a dozen or two.
	openingPDUs = 256
	bhsSize     = 48  // RFC 7143 §11.2.1
	blockSize   = 512 // the smallest; what else a disk says of itself is shorter
)

// opening looks for the first block of the disk in what the streamer says, PDU by PDU. It only ever sees what is passed on anyway: digests or
// nonsense make it miss the block, and hold nothing back.
type opening struct {
	header [bhsSize]byte
	have   int  // bytes of the header that were seen
	ahead  int  // bytes that are passed on before it sees the next
	pdus   int  // that it has seen
	block  bool // what is ahead ends with the first block
}

// wants returns how many of the next bytes it would see.
func (o *opening) wants() int { return bhsSize - o.have }

// see takes the next bytes, at most as many as it wants. They may be fewer than a header has: with digests what stands here is the end of another
// PDU, and nothing follows until the initiator has got it.
func (o *opening) see(next []byte) {
	o.have += copy(o.header[o.have:], next)
	o.ahead = len(next)
	if o.have < bhsSize {
		return
	}
	data := int(binary.BigEndian.Uint32(o.header[4:]) & 0xffffff)
	o.ahead += 4*int(o.header[4]) + (data+3)&^3 // TotalAHSLength counts words (RFC 7143 §11.2.1.5)
	o.block = iscsi.Opcode(o.header[0]&0x3f) == iscsi.OpDataIn && data >= blockSize
	o.have = 0
	o.pdus++
}

// passed notes that so many of the bytes ahead were passed on. It reports whether the first block has passed with them, and whether there
// is nothing more to look for.
func (o *opening) passed(n int) (found, over bool) {
	o.ahead -= n
	if o.ahead > 0 {
		return false, false
	}
	return o.block, o.block || o.pdus >= openingPDUs
}

// stallBegan returns since when a session's initiator has waited for an answer, at its end for that cause; zero: it does not, or nobody can tell.
//
// A busy initiator asks again at once, within a jiffy of the answer before: of two such times the kernel's clock does not tell which came
// first. If that was no longer ago than it takes to notice the cause, the initiator waits.
func (s *session) stallBegan(now time.Time, cause string) time.Time {
	asked, okA := tcpInfo(s.initiator)
	answered, okB := tcpInfo(s.leg)
	if !okA || !okB {
		return time.Time{}
	}
	noticed := 100 * time.Millisecond
	switch cause {
	case endSilent, endReplaced, endDown:
		noticed = 2 * silence
	case endHung:
		noticed = 2 * hangTime
	}
	ago, before := time.Duration(asked.Last_data_recv)*time.Millisecond, time.Duration(answered.Last_data_recv)*time.Millisecond
	switch {
	case ago+jiffies <= before, answered.Unacked > 0 && ago <= before+jiffies, ago <= before+jiffies && ago <= noticed:
		return now.Add(-ago)
	}
	return time.Time{}
}
