package join

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/net/netutil"

	"everboot/appliance"
	"everboot/site"
)

const (
	path           = "/join"
	maxRequest     = 4 << 10
	maxConnections = 16
	// patience is how long one who connects may take: a line is used once, and then there is nothing to take time for.
	patience = 5 * time.Second
	// wrongToken holds an answer to a wrong token back. With maxConnections that is 16 guesses a second at 2^128 tokens.
	wrongToken = time.Second
)

// request is what the new node says.
type request struct {
	Token   []byte     `json:"token"`
	Node    string     `json:"node"`
	Address netip.Addr `json:"address"` // its own, at which it will be a peer
}

// refusal is the answer to one that gets nothing.
type refusal struct {
	Error string `json:"error"`
}

// Joined is the node that joined.
type Joined struct {
	Node    string     `json:"node"`
	Address netip.Addr `json:"address"`
}

// Invitation waits for one node.
type Invitation struct {
	Line    Line
	Expires time.Time

	configPath string
	config     *appliance.Config
	bundle     []byte // a Bundle, as it is sent
	own        netip.Addr
	listener   net.Listener
	hold       time.Duration // wrongToken

	mu    sync.Mutex
	used  bool // the line: an answer is under way or gone out, or nobody is waited for any more
	ended chan outcome
}

// outcome is what became of the one answer that there is.
type outcome struct {
	Joined
	err error
}

// Invite reads a node's configuration and all that the new node will be given, and listens. Wait answers.
func Invite(configPath string, port uint16, valid time.Duration, now time.Time) (*Invitation, error) {
	cfg, err := appliance.Load(configPath)
	if err != nil {
		return nil, err
	}
	if cfg.Peers.Key.IsZero() {
		return nil, fmt.Errorf("%s: peers.key is missing, without which appliances share nothing; make it with: head -c 32 /dev/urandom | base64 > peer.key", configPath)
	}
	i := &Invitation{Expires: now.Add(valid), configPath: configPath, config: cfg, hold: wrongToken, ended: make(chan outcome, 1)}
	if i.own, err = cfg.OwnAddress(); err != nil {
		return nil, err
	}
	if err := joinable(cfg); err != nil {
		return nil, fmt.Errorf("%s: %w", configPath, err)
	}
	if err := i.pack(); err != nil {
		return nil, fmt.Errorf("%s: %w", configPath, err)
	}
	return i, i.listen(netip.AddrPortFrom(i.own, port), now)
}

// joinable refuses what a new node could neither take over nor do without.
func joinable(c *appliance.Config) error {
	if len(c.VIP.Unicast) > 0 {
		return errors.New("vip.unicast names the other appliances, and a new one would neither hear them nor be heard: two would own the address; " +
			"take unicast out on all appliances, or set the new one up by hand and add it to every list")
	}
	for n, g := range c.VIP.Groups {
		if len(g.Unicast) > 0 || g.Interface != "" {
			return fmt.Errorf("[[vip.group]] %d has unicast or an interface of its own, which are another node's own matter: set the new one up by hand", n+1)
		}
	}
	return nil
}

// listen makes the line.
func (i *Invitation) listen(at netip.AddrPort, now time.Time) error {
	certificate, err := shortCertificate(now, i.Expires)
	if err != nil {
		return fmt.Errorf("making the certificate of the line: %w", err)
	}
	listener, err := net.Listen("tcp4", at.String())
	if err != nil {
		return fmt.Errorf("waiting for the other node at %s: %w; another everboot invite waits there already, or name another port with --port", at, err)
	}
	i.Line = newLine(listener.Addr().(*net.TCPAddr).AddrPort(), certificate.Certificate[0])
	i.listener = tls.NewListener(netutil.LimitListener(listener, maxConnections), &tls.Config{
		Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true,
	})
	return nil
}

// pack gathers what the new node gets.
func (i *Invitation) pack() error {
	text, err := os.ReadFile(i.configPath)
	if err != nil {
		return err
	}
	b := Bundle{Site: i.config.Site, Node: i.config.Node, VIP: i.config.VIP.Addresses, Peers: []Peer{{i.own}}}
	for _, p := range i.config.Peers.Addresses {
		b.Peers = append(b.Peers, Peer{p})
	}
	if b.Config, b.Files, err = shared(text, i.config.State); err != nil {
		return err
	}
	for _, name := range []string{authorityFile, authorityKey} {
		content, err := os.ReadFile(filepath.Join(filepath.Dir(i.configPath), name))
		switch {
		case errors.Is(err, os.ErrNotExist): // a site without an authority of its own
		case err != nil:
			return fmt.Errorf("reading the site's authority: %w; run this as root", err)
		default:
			b.Files[name] = content
		}
	}
	if i.bundle, err = json.Marshal(b); err == nil && len(i.bundle) > maxBundle {
		err = fmt.Errorf("the secrets that a new node is given are %d bytes in all, more than %d: set it up by hand", len(i.bundle), maxBundle)
	}
	return err
}

// ErrExpired says that nobody came.
var ErrExpired = errors.New("no node joined, and the line is void now; everboot invite makes another one")

