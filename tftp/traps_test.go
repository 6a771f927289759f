package tftp_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"everboot/site"
	"everboot/tftp"

	"go.uber.org/goleak"
)

// What pin/tftp does that a reader of our code should know. A test that fails after an update of it is good news: look whether the
// work-around can go.

// wire is a TFTP client that sends what it is told.
type wire struct {
	t    *testing.T
	conn *net.UDPConn
	from *net.UDPAddr // of the last answer
}

// serveLoopback runs a server on a free port of 127.0.0.1 until the test ends.
func serveLoopback(t *testing.T) (s *tftp.Server, root string, dial func() *wire, stop func() error) {
	t.Helper()
	files, root := newFiles(t)
	probe, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := probe.LocalAddr().(*net.UDPAddr)
	probe.Close()
	events := func(e site.Event) { t.Errorf("event of a probe from this host: %+v", e) }
	s, err = tftp.NewServer(tftp.Config{Listen: address.String()}, files, events, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop = func() error {
		cancel()
		select {
		case err := <-done:
			done <- err
			return err
		case <-time.After(5 * time.Second):
			return errors.New("Run goes on after its context ended")
		}
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
		goleak.VerifyNone(t, goleak.IgnoreCurrent())
	})
	<-s.Ready()
	dial = func() *wire {
		conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return &wire{t: t, conn: conn, from: address}
	}
	return s, root, dial, stop
}

// send sends words joined by NUL after an opcode.
func (w *wire) send(opcode uint16, words ...string) {
	w.t.Helper()
	p := binary.BigEndian.AppendUint16(nil, opcode)
	for _, s := range words {
		p = append(append(p, s...), 0)
	}
	if _, err := w.conn.WriteToUDP(p, w.from); err != nil {
		w.t.Fatal(err)
	}
}

func (w *wire) ack(block uint16) {
	w.t.Helper()
	if _, err := w.conn.WriteToUDP([]byte{0, 4, byte(block >> 8), byte(block)}, w.from); err != nil {
		w.t.Fatal(err)
	}
}

// receive returns the next answer, or nothing after patience.
func (w *wire) receive(patience time.Duration) []byte {
	w.t.Helper()
	if err := w.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		w.t.Fatal(err)
	}
	buf := make([]byte, 65536)
	n, from, err := w.conn.ReadFromUDP(buf)
	if err != nil {
		return nil
	}
	w.from = from
	return buf[:n]
}

const (
	soon  = 2 * time.Second
	quiet = 200 * time.Millisecond
)

func eventually(t *testing.T, s *tftp.Server, what string, f func(tftp.Stats) bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !f(s.Stats()); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: %+v", what, s.Stats())
		}
	}
}

func TestOptions(t *testing.T) {
	_, root, dial, _ := serveLoopback(t)
	if err := os.WriteFile(filepath.Join(root, "file"), bytes.Repeat([]byte("x"), 9000), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		options []string
		want    string
	}{
		{"iPXE's block size", []string{"blksize", "1432"}, "\x00\x06blksize\x001432\x00"},
		{"EDK2's block size", []string{"blksize", "1468"}, "\x00\x06blksize\x001468\x00"},
		{"a block larger than a frame is cut", []string{"blksize", "65464"}, "\x00\x06blksize\x001468\x00"},
		{"size", []string{"tsize", "0"}, "\x00\x06tsize\x009000\x00"},
		{"a block size below 512 is not taken, nor is one that is no size", []string{"blksize", "7"}, ""},
		{"trap: RFC 2347 says that case does not matter", []string{"BLKSIZE", "1432"}, ""},
		{"trap: no RFC 7440", []string{"windowsize", "4"}, ""},
		{"trap: the timeout option is not taken", []string{"timeout", "1"}, ""},
		{"the rest stands", []string{"blksize", "1432", "windowsize", "4"}, "\x00\x06blksize\x001432\x00"},
	} {
		w := dial()
		w.send(1, append([]string{"file", "octet"}, c.options...)...)
		got := w.receive(soon)
		if c.want == "" { // plain RFC 1350: the first block of 512 bytes
			if len(got) != 516 || !bytes.HasPrefix(got, []byte("\x00\x03\x00\x01")) {
				t.Errorf("%s: %.40q", c.name, got)
			}
		} else if string(got) != c.want {
			t.Errorf("%s: %.40q, want %q", c.name, got, c.want)
		}
	}
}

// TestSizeProbe: EDK2 asks for the size, aborts with ERROR 8 by design, and comes again for the file.
func TestSizeProbe(t *testing.T) {
	s, _, dial, _ := serveLoopback(t)
	for _, code := range []string{"\x00\x08", "\x00\x00"} {
		w := dial()
		w.send(1, "undionly.kpxe", "octet", "tsize", "0", "blksize", "1468")
		if got := w.receive(soon); !bytes.HasPrefix(got, []byte("\x00\x06")) {
			t.Fatalf("%q", got)
		}
		w.send(5, code+"User aborted the transfer")
	}
	eventually(t, s, "two size probes, no failure", func(c tftp.Stats) bool {
		return c.SizeProbes == 2 && c.Aborted+c.Failed+c.Complete == 0 && c.Active == 0
	})
}

func TestAbortInMidFile(t *testing.T) {
	s, root, dial, _ := serveLoopback(t)
	if err := os.WriteFile(filepath.Join(root, "file"), make([]byte, 9000), 0o644); err != nil {
		t.Fatal(err)
	}
	w := dial()
	w.send(1, "file", "octet")
	w.receive(soon)
	w.send(5, "\x00\x03disk full")
	eventually(t, s, "one abort", func(c tftp.Stats) bool { return c.Aborted == 1 && c.SizeProbes+c.Failed == 0 })
}

