package iscsi

import (
	"context"
	"errors"
	"fmt"
)

// request returns a PDU with the session's numbers in it. Only one that is not immediate moves CmdSN (RFC 7143 §4.2.2.1).
func (s *Session) request(op Opcode, urgent bool) PDU {
	var p PDU
	p.Header[0] = byte(op)
	p.put32(16, s.tag)
	p.put32(24, s.cmdSN)
	p.put32(28, s.expStat)
	if op == OpLogoutRequest {
		p.put16(20, s.cid)
	}
	s.tag++
	if s.tag == reserved {
		s.tag = 1
	}
	if urgent {
		p.Header[0] |= immediate
	} else {
		s.cmdSN++
	}
	return p
}

func (s *Session) send(p PDU) error {
	_, err := s.conn.Write(p.Append(nil))
	return err
}

// receive returns the next PDU with that task tag, and answers the target's pings meanwhile.
func (s *Session) receive(tag uint32) (PDU, error) {
	for {
		p, err := ReadPDU(s.conn, maxData)
		if err != nil {
			return p, err
		}
		switch op := p.Opcode(); {
		case op == OpNopIn && p.TaskTag() == reserved:
			if err := s.pong(p); err != nil {
				return p, err
			}
			continue
		case op == OpReject:
			return p, fmt.Errorf("the target rejected a PDU, reason 0x%02x", p.Header[2])
		case op == OpAsync:
			return p, fmt.Errorf("the target sent an asynchronous message, event %d", p.Header[36])
		case p.TaskTag() != tag:
			return p, fmt.Errorf("the target answered task 0x%x, not 0x%x", p.TaskTag(), tag)
		}
		if p.Opcode() != OpDataIn || p.Header[1]&1 != 0 { // a Data-In carries StatSN only with its S bit
			s.expStat = p.u32(24) + 1
		}
		return p, nil
	}
}

// pong answers a ping of the target (RFC 7143 §11.19): same transfer tag and data, no task tag.
func (s *Session) pong(ping PDU) error {
	if ping.u32(20) == reserved {
		return nil // it only tells its numbers
	}
	var p PDU
	p.Header[0], p.Header[1] = byte(OpNopOut)|immediate, final
	copy(p.Header[8:16], ping.Header[8:16])
	p.put32(16, reserved)
	p.put32(20, ping.u32(20))
	p.put32(24, s.cmdSN)
	p.put32(28, s.expStat)
	p.Data = ping.Data
	return s.send(p)
}

// Do runs one command and returns what was read. A refusal is a *SCSIError. A unit attention, which only says
// that the session is new, is answered by running it once more.
func (s *Session) Do(ctx context.Context, c Command) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.do(ctx, c)
}

func (s *Session) do(ctx context.Context, c Command) (data []byte, err error) {
	const attentions = 3 // a new session has at most two to tell
	for range attentions {
		err = s.watch(ctx, func() (err error) {
			data, err = s.once(c)
			return err
		})
		var refused *SCSIError
		if !errors.As(err, &refused) || refused.Key != SenseUnitAttention {
			break
		}
	}
	return data, err
}

func (s *Session) once(c Command) ([]byte, error) {
	p := s.request(OpCommand, false)
	p.Header[1] = final | 1 // simple task attribute
	if c.Read > 0 {
		p.Header[1] |= 0x40
	}
	if len(c.Write) > 0 {
		p.Header[1] |= 0x20
		p.Data = c.Write
	}
	p.Header[9] = s.lun // single level, peripheral addressing (SAM-4 §4.6.4)
	p.put32(20, uint32(max(c.Read, len(c.Write))))
	copy(p.Header[32:], c.CDB)
	if err := s.send(p); err != nil {
		return nil, fmt.Errorf("sending a command: %w", err)
	}
	return s.collect(p.TaskTag(), c.Read)
}

