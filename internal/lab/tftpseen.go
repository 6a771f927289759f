package lab

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// TFTPSeen is what a client that asked for a file was sent, by the capture.
type TFTPSeen struct {
	Client  netip.AddrPort
	Server  netip.Addr
	File    string
	Content []byte // the blocks, each once however often it was sent
	Err     error  // a block that came in two versions, or out of order
	blocks  [][]byte
}

// TFTPSeen puts together what servers at port 69 sent over IPv4, in the order of the requests. A request that is repeated before its first
// block is one; a client that begins again from the same port is another.
func (s *Segment) TFTPSeen() ([]*TFTPSeen, error) {
	a := tftpAudit{latest: make(map[netip.AddrPort]*TFTPSeen)}
	if err := s.frames(func(_ time.Time, b []byte) { a.frame(b) }); err != nil {
		return nil, err
	}
	for _, seen := range a.all {
		seen.Content = bytes.Join(seen.blocks, nil)
	}
	return a.all, nil
}

const tftpPort = 69

type tftpAudit struct {
	all    []*TFTPSeen
	latest map[netip.AddrPort]*TFTPSeen // by client
}

func (a *tftpAudit) frame(b []byte) {
	if len(b) < etherHeader+28 || b[12] != 8 || b[13] != 0 || b[etherHeader+9] != 17 {
		return
	}
	ip := b[etherHeader:]
	from, to := netip.AddrFrom4([4]byte(ip[12:])), netip.AddrFrom4([4]byte(ip[16:]))
	udp := ip[int(ip[0]&15)*4:]
	if len(udp) < 12 {
		return
	}
	sport, dport := binary.BigEndian.Uint16(udp), binary.BigEndian.Uint16(udp[2:])
	payload := udp[8:min(len(udp), max(8, int(binary.BigEndian.Uint16(udp[4:]))))] // without Ethernet's padding
	if len(payload) < 4 {
		return
	}
	switch opcode := binary.BigEndian.Uint16(payload); {
	case dport == tftpPort && opcode == 1:
		a.request(netip.AddrPortFrom(from, sport), to, payload[2:])
	case sport == tftpPort && opcode == 3:
		if seen := a.latest[netip.AddrPortFrom(to, dport)]; seen != nil {
			seen.block(binary.BigEndian.Uint16(payload[2:]), payload[4:])
		}
	}
}

func (a *tftpAudit) request(client netip.AddrPort, server netip.Addr, rest []byte) {
	name, _, _ := bytes.Cut(rest, []byte{0})
	if was := a.latest[client]; was != nil && was.File == string(name) && len(was.blocks) == 0 {
		return
	}
	seen := &TFTPSeen{Client: client, Server: server, File: string(name)}
	a.all, a.latest[client] = append(a.all, seen), seen
}

// block takes a block by its number, of which the wire has 16 bits.
func (s *TFTPSeen) block(number uint16, content []byte) {
	behind := int(int16(uint16(len(s.blocks)+1) - number))
	switch index := len(s.blocks) - behind; {
	case behind == 0:
		s.blocks = append(s.blocks, content)
	case behind < 0 || index < 0:
		s.Err = errors.Join(s.Err, fmt.Errorf("block %d came after %d blocks", number, len(s.blocks)))
	case !bytes.Equal(s.blocks[index], content):
		s.Err = errors.Join(s.Err, fmt.Errorf("block %d came in two versions", number))
	}
}
