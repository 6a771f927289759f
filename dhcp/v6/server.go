package v6

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"everboot/dhcp"
	"everboot/site"

	"github.com/insomniacslk/dhcp/dhcpv6"
)

const (
	// reopenAfter is the pause before the socket is opened again, when it failed or IPv6 is not there yet.
	reopenAfter = 2 * time.Second
	// lookEach is how often it is looked whether the interface is still the one that the socket is bound to: nothing tells the socket.
	lookEach = 2 * time.Second
	// perSecond bounds the messages that are looked at: more than any site's machines send, and a tenth of a core.
	perSecond = 5000
	// maxDatagram is the longest message that is read. Relay agents do not fragment what fits into 1,280 bytes.
	maxDatagram = 4096
)

// conn brings messages and takes answers away.
type conn interface {
	Read(b []byte) (n int, from netip.AddrPort, unicast bool, err error)
	Write(b []byte, to netip.AddrPort) error
	Gone() bool // the interface that it was opened on is not there any more
	Close() error
}

// Server is the DHCPv6 service of one interface.
type Server struct {
	cfg     Config
	view    func() *site.View
	first   func(duid string) bool
	decided func(dhcp.Decision)
	log     *slog.Logger
	ready   chan struct{}
	open    func(link string) (conn, error)

	second int64 // the reading goroutine's
	count  int

	mu    sync.Mutex // guards what follows
	state *State
	// last and before it are what became of machines' last messages, in two generations.
	last, before map[site.MAC]dhcp.Decision
}

// New returns a server. view may return nil. first says whether this node is first to answer a client; nil: it always is. decided is told what
// became of each message, by one goroutine, and must not block.
func New(cfg Config, view func() *site.View, first func(duid string) bool, decided func(dhcp.Decision), log *slog.Logger) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Server{
		cfg: cfg, view: view, first: first, decided: decided, log: log, ready: make(chan struct{}), open: listen, state: NewState(cfg), last: make(map[site.MAC]dhcp.Decision),
	}, nil
}

// Ready is closed when Run has begun. It waits for no address: IPv6 may come up late, and that is no reason to hold up anything.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// Holder returns whose card has an address from a pool, as far as it was heard; the zero MAC means that nobody knows.
func (s *Server) Holder(a netip.Addr) site.MAC {
	s.mu.Lock()
	defer s.mu.Unlock()
	u, _ := s.state.known.of(time.Now(), a)
	if u.declined {
		return site.MAC{}
	}
	return u.mac
}

// Run serves until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	close(s.ready)
	for said := ""; ; {
		err := s.serve(ctx, func() { said = "" })
		if ctx.Err() != nil {
			return nil
		}
		if said != err.Error() {
			said = err.Error()
			s.log.Warn("DHCPv6 cannot serve yet", "interface", s.cfg.Interface, "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(reopenAfter):
		}
	}
}

var errGone = errors.New("the interface went away")

func (s *Server) serve(ctx context.Context, opened func()) error {
	c, err := s.open(s.cfg.Interface)
	if err != nil {
		return err
	}
	opened()
	s.log.Info("DHCPv6 serves", "interface", s.cfg.Interface, "server", s.state.duid)
	failed := make(chan error, 1)
	go func() { failed <- s.read(c) }()
	look := time.NewTicker(lookEach)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			err = nil
		case err := <-failed:
			c.Close()
			return err
		case <-look.C:
			if !c.Gone() {
				continue
			}
			err = errGone
		}
		c.Close()
		<-failed
		return err
	}
}

func (s *Server) read(c conn) error {
	b := make([]byte, maxDatagram)
	for {
		n, from, unicast, err := c.Read(b)
		if err != nil {
			return fmt.Errorf("receiving: %w", err)
		}
		s.answer(time.Now(), c, b[:n], from, unicast)
	}
}

// answer answers one datagram.
func (s *Server) answer(now time.Time, c conn, b []byte, from netip.AddrPort, unicast bool) {
	if second := now.Unix(); second != s.second {
		s.second, s.count = second, 0
	}
	if s.count++; s.count > perSecond {
		s.decided(dhcp.Decision{At: now, Message: "v6-other", Reason: dhcp.TooMany})
		return
	}
	s.mu.Lock()
	reply, d := Handle(now, s.view(), Message{Bytes: b, From: from.Addr().WithZone(""), Unicast: unicast, Ours: s.first}, s.state)
	s.remember(d)
	s.mu.Unlock()
	s.decided(d)
	if reply == nil {
		return
	}
	if err := c.Write(reply, answerTo(b, from)); err != nil && !errors.Is(err, net.ErrClosed) {
		s.log.Warn("DHCPv6 cannot send an answer", "to", from, "error", err)
	}
}

// answerTo returns where the answer to a message goes: back to the client or the agent at its port, or at the one that an agent asked from if it
// says that it does so (RFC 8357).
func answerTo(b []byte, from netip.AddrPort) netip.AddrPort {
	if len(b) == 0 || dhcpv6.MessageType(b[0]) != dhcpv6.MessageTypeRelayForward {
		return netip.AddrPortFrom(from.Addr(), dhcpv6.DefaultClientPort)
	}
	if r, err := dhcpv6.RelayMessageFromBytes(b); err == nil && r.GetOneOption(dhcpv6.OptionRelayPort) != nil {
		return from
	}
	return netip.AddrPortFrom(from.Addr(), dhcpv6.DefaultServerPort)
}