// Wait answers the one that has the line, and adds it to this node's configuration. It ends with ctx, or when the line is too old.
func (i *Invitation) Wait(ctx context.Context) (Joined, error) {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+path, i.answer)
	server := &http.Server{
		Handler: mux, ReadTimeout: patience, WriteTimeout: patience, MaxHeaderBytes: maxRequest,
		ErrorLog: log.New(io.Discard, "", 0), // whoever connects without the line is nobody's concern
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(i.listener) }()
	late := time.NewTimer(time.Until(i.Expires))
	defer late.Stop()
	var got outcome
	select {
	case got = <-i.ended:
	case <-late.C:
		got = i.stop()
	case <-ctx.Done():
		got = i.stop()
	case err := <-served:
		return Joined{}, err
	}
	goodbye, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if server.Shutdown(goodbye) != nil { // the answer goes out first; who else is connected and says nothing must not keep us
		server.Close()
	}
	<-served
	if got.err != nil {
		return Joined{}, got.err
	}
	return got.Joined, i.addPeer(got.Address)
}

// stop waits for nobody any more, but for the one who is being answered.
func (i *Invitation) stop() outcome {
	if i.use() {
		return outcome{err: ErrExpired}
	}
	return <-i.ended
}

// use uses the line. It tells whether that was still to be had.
func (i *Invitation) use() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	first := !i.used
	i.used = true
	return first
}

// Close stops waiting before Wait.
func (i *Invitation) Close() error { return i.listener.Close() }

func (i *Invitation) answer(w http.ResponseWriter, r *http.Request) {
	var q request
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest)).Decode(&q)
	if err != nil || subtle.ConstantTimeCompare(q.Token, i.Line.Token[:]) != 1 {
		time.Sleep(i.hold)
		refuse(w, http.StatusForbidden, "the line is not the one that was printed last")
		return
	}
	if err := i.check(q, r.RemoteAddr); err != nil {
		refuse(w, http.StatusConflict, err.Error())
		return
	}
	if !time.Now().Before(i.Expires) || !i.use() {
		refuse(w, http.StatusGone, "the line was used, or is too old; everboot invite makes another one")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(i.bundle)))
	_, err = w.Write(i.bundle)
	if err == nil {
		err = http.NewResponseController(w).Flush()
	}
	if err != nil {
		i.ended <- outcome{err: fmt.Errorf("%s at %s had the line, and the answer to it broke off: %w; the line is used up, everboot invite makes another one; if that was not you, change the secrets", q.Node, q.Address, err)}
		return
	}
	i.ended <- outcome{Joined: Joined{Node: q.Node, Address: q.Address}}
}

// check refuses a node that could not work with us. The line stays good.
func (i *Invitation) check(q request, remote string) error {
	if err := site.CheckName("node", q.Node); err != nil {
		return err
	}
	if q.Node == i.config.Node {
		return fmt.Errorf("%s is the name of this appliance; give the new node another one with --node", q.Node)
	}
	from, err := netip.ParseAddrPort(remote)
	if err != nil || from.Addr().Unmap() != q.Address {
		return fmt.Errorf("the new node says that it has address %s, and comes from %s: there must be no address translation between appliances; "+
			"if it has several interfaces, name the one to us with --interface", q.Address, from.Addr().Unmap())
	}
	if slices.ContainsFunc(i.config.VIP.Addresses, func(p netip.Prefix) bool { return p.Addr() == q.Address }) {
		return fmt.Errorf("the new node's address %s is the floating one: give it one of its own", q.Address)
	}
	return nil
}

func refuse(w http.ResponseWriter, status int, reason string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(refusal{reason}) // who is gone needs no reason
}

// addPeer makes the new node a peer in this one's configuration.
func (i *Invitation) addPeer(peer netip.Addr) error {
	byHand := func(err error) error {
		return fmt.Errorf("the other node has joined, but %s must be told of it by hand: add %q to addresses of [peers]: %w", i.configPath, peer, err)
	}
	now, err := appliance.Load(i.configPath) // an hour may have passed since it was packed
	if err != nil {
		return byHand(err)
	}
	before := now.Peers.Addresses
	if slices.Contains(before, peer) { // it was made anew
		return nil
	}
	text, err := os.ReadFile(i.configPath)
	if err != nil {
		return byHand(err)
	}
	changed, err := withPeer(string(text), peer)
	if err != nil {
		return byHand(err)
	}
	draft := folder(filepath.Dir(i.configPath))
	name := "." + ConfigFile + ".draft"
	if err := os.RemoveAll(draft.path(name)); err != nil {
		return byHand(err)
	}
	if err := draft.create(name, []byte(changed)); err != nil {
		return byHand(err)
	}
	defer os.Remove(draft.path(name))
	after, err := appliance.Load(draft.path(name))
	if err != nil {
		return byHand(err)
	}
	if !slices.Equal(after.Peers.Addresses, append(slices.Clone(before), peer)) {
		return byHand(errAddresses)
	}
	if err := replaceKeeping(i.configPath, []byte(changed)); err != nil {
		return byHand(err)
	}
	return nil
}

// shortCertificate is for one line only. Who connects knows it by its fingerprint.
func shortCertificate(from, to time.Time) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template, err := newTemplate("everboot invite", from)
	if err != nil {
		return tls.Certificate{}, err
	}
	template.NotAfter = to
	template.KeyUsage = x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}
