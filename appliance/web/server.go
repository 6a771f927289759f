package web

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"everboot/site"
	"everboot/streamer"
)

// Backend is what the API shows and changes.
type Backend interface {
	Status() Status
	Explain(who string) (Explanation, error) // a MAC or an IP address
	Device(who string) (DeviceStatus, error) // a MAC, an IP address or a name
	Offer(q site.BootRequest) BootOffer
	Leases() []Lease
	ReleaseLease(ctx context.Context, addr netip.Addr) error
	Put(ctx context.Context, kind site.Kind, key string, value []byte) error
	Delete(ctx context.Context, kind site.Kind, key string) error
	// AwaitShown returns when the registry says an object as it was written (nil: that it is gone), or after a while.
	AwaitShown(ctx context.Context, kind site.Kind, key string, value []byte)
	Rebalance(ctx context.Context) (streamer.Rebalancing, error)
}

// Config is where the server listens and what it serves besides the Backend.
type Config struct {
	Listen string
	Token  string // empty: no authentication, which only a loopback listener may have
	// Announce takes the streamers' announcements (embedded registry); nil: there are none.
	Announce http.Handler
	Metrics  http.Handler
	// ReleaseVIP hands the floating addresses over to another appliance, and returns when that one has them; nil: there are none.
	ReleaseVIP func(ctx context.Context) error
}

const (
	// maxBody bounds what a client may send: a vDisk with hundreds of versions fits.
	maxBody      = 1 << 20
	shutdownTime = 2 * time.Second
)

// Server is the API's HTTP server.
type Server struct {
	cfg      Config
	backend  Backend
	log      *slog.Logger
	listener net.Listener
	ready    chan struct{}
}

// NewServer opens the listener.
func NewServer(cfg Config, backend Backend, log *slog.Logger) (*Server, error) {
	l, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("opening the API at %s: %w; change api.listen, or stop the program that has it", cfg.Listen, err)
	}
	return &Server{cfg: cfg, backend: backend, log: log, listener: l, ready: make(chan struct{})}, nil
}

// Ready is closed when the first request can be served.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// Addr returns the address that the server listens at.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Run serves until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	server := &http.Server{
		Handler: s.routes(), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 15 * time.Second, WriteTimeout: 30 * time.Second,
		IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		<-ctx.Done()
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTime)
		defer cancel()
		if server.Shutdown(bounded) != nil {
			server.Close()
		}
	}()
	close(s.ready)
	err := server.Serve(s.listener)
	if !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving the API: %w", err)
	}
	<-stopped
	return nil
}

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok\n") })
	private := http.NewServeMux()
	private.HandleFunc("GET /{$}", s.page)
	private.HandleFunc("GET /api/v1/status", func(w http.ResponseWriter, _ *http.Request) { answer(w, s.backend.Status()) })
	private.HandleFunc("GET /api/v1/explain", s.explain)
	private.HandleFunc("GET /api/v1/device", s.device)
	private.HandleFunc("GET /api/v1/offer", s.offer)
	private.HandleFunc("GET /device", s.devicePage)
	private.HandleFunc("POST /api/v1/rebalance", s.rebalance)
	private.HandleFunc("GET /api/v1/leases", func(w http.ResponseWriter, _ *http.Request) { answer(w, s.backend.Leases()) })
	private.HandleFunc("DELETE /api/v1/leases/{address}", s.releaseLease)
	private.HandleFunc("PUT /api/v1/{kind}/{key}", s.put)
	private.HandleFunc("DELETE /api/v1/{kind}/{key}", s.remove)
	if s.cfg.Announce != nil {
		private.Handle("POST /api/v1/streamers", s.cfg.Announce)
		private.Handle("DELETE /api/v1/streamers/{name}", s.cfg.Announce)
	}
	if s.cfg.ReleaseVIP != nil {
		private.HandleFunc("POST /api/v1/vip/release", s.releaseVIP)
	}
	if s.cfg.Metrics != nil {
		private.Handle("GET /metrics", s.cfg.Metrics)
	}
	// A browser sends the password along with other sites' forms, and over plain HTTP it does not say which site's page asked, but by Origin.
	mux.Handle("/", http.NewCrossOriginProtection().Handler(s.authenticated(private)))
	return mux
}

