package health_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"everboot/health"

	pin "github.com/pin/tftp/v3"
	"go.uber.org/goleak"
)

// serveTFTP serves one file on loopback.
func serveTFTP(t *testing.T, name, content string) netip.AddrPort {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	srv := pin.NewServer(func(file string, rf io.ReaderFrom) error {
		if file != name {
			return errors.New("file not found")
		}
		_, err := rf.ReadFrom(strings.NewReader(content))
		return err
	}, nil)
	done := make(chan struct{})
	go func() { srv.Serve(conn); close(done) }()
	t.Cleanup(func() { srv.Shutdown(); <-done })
	return conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

func TestTFTPProbe(t *testing.T) {
	content := strings.Repeat("everboot", 1000)
	server := serveTFTP(t, "boot.ipxe", content)
	sum := sha256.Sum256([]byte(content))
	for _, c := range []struct {
		file   string
		verify health.Verify
		want   string
	}{
		{"boot.ipxe", health.SHA256(8000, sum), ""},
		{"boot.ipxe", health.Contains("boot"), ""},
		{"boot.ipxe", health.SHA256(8001, sum), "8000 bytes, want 8001"},
		{"boot.ipxe", health.SHA256(8000, [32]byte{}), "SHA-256"},
		{"boot.ipxe", health.Contains("other"), `without "other"`},
		{"none", health.Contains(""), "file not found"},
	} {
		err := health.TFTP(server, c.file, c.verify)(t.Context())
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.file, err, c.want)
		}
	}
}

// TestTFTPProbeEnds: nobody answers, so that the probe must end by itself and leave nothing behind.
func TestTFTPProbeEnds(t *testing.T) {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
	defer cancel()
	start := time.Now()
	err = health.TFTP(conn.LocalAddr().(*net.UDPAddr).AddrPort(), "x", health.Contains(""))(ctx)
	if took := time.Since(start); err == nil || took > time.Second {
		t.Errorf("%v after %v", err, took)
	}
}

func TestHTTPProbe(t *testing.T) {
	connections := 0
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/bootstrap.ipxe":
			io.WriteString(w, "#!ipxe\n")
		case "/cut":
			w.Header().Set("Content-Length", "100")
			io.WriteString(w, "#!ipxe\n")
		case "/moved":
			http.Redirect(w, r, "/bootstrap.ipxe", http.StatusFound)
		default:
			http.NotFound(w, r)
		}
	}))
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			connections++
		}
	}
	srv.Start()
	defer srv.Close()
	for path, want := range map[string]string{
		"/bootstrap.ipxe": "", "/cut": "unexpected EOF", "/moved": "302", "/none": "404 Not Found",
	} {
		err := health.HTTP(srv.URL+path, health.Contains("#!ipxe"), nil)(t.Context())
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
	if connections != 4 {
		t.Errorf("%d connections for 4 probes", connections)
	}
	srv.Close()
	if err := health.HTTP(srv.URL+"/bootstrap.ipxe", health.Contains(""), nil)(t.Context()); err == nil {
		t.Error("a closed server answers")
	}
}
