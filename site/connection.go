package site

import (
	"encoding/binary"
	"net/netip"
)

// Connection is a TCP connection of a target to an appliance: the four-tuple that names it on the wire.
type Connection struct {
	Local  netip.AddrPort `json:"local"`  // the appliance's side, at a floating address
	Remote netip.AddrPort `json:"remote"` // the target's side
}

// ConnectionLen is the length of a Connection in bytes, as Append writes it.
const ConnectionLen = 2 * addrPortLen

const addrPortLen = 16 + 2

// Append appends local and remote address as 16 bytes each (RFC 4291 §2.5.5.2 for IPv4), the port behind each (big-endian). The zero
// Connection is zeros.
func (c Connection) Append(b []byte) []byte {
	for _, a := range []netip.AddrPort{c.Local, c.Remote} {
		addr := [16]byte{}
		if a.IsValid() {
			addr = a.Addr().As16()
		}
		b = append(b, addr[:]...)
		b = binary.BigEndian.AppendUint16(b, a.Port())
	}
	return b
}

// ParseConnection reads what Append wrote. It returns false if b has another length.
func ParseConnection(b []byte) (Connection, bool) {
	if len(b) != ConnectionLen {
		return Connection{}, false
	}
	return Connection{Local: parseAddrPort(b[:addrPortLen]), Remote: parseAddrPort(b[addrPortLen:])}, true
}

func parseAddrPort(b []byte) netip.AddrPort {
	addr := netip.AddrFrom16([16]byte(b[:16])).Unmap()
	port := binary.BigEndian.Uint16(b[16:])
	if addr == netip.IPv6Unspecified() && port == 0 {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(addr, port)
}
