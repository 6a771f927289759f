package peers

import "encoding/binary"

// A message on the wire is:
//
//	format  1 byte, always 1
//	name    1 byte length, then the sender's node name
//	topic   1 byte
//	body    the rest
//
// and the whole is format and name, then for each topic: topic, 4 bytes length (big-endian), body.
const (
	format  = 1
	maxName = 64
)

// Drop says why something that came in was not handed on.
type Drop string

// Why messages are dropped.
const (
	DropMalformed Drop = "malformed"
	DropTopic     Drop = "unknown_topic" // of a newer version, or of a room that is off here
	DropFull      Drop = "queue_full"    // ours, that found too many before it
	DropLong      Drop = "too_long"      // ours
	DropUnsent    Drop = "unsent"        // ours, that the network or the peer did not take
)

func header(node string) []byte {
	return append([]byte{format, byte(len(node))}, node...)
}

func marshal(node string, topic Topic, body []byte) []byte {
	return append(append(header(node), byte(topic)), body...)
}

// parseHeader returns who sent something, and the rest.
func parseHeader(b []byte) (from string, rest []byte, ok bool) {
	if len(b) < 2 || b[0] != format {
		return "", nil, false
	}
	n := int(b[1])
	if n == 0 || n > maxName || len(b) < 2+n {
		return "", nil, false
	}
	return string(b[2 : 2+n]), b[2+n:], true
}

func parse(b []byte) (from string, topic Topic, body []byte, ok bool) {
	from, rest, ok := parseHeader(b)
	if !ok || len(rest) == 0 {
		return "", 0, nil, false
	}
	return from, Topic(rest[0]), rest[1:], true
}

// part is one room's share of the whole.
type part struct {
	topic Topic
	body  []byte
}

func marshalWhole(node string, parts []part) []byte {
	b := header(node)
	for _, p := range parts {
		b = append(b, byte(p.topic))
		b = binary.BigEndian.AppendUint32(b, uint32(len(p.body)))
		b = append(b, p.body...)
	}
	return b
}

func parseWhole(b []byte) (from string, parts []part, ok bool) {
	from, rest, ok := parseHeader(b)
	if !ok {
		return "", nil, false
	}
	for len(rest) > 0 {
		if len(rest) < 5 {
			return "", nil, false
		}
		n := binary.BigEndian.Uint32(rest[1:5])
		if uint64(n) > uint64(len(rest)-5) {
			return "", nil, false
		}
		parts = append(parts, part{Topic(rest[0]), rest[5 : 5+n]})
		rest = rest[5+n:]
	}
	return from, parts, true
}
