package pair

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"time"

	"everboot/dhcp/leases"
	"everboot/site"
)

// format is the first byte of each message. A node that does not know it drops the message and says so.
const format = 1

// maxMessage keeps a message in one datagram of the peer channel.
const maxMessage = 1150

type kind byte

const (
	kindBeat   kind = 1
	kindUpdate kind = 2
	kindAck    kind = 3
)

// head is what every message begins with. An incarnation is one run of a node's server.
type head struct {
	from        netip.Addr
	incarnation uint64
}

// echo tells a peer which of its beats its sender heard last, so that the peer knows what the sender's words can be based on without
// any clock but its own.
type echo struct {
	to          netip.Addr
	incarnation uint64
	beat        uint32
	inTouch     bool // the sender tells that peer of every change
}

// beat is sent a few times a second, to all peers.
type beat struct {
	head
	number  uint32
	owed    time.Duration // for how long the oldest change is unconfirmed; negative: the comparison is not over
	longest time.Duration // the longest lease that it gives
	ready   bool          // it answers clients
	echoes  []echo
}

// update carries records of addresses.
type update struct {
	head
	seq    uint32
	echoes []echo
	leases []leases.Lease
}

// ack confirms updates of one peer.
type ack struct {
	head
	to   echo // to whom; without a beat
	seqs []uint32
}

// Limits of what a message may hold; a message of maxMessage bytes holds less.
const (
	maxPeers = 16
	maxSeqs  = 250
	maxAge   = 10 * 365 * 24 * time.Hour
)

var (
	errFormat = errors.New("a format that we do not know: run the same version on all appliances")
	errShort  = errors.New("the message is cut short or malformed")
)

var states = []leases.State{leases.Bound, leases.Declined, leases.Released}

func (h head) append(k kind) []byte {
	b := []byte{format, byte(k)}
	b = appendAddr(b, h.from)
	return binary.BigEndian.AppendUint64(b, h.incarnation)
}

func appendAddr(b []byte, a netip.Addr) []byte {
	return append(append(b, byte(a.BitLen()/8)), a.AsSlice()...)
}

func appendEchoes(b []byte, list []echo) []byte {
	b = append(b, byte(len(list)))
	for _, e := range list {
		b = appendAddr(b, e.to)
		b = binary.BigEndian.AppendUint64(b, e.incarnation)
		b = append(binary.BigEndian.AppendUint32(b, e.beat), truth(e.inTouch))
	}
	return b
}

func (m beat) marshal() []byte {
	b := m.append(kindBeat)
	b = binary.BigEndian.AppendUint32(b, m.number)
	b = binary.AppendVarint(b, m.owed.Milliseconds())
	b = binary.AppendVarint(b, m.longest.Milliseconds())
	b = append(b, truth(m.ready))
	return appendEchoes(b, m.echoes)
}

func (m ack) marshal() []byte {
	b := m.append(kindAck)
	b = appendEchoes(b, []echo{m.to})
	b = append(b, byte(len(m.seqs)))
	for _, s := range m.seqs {
		b = binary.BigEndian.AppendUint32(b, s)
	}
	return b
}

// begin returns an update without leases; appendLease adds them.
func (m update) begin() []byte {
	b := m.append(kindUpdate)
	b = binary.BigEndian.AppendUint32(b, m.seq)
	return appendEchoes(b, m.echoes)
}

// appendLease adds a record. Times go as distances from now: the clocks of two nodes need not agree.
func appendLease(b []byte, now time.Time, l leases.Lease) []byte {
	b = appendAddr(b, l.Address)
	b = append(b, stateByte(l.State), truth(l.Reserved))
	b = binary.AppendUvarint(b, l.Version)
	b = binary.AppendVarint(b, l.Start.Sub(now).Milliseconds())
	b = binary.AppendVarint(b, l.Expires.Sub(now).Milliseconds())
	b = append(b, l.MAC[:]...)
	b = append(append(b, byte(len(l.Client))), l.Client...)
	return append(append(b, byte(len(l.Name))), l.Name...)
}

func stateByte(s leases.State) byte {
	for i, known := range states {
		if s == known {
			return byte(i)
		}
	}
	return 0xff
}

func truth(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// parse reads a message; it returns a beat, an update or an ack. Times become those of now's clock.
func parse(now time.Time, b []byte) (any, error) {
	r := reader{b: b}
	if r.byte() != format {
		return nil, errFormat
	}
	k := kind(r.byte())
	h := head{from: r.addr(), incarnation: r.uint64()}
	var m any
	switch k {
	case kindBeat:
		m = beat{
			head: h, number: r.uint32(), owed: r.duration(), longest: r.duration(), ready: r.byte() == 1, echoes: r.echoes(),
		}
	case kindUpdate:
		u := update{head: h, seq: r.uint32(), echoes: r.echoes()}
		for !r.bad && len(r.b) > 0 {
			u.leases = append(u.leases, r.lease(now))
		}
		m = u
	case kindAck:
		a := ack{head: h}
		if to := r.echoes(); len(to) == 1 {
			a.to = to[0]
		}
		for range int(r.byte()) {
			a.seqs = append(a.seqs, r.uint32())
		}
		m = a
	default:
		return nil, errFormat
	}
	if r.bad || len(r.b) > 0 {
		return nil, errShort
	}
	return m, nil
}

// reader takes a message apart; bad says that it asked for what is not there.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if r.bad || n > len(r.b) {
		r.bad = true
		return make([]byte, n)
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) byte() byte     { return r.take(1)[0] }
func (r *reader) uint32() uint32 { return binary.BigEndian.Uint32(r.take(4)) }
func (r *reader) uint64() uint64 { return binary.BigEndian.Uint64(r.take(8)) }
func (r *reader) text() string   { return string(r.take(int(r.byte()))) }

func (r *reader) addr() netip.Addr {
	n := int(r.byte())
	if n != 4 && n != 16 {
		r.bad = true
		return netip.Addr{}
	}
	a, _ := netip.AddrFromSlice(r.take(n))
	return a
}

// duration reads milliseconds, up to maxAge in either direction.
func (r *reader) duration() time.Duration {
	ms, n := binary.Varint(r.b)
	if n <= 0 || r.bad || ms > maxAge.Milliseconds() || ms < -maxAge.Milliseconds() {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return time.Duration(ms) * time.Millisecond
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || r.bad {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) echoes() (list []echo) {
	n := int(r.byte())
	if n > maxPeers {
		r.bad = true
	}
	for range n {
		if r.bad {
			return nil
		}
		list = append(list, echo{to: r.addr(), incarnation: r.uint64(), beat: r.uint32(), inTouch: r.byte() == 1})
	}
	return list
}

func (r *reader) lease(now time.Time) leases.Lease {
	l := leases.Lease{Address: r.addr()}
	if s := int(r.byte()); s < len(states) {
		l.State = states[s]
	} else {
		r.bad = true
	}
	l.Reserved = r.byte() == 1
	l.Version = r.uvarint()
	l.Start, l.Expires = now.Add(r.duration()), now.Add(r.duration())
	l.MAC = site.MAC(r.take(len(l.MAC)))
	l.Client, l.Name = leases.Client(r.text()), r.text()
	return l
}
