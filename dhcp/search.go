package dhcp

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"everboot/site"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// Other DHCP servers of the segment are looked for: now and then one appliance asks as a client would that boots, and hears who answers besides us. It never takes what it is
// offered: some servers hold an offered address for a minute or two, and for this one client (searcherMAC).

const (
	// searchEvery and its spread are the pause between two searches. The first comes when a router that starts knows whether it is the active one.
	searchEvery  = 5 * time.Minute
	searchSpread = 30 * time.Second
	searchFirst  = 10 * time.Second
	searchTick   = 10 * time.Second // a look whether it is our turn
	// listenFor is how long answers are waited for: servers that ask by ICMP or ARP first take up to 3 s. The question is repeated half way, by a client
	// that has waited, for servers that leave others the first word (secs; dnsmasq's and Kea's delays).
	listenFor  = 6 * time.Second
	waitedSecs = 10
)

// SearchConfig says what is searched where.
type SearchConfig struct {
	Interface string
	Site      string
	Node      netip.Addr            // of this appliance, by which the others know that a search is of their service
	Proxy     bool                  // others are expected to give addresses: only those that say where to boot from are named
	Ours      func(netip.Addr) bool // whether a server or source address is of this service
	Active    func() bool           // whether it is ours to search. Nil: it is
}

// Rival is another DHCP server of the segment that answered us.
type Rival struct {
	Server    netip.Addr `json:"server"` // its identifier (option 54)
	Source    netip.Addr `json:"source"` // of its packet
	MAC       site.MAC   `json:"mac"`    // of its frame: the server's, or the relay agent's
	Addresses bool       `json:"addresses"`
	Boots     bool       `json:"boots"`
	Everboot  string     `json:"everboot,omitempty"` // the site that it is of, if it is an everboot
	First     time.Time  `json:"first"`
	Last      time.Time  `json:"last"`
}

// Text says what it does, and who it is.
func (r Rival) Text() string {
	does := "gives addresses"
	switch {
	case r.Addresses && r.Boots:
		does = "gives addresses and says where to boot from"
	case r.Boots:
		does = "says where to boot from"
	}
	who := ""
	if r.Everboot != "" {
		who = fmt.Sprintf(" an everboot of site %q,", r.Everboot)
	}
	return fmt.Sprintf("another DHCP server, %s (from %s, MAC %s),%s %s on this segment", r.Server, r.Source, r.MAC, who, does)
}

// question returns the DISCOVER of a search: a firmware's, so that boot servers answer, too, and for an answer to all, since nobody has an address to answer to.
func (c SearchConfig) question(own site.MAC, xid dhcpv4.TransactionID, secs uint16) *dhcpv4.DHCPv4 {
	asks, tag := searcherMAC(c.Site), tagOf(c.Site)
	q := &dhcpv4.DHCPv4{
		OpCode: dhcpv4.OpcodeBootRequest, HWType: 1, TransactionID: xid, NumSeconds: secs, ClientHWAddr: asks[:], Options: make(dhcpv4.Options),
		ClientIPAddr: netIP(netip.IPv4Unspecified()), YourIPAddr: netIP(netip.IPv4Unspecified()),
		ServerIPAddr: netIP(netip.IPv4Unspecified()), GatewayIPAddr: netIP(netip.IPv4Unspecified()),
	}
	q.SetBroadcast()
	q.UpdateOption(dhcpv4.OptMessageType(dhcpv4.MessageTypeDiscover))
	for code, value := range map[dhcpv4.OptionCode][]byte{
		dhcpv4.OptionClientIdentifier:                 append([]byte(searchID), tag[:]...),
		dhcpv4.OptionClassIdentifier:                  []byte(vendorPXE + ":Arch:00007:UNDI:003016"),
		dhcpv4.OptionClientSystemArchitectureType:     {0, byte(site.ArchX64)},
		dhcpv4.OptionClientNetworkInterfaceIdentifier: {1, 3, 16},
		dhcpv4.OptionClientMachineIdentifier:          machineID(c.Node, own),
		dhcpv4.OptionMaximumDHCPMessageSize:           {1500 >> 8, 1500 & 0xff},
		dhcpv4.OptionParameterRequestList:             {1, 3, 6, 43, 54, 60, 66, 67},
	} {
		q.Options[code.Code()] = value
	}
	return q
}

// rivalOf reads an answer to a search out of an Ethernet frame.
func rivalOf(frame []byte, xid dhcpv4.TransactionID) (r Rival, ok bool) {
	const ethHeader = 14
	if len(frame) < ethHeader+ipHeader || binary.BigEndian.Uint16(frame[12:]) != 0x0800 {
		return r, false
	}
	ip := frame[ethHeader:]
	head := int(ip[0]&0xf) * 4
	if ip[0]>>4 != 4 || head < ipHeader || len(ip) < head+udpHeader || ip[9] != protoUDP || binary.BigEndian.Uint16(ip[6:])&0x3fff != 0 {
		return r, false
	}
	udp := ip[head:]
	if binary.BigEndian.Uint16(udp[2:]) != dhcpv4.ClientPort {
		return r, false
	}
	p, err := dhcpv4.FromBytes(udp[udpHeader:])
	if err != nil || p.OpCode != dhcpv4.OpcodeBootReply || p.TransactionID != xid || p.MessageType() != dhcpv4.MessageTypeOffer {
		return r, false
	}
	r.MAC, r.Source = site.MAC(frame[6:12]), netip.AddrFrom4([4]byte(ip[12:16]))
	if r.Server, _ = optionAddr(p, dhcpv4.OptionServerIdentifier); !r.Server.IsValid() {
		r.Server = r.Source
	}
	yours, _ := headerAddr(p.YourIPAddr)
	r.Addresses = yours.IsValid()
	class := p.ClassIdentifier()
	// That siaddr is filled in says nothing: some always name themselves there.
	r.Boots = p.BootFileName != "" || p.Options.Has(dhcpv4.OptionBootfileName) || p.Options.Has(dhcpv4.OptionTFTPServerName) ||
		strings.HasPrefix(class, vendorPXE) || strings.HasPrefix(class, vendorHTTP)
	if name, gives, ok := introduction(p); ok {
		r.Everboot, r.Addresses, r.Boots = name, gives, true
	}
	return r, r.Addresses || r.Boots
}

