package tftp

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// settle is how long certificate and key may not belong together before that is a fault: they are two files, and one is replaced first.
const settle = time.Second

// certificate is HTTPS's, read again by the next handshake when one of its files has changed. What cannot be read changes nothing.
type certificate struct {
	certFile, keyFile string
	log               *slog.Logger

	mu     sync.Mutex
	pair   *tls.Certificate
	stamps [2]os.FileInfo // of the files that were read, or that could not be
}

func newCertificate(certFile, keyFile string, log *slog.Logger) (*certificate, error) {
	c := &certificate{certFile: certFile, keyFile: keyFile, log: log}
	c.stamps = c.stat()
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("http: reading certificate and key: %w", err)
	}
	c.pair = &pair
	return c, nil
}

// config returns the configuration of HTTPS.
func (c *certificate) config() *tls.Config {
	get := func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.current(time.Now()), nil }
	return &tls.Config{GetCertificate: get, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
}

// valid returns an error that says what to do about a certificate that no target accepts now.
func (c *certificate) valid(now time.Time) error {
	switch leaf := c.current(now).Leaf; {
	case now.After(leaf.NotAfter):
		return fmt.Errorf("http: the certificate in %s has expired on %s: renew it; it is read again without a restart", c.certFile, leaf.NotAfter.Format(time.DateOnly))
	case now.Before(leaf.NotBefore):
		return fmt.Errorf("http: the certificate in %s is not valid before %s: is the clock of this host right?", c.certFile, leaf.NotBefore.Format(time.DateOnly))
	}
	return nil
}

// current returns what a handshake shows.
func (c *certificate) current(now time.Time) *tls.Certificate {
	c.mu.Lock()
	defer c.mu.Unlock()
	stamps := c.stat() // before it is read: what changes meanwhile is read again
	if same(stamps, c.stamps) {
		return c.pair
	}
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	switch {
	case err == nil:
		c.pair, c.stamps = &pair, stamps
		c.log.Info("http: certificate and key have changed, and are read again", "certificate", c.certFile)
	case now.Sub(latest(stamps)).Abs() >= settle:
		c.stamps = stamps // told once
		c.log.Error("http: certificate and key have changed, and cannot be read: the former are kept; mend the files", "certificate", c.certFile, "key", c.keyFile, "err", err)
	}
	return c.pair
}

// stat returns what tells that the files have changed; nil for one that is gone.
func (c *certificate) stat() (stamps [2]os.FileInfo) {
	for i, path := range []string{c.certFile, c.keyFile} {
		if info, err := os.Stat(path); err == nil {
			stamps[i] = info
		}
	}
	return stamps
}

// same tells whether files are what they were: a new one may have the old one's time.
func same(a, b [2]os.FileInfo) bool {
	for i := range a {
		if a[i] == nil || b[i] == nil {
			if a[i] != b[i] {
				return false
			}
			continue
		}
		if !os.SameFile(a[i], b[i]) || !a[i].ModTime().Equal(b[i].ModTime()) || a[i].Size() != b[i].Size() {
			return false
		}
	}
	return true
}

func latest(stamps [2]os.FileInfo) (last time.Time) {
	for _, info := range stamps {
		if info != nil && info.ModTime().After(last) {
			last = info.ModTime()
		}
	}
	return last
}
