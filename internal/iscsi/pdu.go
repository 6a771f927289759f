// Package iscsi is the small part of iSCSI (RFC 7143) that everboot itself speaks: the codec of the PDUs that open a session
// and read from it, an initiator for probes and tests, and the answers of a target that only lists names or rejects a login.
package iscsi

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Opcode is the kind of a PDU (RFC 7143 §11.2.1.2), without the immediate bit.
type Opcode byte

// The opcodes that we know.
const (
	OpNopOut         Opcode = 0x00
	OpCommand        Opcode = 0x01
	OpLoginRequest   Opcode = 0x03
	OpTextRequest    Opcode = 0x04
	OpLogoutRequest  Opcode = 0x06
	OpNopIn          Opcode = 0x20
	OpResponse       Opcode = 0x21
	OpLoginResponse  Opcode = 0x23
	OpTextResponse   Opcode = 0x24
	OpDataIn         Opcode = 0x25
	OpLogoutResponse Opcode = 0x26
	OpAsync          Opcode = 0x32
	OpReject         Opcode = 0x3f
)

const (
	immediate = 0x40 // RFC 7143 §11.2.1.1
	final     = 0x80 // the F, T or S-less last PDU of a sequence
	cont      = 0x40 // the C bit of login and text PDUs

	bhsSize = 48
	// reserved marks a task tag that belongs to nobody (RFC 7143 §11.2.1.8).
	reserved = 0xffffffff

	// MaxLoginData is how much a login PDU may carry: the default MaxRecvDataSegmentLength (RFC 7143 §13.12), which nobody can
	// change before the login is over.
	MaxLoginData = 8192
	// maxData bounds what we read of a data segment in a session; we declare it as our MaxRecvDataSegmentLength.
	maxData = 256 << 10
)

// Errors of ReadPDU that callers count apart.
var (
	ErrTooLong = errors.New("the PDU's data is longer than allowed")
	ErrAHS     = errors.New("the PDU has an additional header segment, which none of ours has")
)

// PDU is one protocol data unit without digests and additional headers. Fields that differ between opcodes are read from Header.
type PDU struct {
	Header [bhsSize]byte // DataSegmentLength in it is written by Append
	Data   []byte        // without padding
}

// Opcode returns the kind of the PDU.
func (p PDU) Opcode() Opcode { return Opcode(p.Header[0] & 0x3f) }

// TaskTag returns the Initiator Task Tag (RFC 7143 §11.2.1.8).
func (p PDU) TaskTag() uint32 { return p.u32(16) }

func (p PDU) u16(at int) uint16       { return binary.BigEndian.Uint16(p.Header[at:]) }
func (p PDU) u32(at int) uint32       { return binary.BigEndian.Uint32(p.Header[at:]) }
func (p *PDU) put16(at int, v uint16) { binary.BigEndian.PutUint16(p.Header[at:], v) }
func (p *PDU) put32(at int, v uint32) { binary.BigEndian.PutUint32(p.Header[at:], v) }

// Append appends the wire form to b: the basic header segment, then the data padded to four bytes (RFC 7143 §11.1).
func (p PDU) Append(b []byte) []byte {
	p.Header[4] = 0 // TotalAHSLength
	p.Header[5], p.Header[6], p.Header[7] = byte(len(p.Data)>>16), byte(len(p.Data)>>8), byte(len(p.Data))
	b = append(b, p.Header[:]...)
	b = append(b, p.Data...)
	return append(b, make([]byte, pad(len(p.Data)))...)
}

func pad(n int) int { return -n & 3 }

// ReadPDU reads one PDU whose data segment has at most limit bytes. Nothing beyond the PDU is read.
func ReadPDU(r io.Reader, limit int) (PDU, error) {
	var p PDU
	if _, err := io.ReadFull(r, p.Header[:]); err != nil {
		return p, fmt.Errorf("reading a PDU's header: %w", err)
	}
	if p.Header[4] != 0 {
		return p, ErrAHS
	}
	n := int(p.Header[5])<<16 | int(p.Header[6])<<8 | int(p.Header[7])
	if n > limit {
		return p, fmt.Errorf("%d bytes, %d allowed: %w", n, limit, ErrTooLong)
	}
	buf := make([]byte, n+pad(n))
	if _, err := io.ReadFull(r, buf); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return p, fmt.Errorf("reading a PDU's data: %w", err)
	}
	p.Data = buf[:n]
	return p, nil
}
