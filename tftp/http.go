package tftp

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"everboot/site"
)

const (
	// DefaultHTTPListen is HTTP's port on every address of the host.
	DefaultHTTPListen = ":80"
	// DefaultHTTPSListen is HTTPS's port on every address of the host.
	DefaultHTTPSListen = ":443"
	// maxConns bounds clients at once; a further one waits in the kernel's queue.
	maxConns = 4096
	// DefaultHTTPPerClient bounds connections of one address at once; behind an address translation sit many machines.
	DefaultHTTPPerClient = 256
	// refusedEvery is how often the log says that connections are refused.
	refusedEvery = time.Minute
	// headerTimeout ends a client that does not finish its request; iPXE sends it in one segment.
	headerTimeout = 5 * time.Second
	// idleTimeout of a kept connection: longer than the pauses of our scripts.
	idleTimeout = 30 * time.Second
	// maxHeader: iPXE's and EDK2's headers have a few hundred bytes.
	maxHeader = 16 << 10
	// stopTimeout is how long a stop waits for downloads under way.
	stopTimeout = time.Second
)

// HTTPConfig of an HTTP boot server. The zero HTTPConfig means the defaults.
type HTTPConfig struct {
	Listen  string // address and port; empty: DefaultHTTPListen. An IPv6 address listens on IPv6.
	SANPort uint16 // of the director, for targets' scripts; 0: DefaultSANPort
	// PerClient bounds the connections of one address; 0: DefaultHTTPPerClient. An IPv6 /64 has half of all.
	PerClient int
	// MediaKey is the key of the site's boot media; one with another key is refused. Empty: any.
	MediaKey string
	// Media makes the boot medium of a target, or for the zero MAC one for all; nil: there are none.
	Media Media
	// Renew tells running targets what the media in them shall be; nil: nobody does. It goes with Media.
	Renew Renew
	// Certificate and Key are PEM files: with them the same is served over HTTPS, too. They are read again when they have changed.
	Certificate, Key string
	ListenTLS        string // address and port of HTTPS; empty: DefaultHTTPSListen
	// Who tells which target has an address, for events; it may be nil. The zero MAC means that nobody knows.
	Who func(netip.Addr) site.MAC
	// Opened is called with each connection that is taken, and what it returns when the connection is closed. Nil: nobody wants to know.
	Opened func(net.Conn) (closed func())
}

// Validate returns an error that says what to mend.
func (c HTTPConfig) Validate() error {
	if (c.Certificate == "") != (c.Key == "") {
		return errors.New("http: certificate and key belong together: give both, or none")
	}
	if c.PerClient < 0 {
		return fmt.Errorf("http: %d connections of one client: use 1 or more, or leave it out", c.PerClient)
	}
	_, err := c.addresses()
	return err
}

// addresses returns where HTTP listens, and where HTTPS does if there is a certificate.
func (c HTTPConfig) addresses() (list []*net.TCPAddr, err error) {
	listen := []string{cmp.Or(c.Listen, DefaultHTTPListen)}
	if c.Certificate != "" {
		listen = append(listen, cmp.Or(c.ListenTLS, DefaultHTTPSListen))
	}
	for _, l := range listen {
		a, err := net.ResolveTCPAddr("tcp", l)
		if err != nil {
			return nil, fmt.Errorf("http: listen %q: use ADDRESS:PORT or :PORT: %w", l, err)
		}
		list = append(list, a)
	}
	return list, nil
}

// listenTCP listens at an address: where it is a port alone at IPv4 and, if the host has it, IPv6.
func listenTCP(addr *net.TCPAddr) (list []*net.TCPListener, err error) {
	families := []string{"tcp4"}
	switch {
	case addr.IP == nil:
		families = []string{"tcp4", "tcp6"}
	case addr.IP.To4() == nil:
		families = []string{"tcp6"}
	}
	for i, family := range families {
		l, err := net.ListenTCP(family, addr)
		if i > 0 && (errors.Is(err, syscall.EAFNOSUPPORT) || errors.Is(err, syscall.EADDRNOTAVAIL)) {
			break
		}
		if err != nil {
			for _, l := range list {
				_ = l.Close() // nobody was served
			}
			return nil, fmt.Errorf("listening for HTTP boot on %s: %w%s", addr, err, portHint("tcp", addr.Port, err))
		}
		list = append(list, l)
	}
	return list, nil
}

