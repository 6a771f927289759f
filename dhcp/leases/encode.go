package leases

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"time"

	"everboot/site"
)

// The states on disk; an offer is never there.
var diskStates = []State{Bound, Declined, Released, Expired}

var errRecord = errors.New("a record is not that of a lease")

// encode appends a lease: the address with a length byte first, so that a reader that looks for the last record of each need not read
// the rest.
func encode(b []byte, l Lease) []byte {
	b = append(append(b, byte(l.Address.BitLen()/8)), l.Address.AsSlice()...)
	flags := byte(0)
	if l.Reserved {
		flags = 1
	}
	b = append(b, byte(slices.Index(diskStates, l.State)), flags)
	b = binary.AppendUvarint(b, l.Version)
	b = binary.BigEndian.AppendUint64(b, uint64(l.Start.UnixNano()))
	b = binary.BigEndian.AppendUint64(b, uint64(l.Expires.UnixNano()))
	b = append(b, l.MAC[:]...)
	b = append(append(b, byte(len(l.Client))), l.Client...)
	return append(append(b, byte(len(l.Name))), l.Name...)
}

// key returns the encoded address at the beginning of a record.
func key(b []byte) (string, error) {
	if len(b) == 0 || b[0] != 4 && b[0] != 16 || len(b) < 1+int(b[0]) {
		return "", errRecord
	}
	return string(b[:1+b[0]]), nil
}

func decode(b []byte) (l Lease, err error) {
	k, err := key(b)
	if err != nil {
		return l, err
	}
	l.Address, _ = netip.AddrFromSlice([]byte(k[1:]))
	b = b[len(k):]
	if len(b) < 3 || int(b[0]) >= len(diskStates) {
		return l, errRecord
	}
	l.State, l.Reserved = diskStates[b[0]], b[1]&1 != 0
	version, n := binary.Uvarint(b[2:])
	if n <= 0 || len(b) < 2+n+16+len(l.MAC) {
		return l, errRecord
	}
	l.Version, b = version, b[2+n:]
	l.Start = time.Unix(0, int64(binary.BigEndian.Uint64(b)))
	l.Expires = time.Unix(0, int64(binary.BigEndian.Uint64(b[8:])))
	l.MAC, b = site.MAC(b[16:16+len(l.MAC)]), b[16+len(l.MAC):]
	client, b, ok := text(b)
	name, b, ok2 := text(b)
	if !ok || !ok2 || len(b) > 0 {
		return l, errRecord
	}
	l.Client, l.Name = Client(client), name
	return l, nil
}

// text reads a string with a length byte.
func text(b []byte) (s string, rest []byte, ok bool) {
	if len(b) == 0 {
		return "", nil, false
	}
	end := 1 + int(b[0])
	if len(b) < end {
		return "", nil, false
	}
	return string(b[1:end]), b[end:], true
}
