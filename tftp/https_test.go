package tftp_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"everboot/tftp"
)

// writeCertificate writes a certificate for 127.0.0.1 and its key.
func writeCertificate(t *testing.T) (certificate, key string, trusted *x509.CertPool) {
	t.Helper()
	return writeCertificateTo(t, t.TempDir())
}

// writeCertificateTo does so in a folder, in place of what is there.
func writeCertificateTo(t *testing.T, dir string) (certificate, key string, trusted *x509.CertPool) {
	t.Helper()
	return writeCertificateFor(t, dir, time.Now())
}

// writeCertificateFor writes one that is good for an hour before and after a time.
func writeCertificateFor(t *testing.T, dir string, good time.Time) (certificate, key string, trusted *x509.CertPool) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: good.Add(-time.Hour), NotAfter: good.Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	certificate, key = filepath.Join(dir, "site.pem"), filepath.Join(dir, "site.key")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	for path, data := range map[string][]byte{certificate: text, key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	trusted = x509.NewCertPool()
	trusted.AppendCertsFromPEM(text)
	return certificate, key, trusted
}

func freeTCP(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// TestHTTPS: with a certificate the same files are served at both ports, and a target's script names the one that it was asked at.
func TestHTTPS(t *testing.T) {
	files, _ := newFiles(t)
	cfg := tftp.HTTPConfig{Listen: freeTCP(t), ListenTLS: freeTCP(t)}
	var trusted *x509.CertPool
	cfg.Certificate, cfg.Key, trusted = writeCertificate(t)
	if errs := tftp.CheckHTTP(cfg); len(errs) != 0 {
		t.Fatal(errs)
	}
	h, err := tftp.NewHTTP(cfg, files, exampleView, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	<-h.Ready()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: trusted}}}
	for _, server := range []string{"http://" + cfg.Listen, "https://" + cfg.ListenTLS} {
		for path, want := range map[string]string{"/sub/kernel": "kernel", "/boot?mac=52:54:00:00:00:01": "chain --autofree --replace " + server + "/boot?mac="} {
			r, err := client.Get(server + path)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(r.Body)
			r.Body.Close()
			if err != nil || !strings.Contains(string(body), want) {
				t.Errorf("%s%s: %q, %v; want %q", server, path, body, err, want)
			}
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestCertificateChanges: a new certificate and key are what the next handshake shows; files that are no pair change nothing, and are told once.
func TestCertificateChanges(t *testing.T) {
	files, _ := newFiles(t)
	dir := t.TempDir()
	cfg := tftp.HTTPConfig{Listen: freeTCP(t), ListenTLS: freeTCP(t)}
	var first *x509.CertPool
	cfg.Certificate, cfg.Key, first = writeCertificateTo(t, dir)
	var lines lockedBuffer
	h, err := tftp.NewHTTP(cfg, files, exampleView, nil, slog.New(slog.NewTextHandler(&lines, nil)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	<-h.Ready()
	shows := func(what string, trusted *x509.CertPool) {
		t.Helper()
		conn, err := tls.Dial("tcp", cfg.ListenTLS, &tls.Config{RootCAs: trusted})
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		conn.Close()
	}
	shows("the first", first)
	replace := func(path, text string, ago time.Duration) {
		t.Helper()
		then := time.Now().Add(-ago)
		if err := errors.Join(os.WriteFile(path, []byte(text), 0o600), os.Chtimes(path, then, then)); err != nil {
			t.Fatal(err)
		}
	}
	replace(cfg.Key, "half", 0)
	shows("a key that has just been written", first)
	if text := lines.String(); text != "" {
		t.Errorf("told at once: %s", text)
	}
	old := time.Now().Add(-time.Minute)
	if err := os.Chtimes(cfg.Certificate, old, old); err != nil {
		t.Fatal(err)
	}
	replace(cfg.Key, "nonsense", time.Minute)
	for range 3 {
		shows("a bad key", first)
	}
	if n := strings.Count(lines.String(), "the former are kept"); n != 1 {
		t.Errorf("told %d times: %s", n, lines.String())
	}
	if err := os.Remove(cfg.Key); err != nil {
		t.Fatal(err)
	}
	shows("no key", first)
	if n := strings.Count(lines.String(), "the former are kept"); n != 2 {
		t.Errorf("a key that is gone: told %d times: %s", n, lines.String())
	}
	_, _, second := writeCertificateTo(t, dir)
	shows("the second", second)
	if conn, err := tls.Dial("tcp", cfg.ListenTLS, &tls.Config{RootCAs: first}); err == nil {
		conn.Close()
		t.Error("the first is shown still")
	}
	// One that is past its time is still shown, for all else goes on; the status says so.
	for want, now := range map[string]time.Time{
		"": time.Now(), "has expired on": time.Now().Add(2 * time.Hour), "is the clock of this host right": time.Now().Add(-2 * time.Hour),
	} {
		if err := h.CertificateProblem(now); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// lockedBuffer is written by one goroutine while another reads.
type lockedBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func TestBadCertificates(t *testing.T) {
	certificate, _, _ := writeCertificate(t)
	for want, cfg := range map[string]tftp.HTTPConfig{
		"give both, or none":          {Certificate: certificate},
		"reading certificate and key": {Listen: freeTCP(t), ListenTLS: freeTCP(t), Certificate: certificate, Key: certificate},
	} {
		err := cfg.Validate()
		if errs := tftp.CheckHTTP(cfg); err == nil && len(errs) == 1 {
			err = errs[0]
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
