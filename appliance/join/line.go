package join

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net/netip"
	"strings"
)

// Line is what the new node is given: where to ask, whom to believe, and the right to be answered once.
type Line struct {
	Address     netip.AddrPort // IPv4
	Fingerprint [16]byte       // the first half of the SHA-256 of the waiting node's certificate: nobody finds a second one
	Token       [16]byte
}

const (
	linePrefix = "eb1."
	lineBytes  = 4 + 2 + 16 + 16 + 4 // address, port, fingerprint, token, check sum
)

// String returns the line: a word of 60 letters, digits, '-', '_' and a dot.
func (l Line) String() string {
	ip := l.Address.Addr().As4()
	b := binary.BigEndian.AppendUint16(ip[:], l.Address.Port())
	b = append(append(b, l.Fingerprint[:]...), l.Token[:]...)
	b = binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
	return linePrefix + base64.RawURLEncoding.EncodeToString(b)
}

// ErrLine says that a text is no line, or not a whole one.
var ErrLine = errors.New("this is not the line that everboot init or everboot invite prints, or not all of it: it begins with " + linePrefix + " and has no spaces")

// ParseLine reads a line, alone or within the command that it is printed in.
func ParseLine(text string) (Line, error) {
	fields := strings.Fields(text)
	if len(fields) == 0 {
		return Line{}, ErrLine
	}
	word, ok := strings.CutPrefix(fields[len(fields)-1], linePrefix)
	b, err := base64.RawURLEncoding.Strict().DecodeString(word)
	if !ok || err != nil || len(b) != lineBytes || binary.BigEndian.Uint32(b[lineBytes-4:]) != crc32.ChecksumIEEE(b[:lineBytes-4]) {
		return Line{}, ErrLine
	}
	l := Line{Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte(b)), binary.BigEndian.Uint16(b[4:]))}
	copy(l.Fingerprint[:], b[6:])
	copy(l.Token[:], b[22:])
	return l, nil
}

// newLine makes a line for a certificate (DER), with a token of its own.
func newLine(at netip.AddrPort, certificate []byte) Line {
	l := Line{Address: at, Fingerprint: fingerprint(certificate)}
	if _, err := rand.Read(l.Token[:]); err != nil {
		panic(fmt.Sprint("no random numbers: ", err)) // crypto/rand: it never returns one
	}
	return l
}

func fingerprint(certificate []byte) [16]byte {
	sum := sha256.Sum256(certificate)
	return [16]byte(sum[:])
}