// HTTPStats counts since the start.
type HTTPStats struct {
	Scripts  uint64 `json:"scripts"`   // targets' scripts that boot
	Waits    uint64 `json:"waits"`     // scripts that say why a target must wait
	Files    uint64 `json:"files"`     // requests of files that exist
	NotFound uint64 `json:"not_found"` // no such file, or a bad name
	Bad      uint64 `json:"bad"`       // another method, or no MAC
	Foreign  uint64 `json:"foreign"`   // boot media of another site, or with another key, and whoever may not ask for a medium's next program
	Renewed  uint64 `json:"renewed"`   // next programs of boot media, to running targets
	Refused  uint64 `json:"refused"`   // connections of clients that have PerClient already
}

// HTTP is the HTTP boot server: /boot?mac=MAC is a target's script, every other path a boot file.
type HTTP struct {
	cfg    HTTPConfig
	files  *Files
	view   func() *site.View
	events func(site.Event)
	log    *slog.Logger
	ready  chan struct{}

	shown atomic.Pointer[certificate] // nil: no HTTPS, or not yet

	scripts, waits, served, notFound, bad, foreign, renewed, refused atomic.Uint64

	refusals atomic.Int64 // when the log last said that connections are refused, in ns
}

// NewHTTP returns a server of files and of targets' scripts. It tells events of what targets fetched; events must not block and may be nil.
func NewHTTP(cfg HTTPConfig, files *Files, view func() *site.View, events func(site.Event), log *slog.Logger) (*HTTP, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if events == nil {
		events = func(site.Event) {}
	}
	if cfg.Opened == nil {
		cfg.Opened = func(net.Conn) func() { return func() {} }
	}
	return &HTTP{cfg: cfg, files: files, view: view, events: events, log: log, ready: make(chan struct{})}, nil
}

// CertificateProblem says what is wrong with the certificate of HTTPS now. It is no reason not to serve the rest.
func (h *HTTP) CertificateProblem(now time.Time) error {
	if c := h.shown.Load(); c != nil {
		return c.valid(now)
	}
	return nil
}

// Ready closes when the port is open.
func (h *HTTP) Ready() <-chan struct{} { return h.ready }

// String names the server in logs.
func (h *HTTP) String() string { return "http" }

// Stats returns the counters of now.
func (h *HTTP) Stats() HTTPStats {
	return HTTPStats{
		Scripts: h.scripts.Load(), Waits: h.waits.Load(), Files: h.served.Load(), NotFound: h.notFound.Load(), Bad: h.bad.Load(),
		Foreign: h.foreign.Load(), Renewed: h.renewed.Load(), Refused: h.refused.Load(),
	}
}

