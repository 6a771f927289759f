package wire

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

// Appliances tell each other of their transfers in messages of three kinds. Each begins with the format and the kind; integers are big endian.
//
//	opened:   records, each with a length of 2 bytes before it; a record may come again, with more blocks acknowledged
//	progress: for each transfer 4 bytes of its number and 4 bytes of how many blocks are acknowledged
//	closed:   4 bytes of its number for each transfer

// handoverFormat changes when old appliances could not read the messages any more.
const handoverFormat = 1

// HandoverKind is the kind of a message.
type HandoverKind uint8

// The kinds.
const (
	HandoverOpened   HandoverKind = 1
	HandoverProgress HandoverKind = 2
	HandoverClosed   HandoverKind = 3
)

const (
	// MaxRequest is the longest request that is handed over. None that RFC 2347 allows is longer.
	MaxRequest = 512
	// recordSize is a record without its request, and its length before it.
	recordSize = 4 + 1 + 16 + 2 + 16 + 16 + 8 + 4 + 2 + 4
	// MaxRecord is the longest record, in bytes.
	MaxRecord    = 2 + recordSize + portSize + MaxRequest
	portSize     = 2
	progressSize = 8
	numberSize   = 4
)

// The flags of a record.
const (
	recordMet  = 1 << 0 // Met
	recordPort = 1 << 1 // 2 bytes of Port come before the request
)

// Record is what another appliance must know of a transfer to lead it on.
type Record struct {
	Number  uint32 // the sender's name for it
	Met     bool   // the client has answered
	Client  netip.AddrPort
	Server  netip.Addr // the address that the client asked
	Digest  Digest
	Size    int64 // of what is sent, in bytes
	Block   int
	Window  int
	Acked   uint64
	Request []byte // the packet by which the client asked
	Port    uint16 // that it is sent from; 0: the one that the request came to
}

// Progress is how far a transfer is.
type Progress struct {
	Number uint32
	Acked  uint32
}

// ErrHandover is a message that cannot be read, or of a format that nobody knew when this was built.
var ErrHandover = errors.New("no message of transfers")

// AppendHandover begins a message.
func AppendHandover(b []byte, k HandoverKind) []byte { return append(b, handoverFormat, byte(k)) }

// AppendRecord appends a transfer to a message of what was opened. A request that is too long leaves it as it is.
func AppendRecord(b []byte, r *Record) []byte {
	if len(r.Request) > MaxRequest {
		return b
	}
	size, flags := recordSize+len(r.Request), byte(0)
	if r.Met {
		flags |= recordMet
	}
	if r.Port != 0 {
		size, flags = size+portSize, flags|recordPort
	}
	b = binary.BigEndian.AppendUint16(b, uint16(size))
	b = binary.BigEndian.AppendUint32(b, r.Number)
	client, server := r.Client.Addr().As16(), r.Server.As16()
	b = append(append(b, flags), client[:]...)
	b = binary.BigEndian.AppendUint16(b, r.Client.Port())
	b = append(append(b, server[:]...), r.Digest[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(r.Size))
	b = binary.BigEndian.AppendUint32(b, uint32(r.Block))
	b = binary.BigEndian.AppendUint16(b, uint16(r.Window))
	b = binary.BigEndian.AppendUint32(b, uint32(r.Acked))
	if r.Port != 0 {
		b = binary.BigEndian.AppendUint16(b, r.Port)
	}
	return append(b, r.Request...)
}

// AppendProgress appends how far a transfer is.
func AppendProgress(b []byte, p Progress) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, p.Number), p.Acked)
}

// AppendClosed appends a transfer that has ended.
func AppendClosed(b []byte, number uint32) []byte { return binary.BigEndian.AppendUint32(b, number) }

// Handover is a message as it was read.
type Handover struct {
	Opened   []Record
	Progress []Progress
	Closed   []uint32
}

// ParseHandover reads a message. What it returns shares no memory with it.
func ParseHandover(b []byte) (h Handover, err error) {
	if len(b) < 2 || b[0] != handoverFormat {
		return Handover{}, ErrHandover
	}
	rest := b[2:]
	switch HandoverKind(b[1]) {
	case HandoverOpened:
		for len(rest) > 0 {
			if len(rest) < 2 || len(rest) < 2+int(binary.BigEndian.Uint16(rest)) {
				return Handover{}, ErrHandover
			}
			n := 2 + int(binary.BigEndian.Uint16(rest))
			r, ok := parseRecord(rest[2:n])
			if !ok {
				return Handover{}, ErrHandover
			}
			h.Opened = append(h.Opened, r)
			rest = rest[n:]
		}
	case HandoverProgress:
		for ; len(rest) >= progressSize; rest = rest[progressSize:] {
			h.Progress = append(h.Progress, Progress{binary.BigEndian.Uint32(rest), binary.BigEndian.Uint32(rest[4:])})
		}
	case HandoverClosed:
		for ; len(rest) >= numberSize; rest = rest[numberSize:] {
			h.Closed = append(h.Closed, binary.BigEndian.Uint32(rest))
		}
	default:
		return Handover{}, ErrHandover
	}
	return h, nil
}

func parseRecord(b []byte) (r Record, ok bool) {
	if len(b) < recordSize {
		return r, false
	}
	r.Number, r.Met = binary.BigEndian.Uint32(b), b[4]&recordMet != 0
	r.Client = netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[5:21])).Unmap(), binary.BigEndian.Uint16(b[21:]))
	r.Server = netip.AddrFrom16([16]byte(b[23:39])).Unmap()
	r.Digest = Digest(b[39:55])
	r.Size = int64(binary.BigEndian.Uint64(b[55:]))
	r.Block, r.Window = int(binary.BigEndian.Uint32(b[63:])), int(binary.BigEndian.Uint16(b[67:]))
	r.Acked = uint64(binary.BigEndian.Uint32(b[69:]))
	request := b[recordSize:]
	if b[4]&recordPort != 0 {
		if len(request) < portSize {
			return r, false
		}
		r.Port, request = binary.BigEndian.Uint16(request), request[portSize:]
	}
	if len(request) > MaxRequest {
		return r, false
	}
	r.Request = append([]byte(nil), request...)
	return r, r.Size >= 0 && r.Block >= MinBlock && r.Block <= MaxBlock && r.Window >= 1 && r.Digest.Known() && r.Client.Port() != 0
}
