package tftp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"everboot/site"

	pin "github.com/pin/tftp/v3"
)

const (
	// DefaultListen is TFTP's port on every IPv4 address of the host (RFC 1350 §4).
	DefaultListen = ":69"
	// DefaultMaxTransfers bounds sockets and memory. A transfer costs about 10 KB and a socket.
	DefaultMaxTransfers = 2000
	// spareSlots are for probes: each appliance has two at a time.
	spareSlots = 32
	// maxBlock fits an Ethernet frame: 1500 − 20 (IP) − 8 (UDP) − 4 (TFTP). iPXE asks for 1432, EDK2 for 1468.
	maxBlock = 1468
	// retransmit after 1 s rather than pin/tftp's 5 s. EDK2 waits 4 s for a block, iPXE from 0.25 s on.
	retransmit = time.Second
	// retries: 22 s in all with the pauses, about as long as EDK2 tries (6 × 4 s). iPXE is gone after 15.75 s.
	retries = 20
	// pause before each retransmission. When a send fails at once (no route for a moment) the retries must not be used up at once.
	pause = 100 * time.Millisecond
)

// Config of a TFTP server. The zero Config means the defaults.
type Config struct {
	Listen       string // address and port; empty: DefaultListen. An IPv6 address listens on IPv6.
	MaxTransfers int    // at once; 0: DefaultMaxTransfers
	// Who tells which target has an address, for events; it may be nil. The zero MAC means that nobody knows.
	Who func(netip.Addr) site.MAC
}

// Validate returns an error that says what to mend.
func (c Config) Validate() error {
	if c.MaxTransfers < 0 {
		return fmt.Errorf("tftp: %d transfers at once: use 1 or more, or leave it out", c.MaxTransfers)
	}
	_, err := c.address()
	return err
}

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

// network keeps to IPv4 unless an IPv6 address is named: on a socket for both pin/tftp takes every client for an IPv6 one.
func network(kind string, ip net.IP) string {
	if ip != nil && ip.To4() == nil {
		return kind + "6"
	}
	return kind + "4"
}

// Server is a TFTP server.
type Server struct {
	cfg    Config
	files  *Files
	events func(site.Event)
	log    *slog.Logger
	ready  chan struct{}
	slots  chan struct{} // one a transfer
	spare  chan struct{} // the same for the probes of appliances: who is busy is not sick
	stats  counters
}

// NewServer returns a server of files. It tells events of transfers that targets made; events must not block and may be nil.
func NewServer(cfg Config, files *Files, events func(site.Event), log *slog.Logger) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.MaxTransfers == 0 {
		cfg.MaxTransfers = DefaultMaxTransfers
	}
	if events == nil {
		events = func(site.Event) {}
	}
	return &Server{
		cfg: cfg, files: files, events: events, log: log,
		ready: make(chan struct{}), slots: make(chan struct{}, cfg.MaxTransfers), spare: make(chan struct{}, spareSlots),
	}, nil
}

// Ready closes when the port is open.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// String names the server in logs.
func (s *Server) String() string { return "tftp" }

// Run serves until ctx ends. Transfers under way then end within about a second. Run may be called once.
func (s *Server) Run(ctx context.Context) error {
	addr, err := s.cfg.address()
	if err != nil {
		return err
	}
	conn, err := listenUDP(ctx, addr)
	if err != nil {
		return fmt.Errorf("listening for TFTP on %s: %w%s", addr, err, portHint("udp", addr.Port, err))
	}
	defer conn.Close() // Shutdown does not know it before Serve runs; it is closed twice else, without harm
	srv := pin.NewServer(func(name string, rf io.ReaderFrom) error { return s.serve(ctx, name, rf) }, nil)
	srv.SetBlockSize(maxBlock)
	srv.SetTimeout(retransmit)
	srv.SetRetries(retries)
	srv.SetBackoff(backoff(ctx))
	srv.SetHook(hook{&s.stats})
	served := make(chan error, 1)
	go func() { served <- srv.Serve(conn) }()
	close(s.ready)
	select {
	case <-ctx.Done():
		err = nil
	case err = <-served:
		served <- err
	}
	srv.Shutdown() // joins the transfers
	<-served
	return err
}

// errStopped leaves a transfer whose client is silent. See backoff.
var errStopped = errors.New("the server stops")

// backoff is what pin/tftp asks between a time-out and the retransmission. It is the only place at which a transfer that waits for a
// silent client can be ended, and only by a panic, which serve catches: pin/tftp's own way out closes the socket on it.
func backoff(ctx context.Context) func(int) time.Duration {
	return func(int) time.Duration {
		if ctx.Err() != nil {
			panic(errStopped)
		}
		return pause
	}
}

