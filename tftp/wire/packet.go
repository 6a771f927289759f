package wire

import "encoding/binary"

// Opcode is the first field of every packet (RFC 1350 §5, RFC 2347 for the sixth).
type Opcode uint16

// The opcodes.
const (
	OpRead  Opcode = 1
	OpWrite Opcode = 2
	OpData  Opcode = 3
	OpAck   Opcode = 4
	OpError Opcode = 5
	OpOAck  Opcode = 6
)

// ErrorCode is what an ERROR packet says (RFC 1350 appendix I, RFC 2347).
type ErrorCode uint16

// The error codes that are sent or heeded here.
const (
	CodeOther    ErrorCode = 0 // see the text
	CodeNotFound ErrorCode = 1
	CodeAccess   ErrorCode = 2
	CodeIllegal  ErrorCode = 4 // illegal TFTP operation
	CodeOptions  ErrorCode = 8 // a client does not want the options that it got; EDK2 ends its question for the size so
)

// HeaderSize is what stands before the content of a DATA packet, in bytes.
const HeaderSize = 4

// maxErrorText keeps an ERROR packet in any client's buffer.
const maxErrorText = 255

// ParseOpcode returns the opcode of a packet, or 0 if there is none.
func ParseOpcode(p []byte) Opcode {
	if len(p) < 2 {
		return 0
	}
	return Opcode(binary.BigEndian.Uint16(p))
}

// ParseAck returns the block that an ACK acknowledges. Bytes that follow are no matter: some firmware pads.
func ParseAck(p []byte) (block uint16, ok bool) {
	if len(p) < HeaderSize || ParseOpcode(p) != OpAck {
		return 0, false
	}
	return binary.BigEndian.Uint16(p[2:]), true
}

// ParseError returns what an ERROR packet says. A text without its end mark is taken as it is.
func ParseError(p []byte) (code ErrorCode, text string, ok bool) {
	if len(p) < HeaderSize || ParseOpcode(p) != OpError {
		return 0, "", false
	}
	words := p[HeaderSize:min(len(p), HeaderSize+maxErrorText)]
	for i, c := range words {
		if c == 0 {
			words = words[:i]
			break
		}
	}
	return ErrorCode(binary.BigEndian.Uint16(p[2:])), string(words), true
}

// AppendError appends an ERROR packet.
func AppendError(p []byte, code ErrorCode, text string) []byte {
	p = binary.BigEndian.AppendUint16(p, uint16(OpError))
	p = binary.BigEndian.AppendUint16(p, uint16(code))
	return append(append(p, text[:min(len(text), maxErrorText)]...), 0)
}

// PutData writes the header of DATA block n, which counts from 1 and goes round after 65535.
func PutData(header *[HeaderSize]byte, n uint64) {
	binary.BigEndian.PutUint16(header[:], uint16(OpData))
	binary.BigEndian.PutUint16(header[2:], uint16(n))
}
