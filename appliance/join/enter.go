package join

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"time"

	"everboot/appliance"
)

const (
	// enterPatience is for a node whose waiting end is slow: it makes no key meanwhile.
	enterPatience = 30 * time.Second
	dialPatience  = 10 * time.Second
	maxBundle     = 4 << 20
	// maxReason is as much as the other node's operator is told of why this one is not set up.
	maxReason = 1000
)

// Entered is what a node that joined has now.
type Entered struct {
	Site  string   `json:"site"`
	Node  string   `json:"node"`
	By    string   `json:"by"` // the appliance that let it in
	Peers []Peer   `json:"peers"`
	Files []string `json:"files"`
	// HTTPS tells whether it has a certificate: a site without an authority of its own gives none.
	HTTPS bool `json:"https"`
}

// Enter asks with a line, makes this node's configuration of the answer, and says so. An empty n.Interface is the one that leads to the other node.
// What it returns has files beside an error where all is made, and the other node could not be told.
func Enter(ctx context.Context, line Line, n Node, now time.Time) (Entered, error) {
	dir := folder(n.Folder)
	if err := dir.isFree(); err != nil {
		return Entered{}, err
	}
	conn, err := dial(ctx, line)
	if err != nil {
		return Entered{}, err
	}
	defer conn.Close()
	own := conn.LocalAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
	if n.Interface == "" {
		if n.Interface, err = interfaceOf(own); err != nil {
			return Entered{}, err
		}
	}
	if own, err = appliance.AddressOf(n.Interface, nil); err != nil {
		return Entered{}, err
	}
	q := request{Token: line.Token[:], Node: n.Name, Address: own, Nonce: make([]byte, len(claim{}.nonce)), Has: dir.marks(line.Token)}
	if _, err := rand.Read(q.Nonce); err != nil {
		return Entered{}, err
	}
	b, err := ask(ctx, conn, line, q)
	if err != nil {
		return Entered{}, err
	}
	e, err := b.settle(dir, n, own, line.Address.Addr(), now)
	if err != nil {
		q.Error = err.Error()[:min(len(err.Error()), maxReason)]
	}
	// Whatever happens meanwhile: the other node waits for it.
	told := tell(context.WithoutCancel(ctx), line, q)
	if err == nil && told != nil {
		err = fmt.Errorf("this node is set up, but %s could not be told of it: %w; add %q to addresses of [peers] there by hand, and start its appliance anew", b.Node, told, own)
	}
	return e, err
}

// tell says what has become of it all.
func tell(ctx context.Context, line Line, q request) error {
	conn, err := dial(ctx, line)
	if err != nil {
		return err
	}
	defer conn.Close()
	q.Has = nil
	_, err = post(ctx, conn, line, pathJoined, q)
	return err
}

// settle writes what was given.
func (b Bundle) settle(dir folder, n Node, own, giver netip.Addr, now time.Time) (Entered, error) {
	void := func(err error) error {
		return fmt.Errorf("%w; the line is used up: mend this, then take another one from everboot invite on %s", err, b.Node)
	}
	config, files, err := b.forNode(n, own, giver)
	if err != nil {
		return Entered{}, void(err)
	}
	e := Entered{Site: b.Site, Node: n.Name, By: b.Node, Peers: b.peersOf(own)}
	if key, ok := files[authorityKey]; ok {
		files[certificateFile], files[certificateKey], err = newCertificate(n.Name, served(own, b.VIP), files[authorityFile], key, now)
		if err != nil {
			return Entered{}, void(fmt.Errorf("making this node's certificate: %w", err))
		}
		e.HTTPS = true
	}
	if err := dir.write(files, config); err != nil {
		return Entered{}, void(err)
	}
	e.Files = dir.made(files)
	return e, nil
}

// dial connects to the node that waits, and makes sure that it is the one of the line.
func dial(ctx context.Context, line Line) (*tls.Conn, error) {
	d := tls.Dialer{NetDialer: &net.Dialer{Timeout: dialPatience}, Config: &tls.Config{
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true, // no authority has signed it: the line names the one certificate that is right
		VerifyConnection: func(s tls.ConnectionState) error {
			have := fingerprint(s.PeerCertificates[0].Raw)
			if subtle.ConstantTimeCompare(have[:], line.Fingerprint[:]) != 1 {
				return errStranger
			}
			return nil
		},
	}}
	conn, err := d.DialContext(ctx, "tcp4", line.Address.String())
	switch {
	case errors.Is(err, errStranger):
		return nil, fmt.Errorf("whoever answers at %s is not the one that printed this line, and was told nothing; take the line that everboot invite printed last", line.Address)
	case errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf("nobody waits at %s any more: the line was used, or is too old; run everboot invite there for another one", line.Address)
	case err != nil:
		return nil, fmt.Errorf("reaching the node that printed the line: %w; both must be on one network, with TCP port %d open", err, line.Address.Port())
	}
	return conn.(*tls.Conn), nil
}

var errStranger = errors.New("another certificate")

// ask is the one question.
func ask(ctx context.Context, conn *tls.Conn, line Line, q request) (Bundle, error) {
	answer, err := post(ctx, conn, line, pathJoin, q)
	if err != nil {
		return Bundle{}, err
	}
	var b Bundle
	if err := json.Unmarshal(answer, &b); err != nil || b.Config == "" {
		return Bundle{}, fmt.Errorf("the answer of %s cannot be read (%v): it has another version of everboot", line.Address, err)
	}
	return b, nil
}

// post sends a request and returns the answer, unless it is a refusal.
func post(ctx context.Context, conn *tls.Conn, line Line, path string, q request) ([]byte, error) {
	body, err := json.Marshal(q)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, enterPatience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+line.Address.String()+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialTLSContext:    func(context.Context, string, string) (net.Conn, error) { return conn, nil },
	}}
	answer, err := client.Do(r)
	if err != nil {
		return nil, fmt.Errorf("asking %s: %w; run everboot invite there for another line", line.Address, err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxBundle+1))
	if err != nil || len(text) > maxBundle {
		return nil, fmt.Errorf("the answer of %s broke off (%v); run everboot invite there for another line", line.Address, err)
	}
	if answer.StatusCode/100 == 2 {
		return text, nil
	}
	var no refusal
	if json.Unmarshal(text, &no) != nil || no.Error == "" {
		no.Error = answer.Status
	}
	return nil, fmt.Errorf("%s refuses: %s", line.Address, no.Error)
}

// interfaceOf finds the interface with an address.
func interfaceOf(own netip.Addr) (string, error) {
	links, err := net.Interfaces()
	if err != nil {
		return "", err
	}
	for _, link := range links {
		addrs, err := link.Addrs()
		if err != nil {
			continue // it is just gone
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr() == own {
				return link.Name, nil
			}
		}
	}
	return "", fmt.Errorf("no interface has address %s: name the one that targets are on with --interface", own)
}
