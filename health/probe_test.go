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
	"syscall"
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

// TestTFTPProbeHearsThatNobodyListens: a process that died is known at once, not when time is up.
func TestTFTPProbeHearsThatNobodyListens(t *testing.T) {
	for network, host := range map[string]net.IP{"udp4": net.IPv4(127, 0, 0, 1), "udp6": net.IPv6loopback} {
		conn, err := net.ListenUDP(network, &net.UDPAddr{IP: host})
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
		start := time.Now()
		err = health.TFTP(conn.LocalAddr().(*net.UDPAddr).AddrPort(), "x", health.Contains(""))(t.Context())
		if took := time.Since(start); !errors.Is(err, syscall.ECONNREFUSED) || took > health.DefaultTimeout/2 {
			t.Errorf("%s: %v after %s", network, err, took)
		}
	}
}

// TestTFTPProbeOfHostileServers: what a server sends is bounded, and what is no answer to us is none.
func TestTFTPProbeOfHostileServers(t *testing.T) {
	for name, c := range map[string]struct {
		answers []string // to the first packet
		want    string
	}{
		"a larger block than asked for": {[]string{"\x00\x06blksize\x0065464\x00"}, "was not asked for"},
		"options without a value":       {[]string{"\x00\x06blksize\x00", "\x00\x03\x00\x01everboot"}, "was not asked for"},
		"a size that is none":           {[]string{"\x00\x06tsize\x00-1\x00"}, "was not asked for"},
		"fewer bytes than promised":     {[]string{"\x00\x06tsize\x0099\x00", "\x00\x03\x00\x01everboot"}, "8 bytes came, 99 were promised"},
		"the wrong block":               {[]string{"\x00\x03\x00\x02none", "\x00\x03\x00\x01everboot"}, ""},
		"a word too short":              {[]string{"\x00\x03", "", "\x00\x03\x00\x01everboot"}, ""},
		"a refusal":                     {[]string{"\x00\x05\x00\x01no such file\x00"}, `"no such file" (error 1)`},
		"an unknown packet":             {[]string{"\x00\x09\x00\x01xx", "\x00\x03\x00\x01everboot"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			go func() {
				b := make([]byte, 1500)
				if _, from, err := conn.ReadFromUDPAddrPort(b); err == nil {
					for _, a := range c.answers {
						conn.WriteToUDPAddrPort([]byte(a), from)
					}
				}
			}()
			err = health.TFTP(conn.LocalAddr().(*net.UDPAddr).AddrPort(), "x", health.Contains("everboot"))(t.Context())
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

// TestABootFileIsMissedByWordOnly: a server that has no such file, and not one that says nothing or something else.
func TestABootFileIsMissedByWordOnly(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method != http.MethodHead:
			t.Errorf("%s: the file is loaded", r.Method)
		case r.URL.Path == "/none":
			http.NotFound(w, r)
		case r.URL.Path == "/busy":
			http.Error(w, "busy", http.StatusServiceUnavailable)
		}
	}))
	at := netip.MustParseAddrPort(server.Listener.Addr().String())
	for file, missing := range map[string]bool{"there": false, "busy": false, "none": true} {
		if err := health.BootFile("x", at.Addr(), at.Port(), file).Probe(t.Context()); (err != nil) != missing {
			t.Errorf("%s: %v", file, err)
		}
	}
	server.Close()
	if err := health.BootFile("x", at.Addr(), at.Port(), "none").Probe(t.Context()); err != nil {
		t.Errorf("nobody answers: %v", err)
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