// Run serves until ctx ends; downloads under way then have one second. Run may be called once.
func (h *HTTP) Run(ctx context.Context) error {
	listeners, err := h.listen(ctx)
	if err != nil {
		return err
	}
	srv := &http.Server{
		Handler: h, ReadHeaderTimeout: headerTimeout, ReadTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		ErrorLog: slog.NewLogLogger(h.log.Handler(), slog.LevelDebug),
	}
	reading, endReading := context.WithCancel(ctx)
	var reader sync.WaitGroup
	reader.Go(func() { h.files.digests.run(reading) })
	defer reader.Wait()
	defer endReading()
	served := make(chan error, len(listeners))
	for _, l := range listeners {
		go func() { served <- srv.Serve(l) }()
	}
	close(h.ready)
	select {
	case <-ctx.Done():
	case err = <-served:
		served <- err
		err = fmt.Errorf("serving HTTP boot: %w", err)
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	if srv.Shutdown(stop) != nil {
		_ = srv.Close() // who is still there is cut off
	}
	for range listeners {
		<-served
	}
	return err
}

// listen opens the ports.
func (h *HTTP) listen(ctx context.Context) (list []net.Listener, err error) {
	addresses, err := h.cfg.addresses()
	if err != nil {
		return nil, err
	}
	var config *tls.Config
	if h.cfg.Certificate != "" {
		c, err := newCertificate(h.cfg.Certificate, h.cfg.Key, h.log)
		if err != nil {
			return nil, err
		}
		h.shown.Store(c)
		config = c.config()
	}
	places := newPlaces(maxConns, cmp.Or(h.cfg.PerClient, DefaultHTTPPerClient), h.refuse)
	for i, addr := range addresses {
		open, err := listenTCP(addr)
		if err != nil {
			for _, l := range list {
				_ = l.Close() // nobody was served
			}
			return nil, err
		}
		for _, tcp := range open {
			var l net.Listener = patientListener{tcp, places, h.cfg.Opened, ctx}
			if i == 1 {
				l = tls.NewListener(l, config)
			}
			list = append(list, l)
		}
	}
	return list, nil
}

// refuse counts a connection of a client that has too many, and now and then says whose it was.
func (h *HTTP) refuse(client netip.Prefix) {
	h.refused.Add(1)
	now, last := time.Now().UnixNano(), h.refusals.Load()
	if (last == 0 || now-last >= int64(refusedEvery)) && h.refusals.CompareAndSwap(last, now) {
		h.log.Warn("http: connections are refused: one client has as many as it may (http.per_client)", "client", client, "refused", h.refused.Load())
	}
}

// ServeHTTP implements http.Handler.
func (h *HTTP) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		h.bad.Add(1)
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "boot files are read-only", http.StatusMethodNotAllowed)
		return
	}
	if r.URL.Path == "/boot" {
		h.serveScript(w, r)
		return
	}
	if name, ok := strings.CutPrefix(r.URL.Path, mediaPath); ok && h.cfg.Media != nil {
		h.serveMedium(w, r, name)
		return
	}
	h.serveFile(w, r)
}

func (h *HTTP) serveScript(w http.ResponseWriter, r *http.Request) {
	q, err := ParseBootQuery(r.URL.RawQuery)
	if err != nil {
		h.bad.Add(1)
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	v := h.view()
	if err := q.Medium.refuse(v.Site, h.cfg.MediaKey); err != nil {
		h.foreign.Add(1)
		h.log.Warn("http: a boot medium is refused", "mac", q.MAC, "client", r.RemoteAddr, "err", err)
		h.tell(r, site.Event{MAC: q.MAC, Detail: err.Error()})
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	script, reason := Script(v, q.MAC, Asked{Host: askedHost(r), TLS: r.TLS != nil, SANPort: h.cfg.SANPort})
	detail := "script"
	if q.Medium != (Medium{}) {
		detail = "script for a boot medium"
	}
	if reason == site.Offered {
		h.scripts.Add(1)
	} else {
		h.waits.Add(1)
		detail += ": " + string(reason)
	}
	if q.Platform != "" {
		detail += " (" + q.Platform + " " + q.Arch + ")"
	}
	h.log.Debug("http: script", "mac", q.MAC, "reason", reason, "client", r.RemoteAddr)
	h.tell(r, site.Event{MAC: q.MAC, Detail: detail, Begins: true, Collection: q.Medium.Collection})
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store") // a proxy must not answer for another moment
	_, _ = w.Write([]byte(script))              // the client is gone: nobody to tell
}

// tell sends an event about a target, which may want its MAC. Our own probes are no steps of a boot.
func (h *HTTP) tell(r *http.Request, e site.Event) {
	client := clientAddr(r)
	if r.Method == http.MethodHead || client == localAddr(r) || ours(h.view(), client) {
		return
	}
	if e.MAC.IsZero() && h.cfg.Who != nil {
		e.MAC = h.cfg.Who(client)
	}
	if e.MAC.IsZero() && client.Is6() {
		return // as with TFTP
	}
	e.At, e.What = time.Now(), "http"
	e.Detail += " to " + client.String()
	h.events(e)
}

func clientAddr(r *http.Request) netip.Addr {
	a, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return a.Addr().Unmap()
}

func localAddr(r *http.Request) netip.Addr {
	if a, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr); ok {
		return a.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}