// serve is one transfer. Its error becomes the text of the ERROR packet, unless the transfer had begun.
func (s *Server) serve(ctx context.Context, raw string, rf io.ReaderFrom) (err error) {
	client, slots := clientOf(rf), s.slots
	if s.probes(client) {
		slots = s.spare
	}
	select {
	case slots <- struct{}{}:
		defer func() { <-slots }()
	default:
		s.stats.refused.Add(1)
		return errors.New("too many transfers, try again")
	}
	s.stats.active.Add(1)
	defer s.stats.active.Add(-1)
	defer func() {
		if r := recover(); r != nil {
			if r != errStopped {
				panic(r)
			}
			s.stats.failed.Add(1)
			err = errStopped
		}
	}()
	file, err := s.files.Open(raw)
	if err != nil {
		s.stats.notFound.Add(1)
		s.log.Debug("tftp: no such file", "client", client, "file", raw, "err", err)
		s.tell(client, "no file "+plain(raw))
		return wireError(err)
	}
	defer file.Close()
	n, err := rf.ReadFrom(&stoppable{ReadSeeker: file.Content, ctx: ctx})
	s.finished(client, file, n, err)
	return err
}

func (s *Server) finished(client transferClient, file *File, n int64, err error) {
	result, block, code := outcome(err)
	s.stats.finished(result, n)
	switch result {
	case complete:
		s.log.Debug("tftp: sent", "client", client, "file", file.Name, "bytes", n)
		s.tell(client, fmt.Sprintf("%s, %d bytes", file.Name, n))
	case sizeProbe:
		s.log.Debug("tftp: asked for the size", "client", client, "file", file.Name)
	case aborted:
		s.log.Info("tftp: the client gave up", "client", client, "file", file.Name, "block", block, "code", code, "err", err)
		s.tell(client, fmt.Sprintf("%s: the client gave up at block %d", file.Name, block))
	case failed:
		s.log.Info("tftp: transfer failed", "client", client, "file", file.Name, "bytes", n, "err", err)
		s.tell(client, fmt.Sprintf("%s: failed after %d bytes: %v", file.Name, n, err))
	}
}

// tell sends an event about a target. Our own probes, this host's and the other appliances', are no steps of a boot.
func (s *Server) tell(client transferClient, detail string) {
	if !client.remote.IsValid() || s.probes(client) {
		return
	}
	e := site.Event{At: time.Now(), What: "tftp", Detail: detail + " to " + client.remote.String()}
	if s.cfg.Who != nil {
		e.MAC = s.cfg.Who(client.remote)
	}
	s.events(e)
}

// probes reports whether a client is this host or another appliance.
func (s *Server) probes(client transferClient) bool {
	return client.remote.IsValid() && (client.remote == client.local || ours(s.files.view(), client.remote))
}

// ours reports whether an address belongs to an appliance of the site.
func ours(v *site.View, a netip.Addr) bool {
	for _, ap := range v.Appliances {
		if ap.Address == a {
			return true
		}
	}
	return a == v.Boot.Address
}

// wireError words what went wrong for the client, without telling it about our directories.
func wireError(err error) error {
	var name *NameError
	switch {
	case errors.As(err, &name):
		return fmt.Errorf("bad file name: %s", name.Why)
	case errors.Is(err, fs.ErrNotExist):
		return errors.New("file not found")
	case errors.Is(err, fs.ErrPermission):
		return errors.New("access violation")
	}
	return errors.New("file cannot be read")
}

// stoppable ends a transfer at its next block when the server stops.
type stoppable struct {
	io.ReadSeeker
	ctx context.Context
}

// Read implements io.Reader.
func (r *stoppable) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, errStopped
	}
	return r.ReadSeeker.Read(p)
}

// transferClient is the two ends of a transfer.
type transferClient struct {
	remote, local netip.Addr
	port          int
}

// String returns the client's address and port.
func (c transferClient) String() string {
	return netip.AddrPortFrom(c.remote, uint16(c.port)).String()
}

func clientOf(rf io.ReaderFrom) transferClient {
	var c transferClient
	if t, ok := rf.(pin.OutgoingTransfer); ok {
		r := t.RemoteAddr()
		c.remote, c.port = r.AddrPort().Addr().Unmap(), r.Port
	}
	if t, ok := rf.(pin.RequestPacketInfo); ok {
		if a, ok := netip.AddrFromSlice(t.LocalIP()); ok {
			c.local = a.Unmap()
		}
	}
	return c
}