// rivalList is the servers that answered; it is bounded as the list of those that clients name.
type rivalList []Rival

// note adds a sighting and reports whether it is news.
func (l *rivalList) note(now time.Time, r Rival) bool {
	*l = l.lately(now)
	r.First, r.Last = now, now
	i := slices.IndexFunc(*l, func(o Rival) bool { return o.Server == r.Server && o.MAC == r.MAC })
	switch {
	case i >= 0:
		o := &(*l)[i]
		news := r.Addresses && !o.Addresses || r.Boots && !o.Boots || r.Everboot != o.Everboot && r.Everboot != ""
		r.First, r.Addresses, r.Boots, r.Everboot = o.First, r.Addresses || o.Addresses, r.Boots || o.Boots, cmp.Or(r.Everboot, o.Everboot)
		*o = r
		return news
	case len(*l) < maxForeign:
		*l = append(*l, r)
		return true
	}
	return false
}

// lately returns those that answered in the last searches.
func (l rivalList) lately(now time.Time) rivalList {
	return slices.DeleteFunc(slices.Clone(l), func(r Rival) bool { return now.Sub(r.Last) > rivalFor })
}

// rivalFor is how long a server is spoken of after it answered: two searches without it, and it is gone.
const rivalFor = 2*searchEvery + 2*searchSpread

// ear is a socket that asks, and hears what comes to DHCP clients.
type ear interface {
	Own() site.MAC
	Ask(q *dhcpv4.DHCPv4) error
	Close()
}

// Search looks for other DHCP servers.
type Search struct {
	cfg    SearchConfig
	events func(site.Event)
	log    *slog.Logger
	ready  chan struct{}
	open   func(link string, heard func(frame []byte)) (ear, error)
	said   string // the error that was logged

	mu     sync.Mutex
	rivals rivalList
	last   time.Time // when the last search ended
}

// NewSearch returns a search. events must not block, and may be nil.
func NewSearch(cfg SearchConfig, events func(site.Event), log *slog.Logger) *Search {
	if events == nil {
		events = func(site.Event) {}
	}
	if cfg.Active == nil {
		cfg.Active = func() bool { return true }
	}
	return &Search{cfg: cfg, events: events, log: log, ready: make(chan struct{}), open: openEar}
}

// Ready is closed when it runs: nothing waits for what it finds.
func (s *Search) Ready() <-chan struct{} { return s.ready }

// Run searches now and then until ctx ends.
func (s *Search) Run(ctx context.Context) error {
	close(s.ready)
	next := time.Now().Add(searchFirst + rand.N(searchFirst))
	tick := time.NewTicker(searchTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if now := time.Now(); now.Before(next) || !s.cfg.Active() {
			continue
		}
		err := s.once(ctx)
		if err != nil && err.Error() != s.said {
			s.log.Warn("cannot look for other DHCP servers", "interface", s.cfg.Interface, "error", err)
		}
		s.said = fmt.Sprint(err)
		next = time.Now().Add(searchEvery - searchSpread + rand.N(2*searchSpread))
	}
}

// Look searches once, for some seconds, and returns who answered.
func (s *Search) Look(ctx context.Context) ([]Rival, error) {
	err := s.once(ctx)
	return s.Rivals(), err
}

// once asks, and takes in who answers.
func (s *Search) once(ctx context.Context) error {
	var xid dhcpv4.TransactionID
	binary.BigEndian.PutUint32(xid[:], rand.Uint32())
	e, err := s.open(s.cfg.Interface, func(frame []byte) { s.hear(frame, xid) })
	if err != nil {
		return err
	}
	defer e.Close()
	for _, secs := range []uint16{0, waitedSecs} {
		if err := e.Ask(s.cfg.question(e.Own(), xid, secs)); err != nil {
			return fmt.Errorf("asking on %s: %w", s.cfg.Interface, err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(listenFor / 2):
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = time.Now()
	return nil
}

func (s *Search) hear(frame []byte, xid dhcpv4.TransactionID) {
	r, ok := rivalOf(frame, xid)
	if !ok || s.cfg.Ours(r.Server) || s.cfg.Ours(r.Source) || s.cfg.Proxy && !r.Boots {
		return
	}
	now := time.Now()
	s.mu.Lock()
	news := s.rivals.note(now, r)
	s.mu.Unlock()
	if news {
		s.log.Warn(r.Text(), "server", r.Server, "source", r.Source, "mac", r.MAC)
		s.events(site.Event{At: now, MAC: r.MAC, What: "other-server", Detail: r.Text()})
	}
}

// Rivals returns the servers that answered in the last searches.
func (s *Search) Rivals() []Rival {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rivals.lately(time.Now())
}

// Last returns when the last search ended; zero: there was none.
func (s *Search) Last() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}
