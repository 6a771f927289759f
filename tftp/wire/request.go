package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strconv"
	"strings"
)

// Mode is how a file is sent.
type Mode uint8

// The modes. Mail (RFC 783) has been dead since RFC 1350, and is Unknown.
const (
	Unknown  Mode = iota
	Octet         // as it is
	Netascii      // lines end with CR LF, a lone CR is CR NUL (RFC 764)
)

// Limits of the protocol.
const (
	DefaultBlock = 512   // RFC 1350 §2
	MinBlock     = 8     // RFC 2348
	MaxBlock     = 65464 // RFC 2348
)

// option is a negotiable value that this server knows.
type option uint8

const (
	optBlock option = iota
	optTimeout
	optSize
	optWindow
	options // how many there are
)

var optionNames = [options]string{optBlock: "blksize", optTimeout: "timeout", optSize: "tsize", optWindow: "windowsize"}

// Request is a read or write request. Two requests that ask for the same are equal.
type Request struct {
	Write bool
	Name  string // as it was sent
	Mode  Mode
	// What the client asked for; 0 is not asked, or no value that the RFC allows: such an option is left out of the answer (RFC 2347).
	Block, Timeout, Window int
	Size                   bool // asked for the size (RFC 2349: with the value 0)
	order                  [options]option
	asked                  uint8 // how many of order are set
}

// The ways in which a request can be none.
var (
	ErrNoRequest = errors.New("no request")
	ErrEnd       = errors.New("a text without its end mark")
	ErrFields    = errors.New("no file name or no mode")
)

// ParseRequest reads an RRQ or WRQ. Option names and modes are matched without case (RFC 1350 §5, RFC 2347); of an option that comes twice the
// first counts; options that nobody knows are passed over, and so is a name without a value at the end.
func ParseRequest(p []byte) (Request, error) {
	op := ParseOpcode(p)
	if op != OpRead && op != OpWrite {
		return Request{}, ErrNoRequest
	}
	name, rest, ok := text(p[2:])
	mode, rest, ok2 := text(rest)
	if !ok || !ok2 {
		return Request{}, ErrEnd
	}
	if len(name) == 0 || len(mode) == 0 {
		return Request{}, ErrFields
	}
	r := Request{Write: op == OpWrite, Name: string(name)}
	switch strings.ToLower(string(mode)) {
	case "octet", "binary": // the latter by old clients
		r.Mode = Octet
	case "netascii":
		r.Mode = Netascii
	}
	for len(rest) > 0 {
		key, after, ok := text(rest)
		value, after, ok2 := text(after)
		if !ok || !ok2 {
			break
		}
		r.option(strings.ToLower(string(key)), string(value))
		rest = after
	}
	return r, nil
}

// text cuts a text at its end mark.
func text(p []byte) (s, rest []byte, ok bool) { return bytes.Cut(p, []byte{0}) }

func (r *Request) option(key, value string) {
	n, err := strconv.Atoi(value)
	if err != nil {
		return
	}
	for o, name := range optionNames {
		if name == key && !r.has(option(o)) && r.take(option(o), n) {
			r.order[r.asked] = option(o)
			r.asked++
		}
	}
}

func (r *Request) has(o option) bool {
	for _, have := range r.order[:r.asked] {
		if have == o {
			return true
		}
	}
	return false
}

// take keeps a value that the RFC allows. A block that is larger than any datagram is a wish for the largest.
func (r *Request) take(o option, n int) bool {
	switch {
	case o == optBlock && n >= MinBlock:
		r.Block = min(n, MaxBlock)
	case o == optTimeout && n >= 1 && n <= 255: // RFC 2349
		r.Timeout = n
	case o == optWindow && n >= 1 && n <= 65535: // RFC 7440 §3
		r.Window = n
	case o == optSize && n >= 0:
		r.Size = true
	default:
		return false
	}
	return true
}

// Limits are what a server grants at most.
type Limits struct {
	Block  int // bytes of content in a packet
	Window int // packets
}

// Terms are what client and server have agreed on.
type Terms struct {
	Size    int64 // of what is sent, in bytes
	Block   int   // bytes of content in a packet
	Window  int   // packets sent before an ACK is waited for
	Timeout int   // seconds; the longest pause before a retransmission; 0: the server's own
	Options bool  // an OACK opens the transfer, and the client's ACK of block 0 answers it
}

// Agree returns the terms of a transfer.
func (r *Request) Agree(size int64, l Limits) Terms {
	t := Terms{Size: size, Block: DefaultBlock, Window: 1, Timeout: r.Timeout, Options: r.asked > 0}
	if r.Block > 0 {
		t.Block = min(r.Block, max(l.Block, MinBlock))
	}
	if r.Window > 0 {
		t.Window = min(r.Window, max(l.Window, 1))
	}
	return t
}

// ipxeBlock is the size of block that iPXE asks for.
const ipxeBlock = 1432

// Takes tells whether a client that was told of one size, and has no block yet, gets a file of another size whole. Who has not asked for it goes by
// the last block, which is shorter. PXELINUX and GRUB keep the first size that they are told, and would cut a longer file. iPXE makes room for each
// block that comes; of a shorter file it waits for blocks that do not exist, or leaves rubbish behind its end (tftp_presize).
func (r *Request) Takes(told, size int64) bool {
	ipxe := r.Block == ipxeBlock && r.asked == 2 && r.order[0] == optBlock && r.order[1] == optSize
	return !r.Size || size == told || ipxe && size > told
}

// AppendOAck appends the OACK that answers the request with the terms: what was asked for and can be had, in the order in which it was asked.
func (r *Request) AppendOAck(p []byte, t Terms) []byte {
	values := [options]int64{optBlock: int64(t.Block), optTimeout: int64(t.Timeout), optSize: t.Size, optWindow: int64(t.Window)}
	p = binary.BigEndian.AppendUint16(p, uint16(OpOAck))
	for _, o := range r.order[:r.asked] {
		p = append(append(p, optionNames[o]...), 0)
		p = append(strconv.AppendInt(p, values[o], 10), 0)
	}
	return p
}
