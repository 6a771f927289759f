package streamer

import (
	"encoding/binary"
	"io"
	"time"

	"everboot/internal/iscsi"
)

const (
	// openingPDUs is how many PDUs of a streamer are looked at for the first block: a login and the questions about the disk take a dozen or two.
	openingPDUs = 256
	bhsSize     = 48  // RFC 7143 §11.2.1
	blockSize   = 512 // the smallest; what else a disk says of itself is shorter
)

// open forwards what the streamer says PDU by PDU, until the first block of the disk has passed. Whatever it makes of a PDU, it passes
// every byte on in order: digests or nonsense only make it miss the block.
func (s *session) open() error {
	var header [bhsSize]byte
	for range openingPDUs {
		if err := s.passHeader(header[:]); err != nil {
			return err
		}
		data := int64(binary.BigEndian.Uint32(header[4:]) & 0xffffff)
		rest := 4*int64(header[4]) + (data+3)&^3 // TotalAHSLength counts words (RFC 7143 §11.2.1.5)
		if _, err := io.CopyN(s.initiator, s.leg, rest); err != nil {
			return err
		}
		if iscsi.Opcode(header[0]&0x3f) == iscsi.OpDataIn && data >= blockSize {
			s.delivered(time.Now())
			return nil
		}
	}
	return nil
}

// passHeader forwards as many bytes as a header has, each as soon as it is there: with digests what stands here is the end of another PDU, and
// nothing follows until the initiator has seen it.
func (s *session) passHeader(header []byte) error {
	for n := 0; n < len(header); {
		m, err := s.leg.Read(header[n:])
		if m > 0 {
			if _, err := s.initiator.Write(header[n : n+m]); err != nil {
				return err
			}
		}
		if n += m; err != nil {
			return err
		}
	}
	return nil
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
