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
	patience = 10 * time.Second
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
	bundle     Bundle
	own        netip.Addr
	listener   net.Listener
	hold       time.Duration // wrongToken

	mu     sync.Mutex
	used   bool
	joined chan Joined
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
	i := &Invitation{Expires: now.Add(valid), configPath: configPath, config: cfg, hold: wrongToken, joined: make(chan Joined, 1)}
	if i.own, err = cfg.OwnAddress(); err != nil {
		return nil, err
	}
	if err := i.pack(); err != nil {
		return nil, fmt.Errorf("%s: %w", configPath, err)
	}
	return i, i.listen(netip.AddrPortFrom(i.own, port), now)
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
	i.bundle = b
	return nil
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
	var joined Joined
	var err error
	select {
	case joined = <-i.joined:
		goodbye, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		err = server.Shutdown(goodbye) // the answer goes out first
		<-served
	case <-late.C:
		err = errors.Join(ErrExpired, server.Close())
		<-served
	case <-ctx.Done():
		err = errors.Join(ErrExpired, server.Close())
		<-served
	case err = <-served:
	}
	if err != nil {
		return joined, err
	}
	return joined, i.addPeer(joined.Address)
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
	i.mu.Lock()
	again := i.used || !time.Now().Before(i.Expires)
	i.used = true
	i.mu.Unlock()
	if again {
		refuse(w, http.StatusGone, "the line was used, or is too old; everboot invite makes another one")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(i.bundle); err != nil {
		return // it is void all the same: nobody knows who read what was sent
	}
	i.joined <- Joined{Node: q.Node, Address: q.Address}
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
	if slices.Contains(i.config.Peers.Addresses, peer) { // it was made anew
		return nil
	}
	text, err := os.ReadFile(i.configPath)
	if err != nil {
		return err
	}
	byHand := func(err error) error {
		return fmt.Errorf("the other node has joined, but %s must be told of it by hand: add %q to addresses of [peers]: %w", i.configPath, peer, err)
	}
	changed, err := withPeer(string(text), peer)
	if err != nil {
		return byHand(err)
	}
	before := i.config.Peers.Addresses
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
