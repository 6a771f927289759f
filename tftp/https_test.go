package tftp_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"everboot/tftp"
)

// writeCertificate writes a certificate for 127.0.0.1 and its key.
func writeCertificate(t *testing.T) (certificate, key string, trusted *x509.CertPool) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
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