func TestErrors(t *testing.T) {
	s, _, dial, _ := serveLoopback(t)
	for name, want := range map[string]string{
		"none": "file not found", "../secret": `bad file name: ".."`, "outside": "file cannot be read",
		"a\x01": "bad file name: control characters", strings.Repeat("x", 300): "bad file name: longer than 255 bytes",
	} {
		w := dial()
		w.send(1, name, "octet")
		// trap: every error is code 1, "file not found" (RFC 1350 has more).
		if got := string(w.receive(soon)); got != "\x00\x05\x00\x01"+want+"\x00" {
			t.Errorf("%.20q: %q, want %q", name, got, want)
		}
	}
	w := dial()
	w.send(2, "file", "octet")
	if got := string(w.receive(soon)); !strings.HasPrefix(got, "\x00\x05") {
		t.Errorf("write: %q", got)
	}
	for _, p := range []string{"", "\x00", "\x00\x01", "\x00\x01name-without-end", "\x00\x63??", "\x00\x04\x00\x01", "\x00\x01" + strings.Repeat("x", 600) + "\x00octet\x00"} {
		w := dial()
		if _, err := w.conn.WriteToUDP([]byte(p), w.from); err != nil {
			t.Fatal(err)
		}
		if got := w.receive(quiet); got != nil {
			t.Errorf("%.20q: %.40q, want silence", p, got)
		}
	}
	eventually(t, s, "all counted", func(c tftp.Stats) bool { return c.NotFound == 5 && c.Writes == 1 && c.Malformed >= 6 })
}

// TestRetransmission: pin/tftp's own first retransmission comes after 5 to 6 s, ours after about 1 s.
func TestRetransmission(t *testing.T) {
	_, _, dial, _ := serveLoopback(t)
	w := dial()
	w.send(1, "undionly.kpxe", "octet")
	first := w.receive(soon)
	start := time.Now()
	again := w.receive(3 * time.Second)
	if took := time.Since(start); !bytes.Equal(first, again) || took < 900*time.Millisecond || took > 2*time.Second {
		t.Errorf("resent after %v: %q, then %q", took, first, again)
	}
	w.ack(1)
}

// TestRepeatedRequest: trap, a client whose RRQ is repeated gets two transfers from two ports. Clients lock on the first answer.
func TestRepeatedRequest(t *testing.T) {
	_, _, dial, _ := serveLoopback(t)
	w := dial()
	server := w.from
	w.send(1, "undionly.kpxe", "octet")
	w.receive(soon)
	first := w.from
	w.from = server
	w.send(1, "undionly.kpxe", "octet")
	w.receive(soon)
	if first.Port == w.from.Port || first.Port == server.Port {
		t.Errorf("ports %d, %d of server port %d", first.Port, w.from.Port, server.Port)
	}
}

// TestStopWithSilentClient: pin/tftp's Shutdown waits for the client's patience to end, which is 22 s here.
func TestStopWithSilentClient(t *testing.T) {
	s, root, dial, stop := serveLoopback(t)
	if err := os.WriteFile(filepath.Join(root, "file"), make([]byte, 9000), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, options := range [][]string{nil, {"tsize", "0"}} {
		w := dial()
		w.send(1, append([]string{"file", "octet"}, options...)...)
		w.receive(soon)
	}
	start := time.Now()
	if err := stop(); err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took > 2*time.Second || s.Stats().Failed != 2 || s.Stats().Active != 0 {
		t.Errorf("stopped after %v, %+v", took, s.Stats())
	}
}

func TestTooManyTransfers(t *testing.T) {
	files, _ := newFiles(t)
	s, err := tftp.NewServer(tftp.Config{Listen: "127.0.0.1:0", MaxTransfers: 1}, files, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	var rf readerFrom
	if err := tftp.ServeForTest(t.Context(), s, "undionly.kpxe", &rf); err != nil || rf.n != 4 {
		t.Error(err, rf.n)
	}
	rf.block = make(chan struct{})
	rf.entered = make(chan struct{})
	done := make(chan error)
	go func() { done <- tftp.ServeForTest(t.Context(), s, "undionly.kpxe", &rf) }()
	<-rf.entered
	if err := tftp.ServeForTest(t.Context(), s, "undionly.kpxe", &readerFrom{}); err == nil || s.Stats().Refused != 1 {
		t.Error(err, s.Stats())
	}
	// A probe is let in: a node that is busy would be taken for a sick one, give its address away, and all transfers with it.
	if err := tftp.ServeForTest(t.Context(), s, "undionly.kpxe", &probe{}); err != nil {
		t.Errorf("a probe of this host: %v", err)
	}
	close(rf.block)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// probe stands for a transfer to this host.
type probe struct{ readerFrom }

func (*probe) SetSize(int64)           {}
func (*probe) RemoteAddr() net.UDPAddr { return net.UDPAddr{IP: net.IPv4(198, 18, 0, 2), Port: 2000} }
func (*probe) LocalIP() net.IP         { return net.IPv4(198, 18, 0, 2) }

// readerFrom stands for a transfer.
type readerFrom struct {
	n              int64
	block, entered chan struct{}
}

func (r *readerFrom) ReadFrom(src io.Reader) (n int64, err error) {
	if r.block != nil {
		close(r.entered)
		<-r.block
	}
	r.n, err = io.Copy(io.Discard, src)
	return r.n, err
}
