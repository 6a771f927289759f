package join

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
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
	"sync"
	"time"

	"golang.org/x/net/netutil"

	"everboot/appliance"
)

const (
	// maxConnections and maxOfSource are the connections at one time, in all and of one address: whoever has no line cannot keep out the one that has it.
	maxConnections = 64
	maxOfSource    = 4
	// patience is how long one who connects may take: a line is used once, and then there is nothing to take time for.
	patience = 5 * time.Second
	// wrongToken holds an answer to a wrong token back. With maxConnections that is 64 guesses a second at 2^128 tokens.
	wrongToken = time.Second
	// settling is how long a node that was given everything may take to say that it is set up: it makes a key meanwhile, on a slow machine.
	settling = 2 * time.Minute
)

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
	bundle     []byte            // a Bundle, as it is sent
	files      map[string][]byte // those in it
	own        netip.Addr
	listener   net.Listener
	hold       time.Duration // wrongToken
	settling   time.Duration

	mu    sync.Mutex
	given *claim // who has used the line; nil: nobody
	over  bool   // nobody is waited for any more
	ended chan outcome
}

// claim is who uses a line.
type claim struct {
	Joined
	nonce [16]byte // known to that one alone
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
	i := &Invitation{Expires: now.Add(valid), configPath: configPath, config: cfg, hold: wrongToken, settling: settling, ended: make(chan outcome, 1)}
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
		if len(g.Unicast) > 0 || g.Interface != "" && g.Interface != c.Interface {
			return fmt.Errorf("[[vip.group]] %d has unicast, or an interface other than %s, which are another node's own matter: set the new one up by hand", n+1, c.Interface)
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
	i.listener = tls.NewListener(netutil.LimitListener(newSources(listener, maxOfSource), maxConnections), &tls.Config{
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
	i.files = b.Files
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

// Wait answers the one that has the line, and adds it to this node's configuration once it says that it is set up. It ends with ctx, or when the line is too old.
func (i *Invitation) Wait(ctx context.Context) (Joined, error) {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+pathJoin, i.answer)
	mux.HandleFunc("POST "+pathJoined, i.confirm)
	server := &http.Server{
		Handler: mux, ReadTimeout: patience, WriteTimeout: patience, MaxHeaderBytes: maxRequest,
		ErrorLog: log.New(io.Discard, "", 0), // whoever connects without the line is nobody's concern
	}
	server.SetKeepAlivesEnabled(false) // a question a connection: nobody stays
	served := make(chan error, 1)
	go func() { served <- server.Serve(i.listener) }()
	late := time.NewTimer(time.Until(i.Expires))
	defer late.Stop()
	var got outcome
	select {
	case got = <-i.ended:
	case <-late.C:
		i.stop(false)
		select {
		case got = <-i.ended:
		case <-ctx.Done():
			i.stop(true)
			got = <-i.ended
		}
	case <-ctx.Done():
		i.stop(true)
		got = <-i.ended
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

// stop waits for nobody any more. One that was given everything has its time to say that it is set up, unless it is now.
func (i *Invitation) stop(now bool) {
	i.mu.Lock()
	given := i.given
	i.mu.Unlock()
	switch {
	case given == nil:
		i.end(outcome{err: ErrExpired})
	case now:
		i.end(given.silent())
	}
}

// silent is the outcome where nothing is known of a node that was given everything.
func (c claim) silent() outcome {
	return outcome{err: fmt.Errorf("%s at %s was given the site's secrets and has not said that it is set up; the line is used up. If it is set up, add %q to addresses of [peers] by hand; if not, "+
		"everboot invite makes another line; if that was not you, change the secrets", c.Node, c.Address, c.Address)}
}

// end puts the first outcome there is where Wait takes it. It tells whether it was that.
func (i *Invitation) end(o outcome) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.over {
		return false
	}
	i.over = true
	i.ended <- o // it has room for one
	return true
}

// use gives the line to one node. It tells whether it was still to be had.
func (i *Invitation) use(c claim) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.over || i.given != nil || !time.Now().Before(i.Expires) {
		return false
	}
	i.given = &c
	time.AfterFunc(i.settling, func() { i.end(c.silent()) })
	return true
}

// Close stops waiting before Wait.
func (i *Invitation) Close() error { return i.listener.Close() }

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