// collect puts the Data-In PDUs of a command together until its status comes (RFC 7143 §11.7).
func (s *Session) collect(tag uint32, size int) ([]byte, error) {
	data, got := make([]byte, size), 0
	for {
		p, err := s.receive(tag)
		if err != nil {
			return nil, fmt.Errorf("waiting for data: %w", err)
		}
		switch p.Opcode() {
		case OpDataIn:
			at := int(p.u32(40))
			if at+len(p.Data) > size {
				return nil, fmt.Errorf("the target sent data at %d, beyond the %d bytes asked for", at, size)
			}
			got = max(got, at+copy(data[at:], p.Data))
			if p.Header[1]&1 == 0 {
				continue
			}
			if p.Header[3] != 0 {
				return nil, &SCSIError{Status: p.Header[3]}
			}
			return data[:got], nil
		case OpResponse:
			if p.Header[2] != 0 {
				return nil, fmt.Errorf("the target failed the command, response 0x%02x", p.Header[2])
			}
			if p.Header[3] != 0 {
				return nil, parseSense(p.Header[3], p.Data)
			}
			return data[:got], nil
		default:
			return nil, fmt.Errorf("the target answered a command with opcode 0x%02x", p.Header[0])
		}
	}
}

// Inquiry returns the standard INQUIRY data.
func (s *Session) Inquiry(ctx context.Context) ([]byte, error) {
	return s.Do(ctx, InquiryCommand(false, 0))
}

// InquiryPage returns a page of vital product data; 0x80 is the serial number, 0x83 the identification.
func (s *Session) InquiryPage(ctx context.Context, page byte) ([]byte, error) {
	return s.Do(ctx, InquiryCommand(true, page))
}

// ReadCapacity returns the size of the logical unit.
func (s *Session) ReadCapacity(ctx context.Context) (Capacity, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.readCapacity(ctx)
}

func (s *Session) readCapacity(ctx context.Context) (Capacity, error) {
	b, err := s.do(ctx, CapacityCommand())
	if err != nil {
		return Capacity{}, fmt.Errorf("reading the capacity: %w", err)
	}
	s.capacity, err = parseCapacity(b)
	return s.capacity, err
}

// ReadOnly reports whether the logical unit says that it takes no writes (the WP bit, SBC-3 §6.4.1).
func (s *Session) ReadOnly(ctx context.Context) (bool, error) {
	b, err := s.Do(ctx, ModeCommand(modeHeader))
	var refused *SCSIError
	if errors.As(err, &refused) { // some give all or nothing, as Linux found
		b, err = s.Do(ctx, ModeCommand(0xff))
	}
	if err != nil {
		return false, fmt.Errorf("reading the mode pages: %w", err)
	}
	if len(b) < modeHeader {
		return false, fmt.Errorf("MODE SENSE answered %d bytes", len(b))
	}
	return b[2]&0x80 != 0, nil
}

// modeHeader is the length of MODE SENSE(6)'s parameter header (SPC-4 §7.5.5).
const modeHeader = 4

// ReadBlocks reads n blocks from lba on; n blocks are at most 1 MiB. It asks for the capacity first, once.
func (s *Session) ReadBlocks(ctx context.Context, lba uint64, n int) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.capacity.BlockSize == 0 {
		if _, err := s.readCapacity(ctx); err != nil {
			return nil, err
		}
	}
	size := s.capacity.BlockSize
	if n < 1 || n*size > 1<<20 {
		return nil, fmt.Errorf("reading %d blocks of %d bytes: ask for at least one and at most 1 MiB", n, size)
	}
	b, err := s.do(ctx, ReadCommand(lba, uint32(n), size))
	if err != nil {
		return nil, fmt.Errorf("reading %d blocks at %d: %w", n, lba, err)
	}
	if len(b) != n*size {
		return nil, fmt.Errorf("reading %d blocks at %d: %d of %d bytes came", n, lba, len(b), n*size)
	}
	return b, nil
}
