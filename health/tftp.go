package health

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"
)

// Verify says what is wrong with a file that was fetched; nil means nothing.
type Verify func(data []byte) error

// Contains wants a text somewhere in the file.
func Contains(text string) Verify {
	return func(data []byte) error {
		if !bytes.Contains(data, []byte(text)) {
			return fmt.Errorf("%d bytes without %q", len(data), text)
		}
		return nil
	}
}

// SHA256 wants a file of that size and sum.
func SHA256(size int64, sum [sha256.Size]byte) Verify {
	return func(data []byte) error {
		if int64(len(data)) != size {
			return fmt.Errorf("%d bytes, want %d", len(data), size)
		}
		if got := sha256.Sum256(data); got != sum {
			return fmt.Errorf("SHA-256 %s…, want %s…", hex.EncodeToString(got[:4]), hex.EncodeToString(sum[:4]))
		}
		return nil
	}
}

const (
	// maxFetch bounds what a probe takes into memory.
	maxFetch = 16 << 20
	// probeBlock is what EDK2 asks for.
	probeBlock = 1468
	// plainBlock is what a server sends that knows no options (RFC 1350).
	plainBlock = 512
	// probeTries within the time-out: one lost packet does not fail a probe.
	probeTries = 3
)

// The packets of TFTP (RFC 1350 §5, RFC 2347).
const (
	packetRead    = 1
	packetData    = 3
	packetAck     = 4
	packetError   = 5
	packetOptions = 6
)

// TFTP returns a probe that reads a file as firmware does: with its size asked for, in blocks of 1468 bytes.
func TFTP(server netip.AddrPort, file string, verify Verify) func(context.Context) error {
	return func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, DefaultTimeout) // or its own, if that is shorter
		defer cancel()
		data, err := fetchTFTP(ctx, server, file)
		if err == nil {
			err = verify(data)
		}
		if err != nil {
			return fmt.Errorf("reading %s by TFTP from %s: %w", file, server, err)
		}
		return nil
	}
}

// reading is a file on its way. The client is our own: others' (pin/tftp's) do not hear that nobody listens at the server's port, and take a process that died
// for a network that is slow.
type reading struct {
	conn     *net.UDPConn
	server   netip.Addr
	to       netip.AddrPort // the port of the transfer, once it answers
	last     []byte         // our packet that is to be answered
	block    int            // of the file
	size     int            // that was promised; -1: none was
	data     []byte
	finished bool
}

func fetchTFTP(ctx context.Context, server netip.AddrPort, file string) ([]byte, error) {
	conn, err := listenForErrors(server.Addr())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	patience := time.Until(deadline) / probeTries
	defer context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })() // it may end sooner
	r := &reading{conn: conn, server: server.Addr(), to: server, block: plainBlock, size: -1}
	r.last = fmt.Appendf([]byte{0, packetRead}, "%s\x00octet\x00tsize\x000\x00blksize\x00%d\x00", file, probeBlock)
	packet := make([]byte, probeBlock+64)
	for !r.finished {
		if _, err := conn.WriteToUDPAddrPort(r.last, r.to); err != nil {
			return nil, err
		}
		conn.SetReadDeadline(time.Now().Add(patience))
		for again := false; !again && !r.finished; {
			n, from, err := conn.ReadFromUDPAddrPort(packet)
			switch {
			case ctx.Err() != nil:
				return nil, ctx.Err()
			case errors.Is(err, os.ErrDeadlineExceeded):
				again = true // nothing came: the last packet once more
			case err != nil:
				return nil, err
			default:
				if again, err = r.take(from, packet[:n]); err != nil {
					return nil, err
				}
			}
		}
	}
	if r.size >= 0 && r.size != len(r.data) {
		return nil, fmt.Errorf("%d bytes came, %d were promised", len(r.data), r.size)
	}
	return r.data, nil
}

// take takes a packet in, and reports whether it is to be answered.
func (r *reading) take(from netip.AddrPort, p []byte) (answer bool, err error) {
	first := len(r.data) == 0 && r.last[1] == packetRead
	if from.Addr().Unmap() != r.server || !first && from != r.to || len(p) < 4 {
		return false, nil // a stranger's
	}
	number := binary.BigEndian.Uint16(p[2:])
	switch p[1] {
	case packetError:
		return false, fmt.Errorf("the server says: %q (error %d)", strings.TrimRight(string(p[4:]), "\x00"), number)
	case packetOptions:
		if !first {
			return false, nil
		}
		r.to, r.last = from, []byte{0, packetAck, 0, 0}
		return true, r.agree(string(p[2:]))
	case packetData:
		if number != binary.BigEndian.Uint16(r.expected()) {
			return false, nil // a repetition
		}
		r.to, r.last = from, append([]byte{0, packetAck}, p[2:4]...)
		if r.data = append(r.data, p[4:]...); len(r.data) > maxFetch {
			return false, errors.New("larger than 16 MiB")
		}
		if r.finished = len(p)-4 < r.block; r.finished {
			_, err = r.conn.WriteToUDPAddrPort(r.last, r.to)
		}
		return true, err
	}
	return false, nil
}

// expected returns the number of the next block, as it is on the wire.
func (r *reading) expected() []byte {
	if r.last[1] == packetRead {
		return []byte{0, 1}
	}
	return binary.BigEndian.AppendUint16(nil, binary.BigEndian.Uint16(r.last[2:])+1)
}

// agree takes the options in that the server confirms (RFC 2348, RFC 2349).
func (r *reading) agree(options string) error {
	fields := strings.Split(options, "\x00")
	for i := 0; i+1 < len(fields); i += 2 {
		n, err := strconv.Atoi(fields[i+1])
		switch name := strings.ToLower(fields[i]); {
		case name != "blksize" && name != "tsize":
		case err != nil || n < 0 || name == "blksize" && (n < 8 || n > probeBlock):
			return fmt.Errorf("the server confirms %s %q, which was not asked for", name, fields[i+1])
		case name == "blksize":
			r.block = n
		default:
			r.size = n
		}
	}
	return nil
}
