package tftp

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"syscall"
	"time"

	"everboot/site"
)

const (
	// DefaultListen is TFTP's port on every address of the host (RFC 1350 §4).
	DefaultListen = ":69"
	// DefaultMaxTransfers bounds memory: a transfer costs about 1 KB.
	DefaultMaxTransfers = 8192
	// DefaultPerClient bounds what one address can have at once; behind an address translation sit many machines.
	DefaultPerClient = 256
	// DefaultMTU is Ethernet's.
	DefaultMTU = 1500
	// DefaultWindow is the largest window that is granted (RFC 7440). A longer one gains nothing and loses more with each packet that is lost.
	DefaultWindow = 64
)

// BlockLimit bounds the block size of the clients of a subnet, such as one behind a tunnel.
type BlockLimit struct {
	Network netip.Prefix
	Block   int // bytes of content in a packet
}

// Config of a TFTP server. The zero Config means the defaults.
type Config struct {
	Listen         string       // address and port; empty: DefaultListen. Without an address both IPv4 and IPv6 are served.
	MaxTransfers   int          // at once; 0: DefaultMaxTransfers
	PerClient      int          // of them, from one address; 0: DefaultPerClient
	MTU            int          // of the targets' interface; 0: DefaultMTU. Blocks never need fragments.
	EphemeralPorts bool         // each transfer has a port of its own, as RFC 1350 §4 has it, rather than that of Listen
	Blocks         []BlockLimit // the first that matches a client counts
	// Who tells which target has an address, for events; it may be nil. The zero MAC means that nobody knows.
	Who func(netip.Addr) site.MAC
	// Tell tells other appliances of transfers at floating addresses, so that one of them can lead them on; nil: there are none. It must not
	// block for long, and may keep the message. See Own, PeerChanged, PeerWhole and PeerMerge.
	Tell func(message []byte)
	// Keep is called with the socket once it is open, so that somebody may keep a duplicate of it: while there is one, the death of
	// this process makes no ICMP error that tells a client to give up. It may be nil.
	Keep func(syscall.Conn)
}

// Validate returns an error that says what to mend.
func (c Config) Validate() error {
	switch {
	case c.MaxTransfers < 0:
		return fmt.Errorf("tftp: %d transfers at once: use 1 or more, or leave it out", c.MaxTransfers)
	case c.PerClient < 0:
		return fmt.Errorf("tftp: %d transfers of one client: use 1 or more, or leave it out", c.PerClient)
	case c.MTU != 0 && c.MTU < minMTU:
		return fmt.Errorf("tftp: mtu %d: use %d or more, or leave it out", c.MTU, minMTU)
	}
	for _, b := range c.Blocks {
		if !b.Network.IsValid() || b.Block < minBlockLimit || b.Block > maxBlockLimit {
			return fmt.Errorf("tftp: block size %d for %v: use %d to %d", b.Block, b.Network, minBlockLimit, maxBlockLimit)
		}
	}
	_, err := c.address()
	return err
}

const (
	minMTU        = 576 // RFC 791: every host takes that
	minBlockLimit = 512 // what every client takes, asked or not (RFC 1350)
	maxBlockLimit = 65464
)

func (c Config) address() (*net.UDPAddr, error) {
	listen := c.Listen
	if listen == "" {
		listen = DefaultListen
	}
	a, err := net.ResolveUDPAddr("udp", listen)
	if err != nil {
		return nil, fmt.Errorf("tftp: listen %q: use ADDRESS:PORT or :PORT: %w", listen, err)
	}
	return a, nil
}

// block returns the largest block for a client.
func (c Config) block(client netip.Addr) int {
	most := c.MTU - ipHeader - udpHeader
	if client.Is6() {
		most = c.MTU - ip6Header - udpHeader
	}
	most -= 4 // TFTP's own header
	for _, b := range c.Blocks {
		if b.Network.Contains(client.WithZone("")) {
			return min(most, b.Block)
		}
	}
	return most
}

// Headers before a TFTP packet, in bytes.
const ipHeader, ip6Header, udpHeader = 20, 40, 8

// Server is a TFTP server. Unless Config.EphemeralPorts says otherwise all transfers use its one socket, so that their packets come from port 69, which other
// servers' do not: such transfers pass address translations and load balancers. Another appliance can lead them to their end in both cases.
type Server struct {
	cfg    Config
	files  *Files
	events func(site.Event)
	log    *slog.Logger
	ready  chan struct{}
	inbox  *inbox
	stats  counters
}

// NewServer returns a server of files. It tells events of transfers that targets made; events must not block and may be nil.
func NewServer(cfg Config, files *Files, events func(site.Event), log *slog.Logger) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	for _, d := range []struct {
		field *int
		value int
	}{{&cfg.MaxTransfers, DefaultMaxTransfers}, {&cfg.PerClient, DefaultPerClient}, {&cfg.MTU, DefaultMTU}} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	if events == nil {
		events = func(site.Event) {}
	}
	box, err := newInbox()
	if err != nil {
		return nil, fmt.Errorf("tftp: %w", err)
	}
	return &Server{cfg: cfg, files: files, events: events, log: log, ready: make(chan struct{}), inbox: box}, nil
}

// Ready closes when the port is open.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// String names the server in logs.
func (s *Server) String() string { return "tftp" }

// Run serves until ctx ends. Transfers under way then fall silent: the appliance that takes the address leads them on. Run may be called once.
func (s *Server) Run(ctx context.Context) error {
	defer s.inbox.close()
	addr, err := s.cfg.address()
	if err != nil {
		return err
	}
	socket, err := openSocket(addr)
	if err != nil {
		return err
	}
	defer socket.close()
	if s.cfg.Keep != nil {
		s.cfg.Keep(socket)
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	own, err := newPortSet()
	if err != nil {
		return fmt.Errorf("tftp: %w", err)
	}
	defer own.closeAll()
	o := newOwner(s, socket, own)
	helpers := o.start(ctx)
	close(s.ready)
	err = o.run(ctx)
	stop() // it may have ended by itself
	helpers.Wait()
	for _, call := range s.inbox.take() { // they give back what was opened meanwhile
		call(o)
	}
	return err
}

// tell sends an event about a target. Our own probes, this host's and the other appliances', are no steps of a boot.
func (s *Server) tell(ends *endpoints, detail string) {
	client := ends.client().Addr()
	if s.probes(ends) {
		return
	}
	e := site.Event{At: time.Now(), What: "tftp", Detail: detail + " to " + client.String()}
	if s.cfg.Who != nil {
		e.MAC = s.cfg.Who(client)
	}
	if e.MAC.IsZero() && client.Is6() {
		return // another appliance's probe, for all we know: their own IPv6 addresses are not in the view
	}
	s.events(e)
}

// probes reports whether a client is this host or another appliance.
func (s *Server) probes(ends *endpoints) bool {
	return ends.remote == ends.local || ours(s.files.view(), ends.client().Addr())
}

// ours reports whether an address belongs to an appliance of the site.
func ours(v *site.View, a netip.Addr) bool {
	for _, ap := range v.Appliances {
		if ap.Address == a {
			return true
		}
	}
	return a == v.Boot.Address || a == v.Boot.Address6
}
