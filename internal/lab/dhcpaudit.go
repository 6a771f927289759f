package lab

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// Audit is what a capture says about the addresses that were given in it.
type Audit struct {
	Clients  int             // that sent a DISCOVER
	Waits    []time.Duration // from each client's first DISCOVER to its first ACK, sorted
	Silent   int             // clients without an ACK
	Acks     int
	Naks     int
	Twice    []string // addresses that two clients were given
	Changed  []string // clients that were given two addresses
	Servers  map[string]int
	firstAsk map[string]time.Time
	has      map[string]netip.Addr
	holder   map[netip.Addr]string
}

// AuditLeases reads all DHCP of the segment's capture.
func (s *Segment) AuditLeases() (*Audit, error) {
	a := &Audit{Servers: make(map[string]int), firstAsk: make(map[string]time.Time), has: make(map[string]netip.Addr), holder: make(map[netip.Addr]string)}
	if err := s.frames(a.frame); err != nil {
		return nil, err
	}
	a.Clients = len(a.firstAsk)
	a.Silent = a.Clients - len(a.Waits)
	slices.Sort(a.Waits)
	return a, nil
}

// Worst is the longest that a client waited; Within is how long all but one in a thousand did.
func (a *Audit) Worst() time.Duration { return a.at(1) }

// Within is how long all but one in a hundred waited.
func (a *Audit) Within() time.Duration { return a.at(0.99) }

func (a *Audit) at(part float64) time.Duration {
	if len(a.Waits) == 0 {
		return 0
	}
	return a.Waits[int(part*float64(len(a.Waits)-1))]
}

const etherHeader = 14

func (a *Audit) frame(at time.Time, b []byte) {
	if len(b) < etherHeader+28 || b[12] != 8 || b[13] != 0 || b[etherHeader+9] != 17 {
		return
	}
	ip := b[etherHeader:]
	udp := ip[int(ip[0]&15)*4:]
	if len(udp) < 8 || binary.BigEndian.Uint16(udp) != 67 && binary.BigEndian.Uint16(udp) != 68 {
		return
	}
	m, err := dhcpv4.FromBytes(udp[8:])
	if err != nil {
		return
	}
	mac := m.ClientHWAddr.String()
	switch m.MessageType() {
	case dhcpv4.MessageTypeDiscover:
		if _, ok := a.firstAsk[mac]; !ok {
			a.firstAsk[mac] = at
		}
	case dhcpv4.MessageTypeNak:
		a.Naks++
	case dhcpv4.MessageTypeAck:
		a.ack(at, mac, m, net.HardwareAddr(b[6:12]).String())
	}
}

func (a *Audit) ack(at time.Time, mac string, m *dhcpv4.DHCPv4, server string) {
	a.Acks++
	a.Servers[server]++
	addr, _ := netip.AddrFromSlice(m.YourIPAddr.To4())
	if other, ok := a.holder[addr]; ok && other != mac {
		a.Twice = append(a.Twice, fmt.Sprintf("%s: %s and %s", addr, other, mac))
	}
	a.holder[addr] = mac
	had, known := a.has[mac]
	if known && had != addr {
		a.Changed = append(a.Changed, fmt.Sprintf("%s: %s and %s", mac, had, addr))
	}
	a.has[mac] = addr
	if asked, ok := a.firstAsk[mac]; ok && !known {
		a.Waits = append(a.Waits, at.Sub(asked))
	}
}