// authenticated lets a request pass that carries the token: as a bearer, or as the password that a browser asks for.
func (s *Server) authenticated(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		given, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if !ok {
			_, given, _ = r.BasicAuth()
		}
		if s.cfg.Token != "" && subtle.ConstantTimeCompare([]byte(given), []byte(s.cfg.Token)) != 1 {
			w.Header().Set("WWW-Authenticate", `Basic realm="everboot", charset="UTF-8"`)
			fail(w, http.StatusUnauthorized, errors.New("the token is missing or wrong; give the file of api.token with --token-file"))
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (s *Server) explain(w http.ResponseWriter, r *http.Request) {
	e, err := s.backend.Explain(r.URL.Query().Get("who"))
	if err != nil {
		fail(w, http.StatusBadRequest, err)
		return
	}
	answer(w, e)
}

func (s *Server) device(w http.ResponseWriter, r *http.Request) {
	d, err := s.backend.Device(r.URL.Query().Get("who"))
	if err != nil {
		fail(w, http.StatusBadRequest, err)
		return
	}
	answer(w, d)
}

// offer tells another DHCP server what a client boots from; arch is the number of option 93.
func (s *Server) offer(w http.ResponseWriter, r *http.Request) {
	form := r.URL.Query()
	mac, err := site.ParseMAC(form.Get("mac"))
	if err != nil {
		fail(w, http.StatusBadRequest, err)
		return
	}
	arch, err := strconv.ParseUint(form.Get("arch"), 10, 16)
	if err != nil {
		fail(w, http.StatusBadRequest, fmt.Errorf("arch %q: use the number of option 93", form.Get("arch")))
		return
	}
	answer(w, s.backend.Offer(site.BootRequest{MAC: mac, Client: site.Client(form.Get("client")), Arch: site.Arch(arch)}))
}

func (s *Server) rebalance(w http.ResponseWriter, r *http.Request) {
	result, err := s.backend.Rebalance(r.Context())
	if err != nil {
		fail(w, http.StatusConflict, err)
		return
	}
	answer(w, result)
}

func (s *Server) releaseLease(w http.ResponseWriter, r *http.Request) {
	addr, err := netip.ParseAddr(r.PathValue("address"))
	if err == nil {
		err = s.backend.ReleaseLease(r.Context(), addr)
	}
	if err != nil {
		fail(w, http.StatusBadRequest, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (s *Server) put(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		fail(w, http.StatusRequestEntityTooLarge, fmt.Errorf("reading the request: %w", err))
		return
	}
	s.written(w, r, s.backend.Put(r.Context(), site.Kind(r.PathValue("kind")), r.PathValue("key"), body), body)
}

func (s *Server) remove(w http.ResponseWriter, r *http.Request) {
	s.written(w, r, s.backend.Delete(r.Context(), site.Kind(r.PathValue("kind")), r.PathValue("key")), nil)
}

// moreComes is the parameter by which one who writes many objects says that another of the kind comes after this one: it need not be shown yet.
const moreComes = "more"

// written answers one who wrote an object, once the registry says it, too, unless more comes.
func (s *Server) written(w http.ResponseWriter, r *http.Request, err error, body []byte) {
	if err != nil {
		fail(w, http.StatusBadRequest, err)
		return
	}
	if !r.URL.Query().Has(moreComes) {
		s.backend.AwaitShown(r.Context(), site.Kind(r.PathValue("kind")), r.PathValue("key"), body)
	}
	w.WriteHeader(http.StatusNoContent)
}

func (s *Server) releaseVIP(w http.ResponseWriter, r *http.Request) {
	if err := s.cfg.ReleaseVIP(r.Context()); err != nil {
		fail(w, http.StatusConflict, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func answer(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	e := json.NewEncoder(w)
	e.SetIndent("", " ")
	_ = e.Encode(value) // the client has gone: nobody is left to tell
}

// problem is the body of every answer that is an error.
type problem struct {
	Error string `json:"error"`
}

func fail(w http.ResponseWriter, code int, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(problem{Error: err.Error()})
}
