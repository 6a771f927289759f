package tftp_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"everboot/site"
	"everboot/tftp"

	"go.uber.org/goleak"
)

// client is a TFTP client that sends what it is told.
type client struct {
	t      *testing.T
	conn   *net.UDPConn
	server *net.UDPAddr
}

// served is a server on a free port of 127.0.0.1. Clients at that address are probes to it, those at 127.0.0.2 are not.
type served struct {
	*tftp.Server
	t       *testing.T
	root    string
	address *net.UDPAddr
	stop    func() error // set by start

	mu     sync.Mutex
	events []site.Event
}

func serve(t *testing.T, cfg tftp.Config) *served {
	t.Helper()
	free, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free.Close()
	s := prepare(t, free.LocalAddr().(*net.UDPAddr), cfg)
	s.start()
	return s
}

// prepare returns a server that does not run yet.
func prepare(t *testing.T, address *net.UDPAddr, cfg tftp.Config) *served {
	t.Helper()
	files, root := newFiles(t)
	s := &served{t: t, root: root, address: address}
	cfg.Listen = address.String()
	events := func(e site.Event) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.events = append(s.events, e)
	}
	var err error
	if s.Server, err = tftp.NewServer(cfg, files, events, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *served) start() {
	t := s.t
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	s.stop = func() error {
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
		if err := s.stop(); err != nil {
			t.Error(err)
		}
		goleak.VerifyNone(t, goleak.IgnoreCurrent())
	})
	select {
	case <-s.Ready():
	case err := <-done:
		t.Fatal(err)
	}
}

func (s *served) write(name string, size int) []byte {
	s.t.Helper()
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(i / 7)
	}
	if err := os.WriteFile(filepath.Join(s.root, name), data, 0o644); err != nil {
		s.t.Fatal(err)
	}
	return data
}

// dial opens a port at 127.0.0.N.
func (s *served) dial(n byte) *client {
	s.t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, n)})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	return &client{t: s.t, conn: conn, server: s.address}
}

func (s *served) eventually(what string, f func(tftp.Stats) bool) {
	s.t.Helper()
	for end := time.Now().Add(8 * time.Second); !f(s.Stats()); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("%s: %+v", what, s.Stats())
		}
	}
}

// send sends words joined by NUL after an opcode.
func (c *client) send(opcode uint16, words ...string) {
	c.t.Helper()
	p := binary.BigEndian.AppendUint16(nil, opcode)
	for _, s := range words {
		p = append(append(p, s...), 0)
	}
	c.raw(p)
}

func (c *client) raw(p []byte) {
	c.t.Helper()
	if _, err := c.conn.WriteToUDP(p, c.server); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) ack(block uint16) { c.raw([]byte{0, 4, byte(block >> 8), byte(block)}) }

// receive returns the next answer, or nothing after patience. Every answer comes from the port that was asked.
func (c *client) receive(patience time.Duration) []byte {
	c.t.Helper()
	if err := c.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		c.t.Fatal(err)
	}
	buf := make([]byte, 65536)
	n, from, err := c.conn.ReadFromUDP(buf)
	if err != nil {
		return nil
	}
	if from.Port != c.server.Port {
		c.t.Errorf("answered from port %d", from.Port)
	}
	return buf[:n]
}

// fetch reads a file in lockstep, without options.
func (c *client) fetch(name, mode string) []byte {
	c.t.Helper()
	var got []byte
	c.send(1, name, mode)
	for block := uint16(1); ; block++ {
		p := c.receive(soon)
		for len(p) >= 4 && binary.BigEndian.Uint16(p[2:]) == block-1 { // came twice
			p = c.receive(soon)
		}
		if len(p) < 4 || !bytes.Equal(p[:4], []byte{0, 3, byte(block >> 8), byte(block)}) {
			c.t.Fatalf("%s, block %d: %.40q", name, block, p)
		}
		got = append(got, p[4:]...)
		c.ack(block)
		if len(p) < 516 {
			return got
		}
	}
}

const (
	soon  = 5 * time.Second
	quiet = 100 * time.Millisecond
)

func TestOptions(t *testing.T) {
	s := serve(t, tftp.Config{})
	s.write("file", 9000)
	for _, c := range []struct {
		name    string
		options []string
		want    string
	}{
		{"iPXE's block size", []string{"blksize", "1432"}, "\x00\x06blksize\x001432\x00"},
		{"a block larger than a frame is cut", []string{"blksize", "65464"}, "\x00\x06blksize\x001468\x00"},
		{"EDK2", []string{"tsize", "0", "blksize", "1468", "windowsize", "4"}, "\x00\x06tsize\x009000\x00blksize\x001468\x00windowsize\x004\x00"},
		{"a block size of 7 is not taken", []string{"blksize", "7"}, ""},
		{"case does not matter (RFC 2347)", []string{"BLKSIZE", "1432"}, "\x00\x06blksize\x001432\x00"},
		{"timeout", []string{"timeout", "1"}, "\x00\x06timeout\x001\x00"},
	} {
		w := s.dial(1)
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

// TestBlockLimits: the interface's MTU and the subnet's limit bound the block size.
func TestBlockLimits(t *testing.T) {
	s := serve(t, tftp.Config{MTU: 9000, Blocks: []tftp.BlockLimit{{Network: prefix("127.0.0.2/32"), Block: 1024}}})
	s.write("file", 20000)
	for n, want := range map[byte]string{2: "1024", 3: "8968"} {
		w := s.dial(n)
		w.send(1, "file", "octet", "blksize", "65000")
		if got := string(w.receive(soon)); got != "\x00\x06blksize\x00"+want+"\x00" {
			t.Errorf("127.0.0.%d: %q, want %s", n, got, want)
		}
	}
}

// TestBlocksOfALoopback: at its MTU one send cannot carry two blocks.
func TestBlocksOfALoopback(t *testing.T) {
	s := serve(t, tftp.Config{MTU: 65536})
	s.write("file", 200000)
	w := s.dial(2)
	w.send(1, "file", "octet", "blksize", "65464", "windowsize", "4")
	w.receive(soon)
	w.ack(0)
	for block := byte(1); block <= 4; block++ {
		if p := w.receive(soon); len(p) < 4 || p[3] != block {
			t.Fatalf("block %d: %.4q", block, p)
		}
	}
}

// TestSizeProbe: EDK2 asks for the size, aborts with ERROR 8 by design, and comes again for the file.
func TestSizeProbe(t *testing.T) {
	s := serve(t, tftp.Config{})
	for _, code := range []string{"\x00\x08", "\x00\x00"} {
		w := s.dial(2)
		w.send(1, "undionly.kpxe", "octet", "tsize", "0", "blksize", "1468")
		if got := w.receive(soon); !bytes.HasPrefix(got, []byte("\x00\x06")) {
			t.Fatalf("%q", got)
		}
		w.send(5, code+"User aborted the transfer")
	}
	s.eventually("two size probes, no failure", func(c tftp.Stats) bool {
		return c.Finished["size_probe"] == 2 && c.Finished["aborted"]+c.Finished["complete"] == 0 && c.Active == 0
	})
	if len(s.events) != 0 {
		t.Errorf("a question for the size is told: %+v", s.events)
	}
}

func TestAbortInMidFile(t *testing.T) {
	s := serve(t, tftp.Config{})
	s.write("file", 9000)
	w := s.dial(2)
	w.send(1, "file", "octet")
	w.receive(soon)
	w.ack(1)
	w.receive(soon)
	w.send(5, "\x00\x03disk full")
	s.eventually("one abort", func(c tftp.Stats) bool { return c.Finished["aborted"] == 1 && c.Finished["size_probe"] == 0 })
	_, past := s.Transfers(t.Context())
	if len(past) != 1 || past[0].Result != "aborted" || past[0].Bytes != 512 || past[0].Size != 9000 || past[0].File != "file" {
		t.Errorf("%+v", past)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.events) != 1 || s.events[0].Detail != "file: the client gave up after 512 bytes: disk full to 127.0.0.2" {
		t.Errorf("%+v", s.events)
	}
}

func TestErrors(t *testing.T) {
	s := serve(t, tftp.Config{})
	for _, c := range []struct{ name, mode, want string }{
		{"none", "octet", "\x00\x01file not found"}, {"../secret", "octet", "\x00\x02bad file name: \"..\""}, {"outside", "octet", "\x00\x02file cannot be read"},
		{"/etc/passwd", "octet", "\x00\x01file not found"}, {"a\x01", "octet", "\x00\x02bad file name: control characters"},
		{strings.Repeat("x", 300), "octet", "\x00\x02bad file name: longer than 255 bytes"}, {strings.Repeat("x", 500), "octet", "\x00\x02bad file name: longer than 255 bytes"},
		{"undionly.kpxe", "mail", "\x00\x04unknown mode: use octet or netascii"}, {"a\x00b", "octet", "\x00\x04unknown mode: use octet or netascii"},
	} {
		w := s.dial(1)
		w.send(1, c.name, c.mode)
		if got := string(w.receive(soon)); got != "\x00\x05"+c.want+"\x00" {
			t.Errorf("%.20q: %q, want %q", c.name, got, c.want)
		}
	}
	w := s.dial(1)
	w.send(2, "file", "octet")
	if got := string(w.receive(soon)); got != "\x00\x05\x00\x02read-only server\x00" {
		t.Errorf("write: %q", got)
	}
	for _, p := range []string{
		"", "\x00", "\x00\x01", "\x00\x01name-without-end", "\x00\x63??", "\x00\x04\x00\x01", "\x00\x05\x00\x00x\x00", "\x00\x03\x00\x01data",
		"\x00\x01" + strings.Repeat("x", 1600) + "\x00octet\x00",
	} {
		w := s.dial(1)
		w.raw([]byte(p))
		if got := w.receive(quiet); got != nil {
			t.Errorf("%.20q: %.40q, want silence", p, got)
		}
	}
	s.eventually("all counted", func(c tftp.Stats) bool {
		d := c.Dropped
		return d["not_found"] == 2 && d["bad_name"] == 4 && d["not_readable"] == 1 && d["unknown_mode"] == 2 && d["write"] == 1 && d["malformed"] == 7 && d["stray"] == 2
	})
}

// TestNetascii: lines end with CR LF, a lone CR is CR NUL (RFC 764).
func TestNetascii(t *testing.T) {
	s := serve(t, tftp.Config{})
	text := strings.Repeat("line\nwith \r in it\n", 100)
	if err := os.WriteFile(filepath.Join(s.root, "text"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	want := strings.ReplaceAll(strings.ReplaceAll(text, "\r", "\r\x00"), "\n", "\r\n")
	if got := string(s.dial(1).fetch("text", "netascii")); got != want {
		t.Errorf("%d bytes, want %d", len(got), len(want))
	}
	w := s.dial(1)
	w.send(1, "text", "NetASCII", "tsize", "0")
	if got := string(w.receive(soon)); got != fmt.Sprintf("\x00\x06tsize\x00%d\x00", len(want)) {
		t.Errorf("size %q, want %d", got, len(want))
	}
}

// TestRetransmission: what is not answered comes again after 0.2 s.
func TestRetransmission(t *testing.T) {
	s := serve(t, tftp.Config{})
	w := s.dial(1)
	w.send(1, "undionly.kpxe", "octet")
	first := w.receive(soon)
	start := time.Now()
	again := w.receive(soon)
	if took := time.Since(start); !bytes.Equal(first, again) || took < 100*time.Millisecond {
		t.Errorf("resent after %v: %q, then %q", took, first, again)
	}
	w.ack(1)
	s.eventually("complete", func(c tftp.Stats) bool { return c.Finished["complete"] == 1 && c.Resent >= 1 && c.Bytes == 4 })
}

// TestRepeatedRequest: a client that asks again before it had an answer has one transfer; one that asks for something else begins anew.
func TestRepeatedRequest(t *testing.T) {
	s := serve(t, tftp.Config{})
	s.write("file", 9000)
	w := s.dial(1)
	for range 3 {
		w.send(1, "file", "octet", "blksize", "1000")
	}
	w.receive(soon)
	s.eventually("one transfer", func(c tftp.Stats) bool { return c.Active == 1 && c.Dropped["superseded"] == 0 })
	w.ack(0)
	w.receive(soon)
	w.send(1, "undionly.kpxe", "octet")
	for got := w.receive(soon); string(got) != "\x00\x03\x00\x01bios"; got = w.receive(soon) {
		if got == nil {
			t.Fatal("no answer to the second request")
		}
	}
	s.eventually("superseded", func(c tftp.Stats) bool { return c.Active == 1 && c.Dropped["superseded"] == 1 })
}

// TestSpoofedAcks: an ACK from another port moves nothing, and is not answered.
func TestSpoofedAcks(t *testing.T) {
	s := serve(t, tftp.Config{})
	want := s.write("file", 3000)
	w, other := s.dial(2), s.dial(2)
	w.send(1, "file", "octet")
	first := w.receive(soon)
	for block := range uint16(10) {
		other.ack(block)
	}
	if got := other.receive(quiet); got != nil {
		t.Errorf("answered: %.20q", got)
	}
	if !bytes.Equal(first[4:], want[:512]) {
		t.Errorf("%.20q", first)
	}
	s.eventually("strays", func(c tftp.Stats) bool { return c.Dropped["stray"] == 10 && c.Active == 1 })
	if live, _ := s.Transfers(t.Context()); len(live) != 1 || live[0].Bytes != 0 {
		t.Errorf("%+v", live)
	}
}

// TestFlood: requests from 10,000 ports that never answer take places from each other, not from a client that loads, and are forgotten.
func TestFlood(t *testing.T) {
	const most = 300
	s := serve(t, tftp.Config{MaxTransfers: most, PerClient: 100})
	want := s.write("file", 20000)
	slow := s.dial(9)
	slow.send(1, "file", "octet")
	slow.receive(soon)
	slow.ack(1)
	slow.receive(soon)
	for n := range 10000 {
		conn, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 1, byte(n%10))}, s.address)
		if err != nil {
			t.Fatal(err)
		}
		_, err = conn.Write([]byte("\x00\x01file\x00octet\x00"))
		conn.Close()
		if err != nil && !errors.Is(err, net.ErrClosed) {
			continue // ICMP of the port that was closed before
		}
		if n%1000 == 0 {
			if active := s.Stats().Active; active > most {
				t.Fatalf("%d transfers at once", active)
			}
		}
	}
	if got := s.dial(2).fetch("file", "octet"); !bytes.Equal(got, want) {
		t.Errorf("in the flood: %d bytes, want %d", len(got), len(want))
	}
	slow.ack(2)
	for {
		p := slow.receive(soon)
		if p == nil {
			t.Fatal("who had begun before the flood has lost its place")
		}
		if binary.BigEndian.Uint16(p[2:]) == 3 {
			break
		}
	}
	s.eventually("strangers are forgotten", func(c tftp.Stats) bool { return c.Active == 1 && c.Dropped["evicted"] > 0 })
}

// TestManyOfOneClient: who has answered is never thrown out; further ones are told.
func TestManyOfOneClient(t *testing.T) {
	s := serve(t, tftp.Config{PerClient: 3})
	s.write("file", 9000)
	for range 3 {
		w := s.dial(2)
		w.send(1, "file", "octet")
		w.receive(soon)
		w.ack(1)
		w.receive(soon)
	}
	w := s.dial(2)
	w.send(1, "file", "octet")
	if got := string(w.receive(soon)); got != "\x00\x05\x00\x00too many transfers, try again\x00" {
		t.Errorf("%q", got)
	}
	for _, n := range []byte{1, 3} { // a probe, and another client
		w := s.dial(n)
		w.send(1, "file", "octet")
		if got := w.receive(soon); len(got) != 516 {
			t.Errorf("127.0.0.%d: %.40q", n, got)
		}
	}
}

// TestForgedProbes: who sends as if it were an appliance passes the limits only so far.
func TestForgedProbes(t *testing.T) {
	s := serve(t, tftp.Config{PerClient: 1})
	s.write("file", 9000)
	for n := range 65 {
		w := s.dial(1)
		w.send(1, "file", "octet")
		got := w.receive(soon)
		if let := len(got) == 516; let != (n < 64) {
			t.Fatalf("request %d: %.40q", n, got)
		}
		w.ack(1)
		w.receive(soon)
	}
	s.eventually("one is refused", func(c tftp.Stats) bool { return c.Active == 64 && c.Dropped["refused"] == 1 })
}

// TestForgedProbesGiveWay: those that never answer shut out no real one.
func TestForgedProbesGiveWay(t *testing.T) {
	s := serve(t, tftp.Config{PerClient: 1})
	want := s.write("file", 900)
	for range 64 {
		w := s.dial(1)
		w.send(1, "file", "octet")
		w.receive(soon)
	}
	if got := s.dial(1).fetch("file", "octet"); !bytes.Equal(got, want) {
		t.Errorf("a real probe got %d bytes", len(got))
	}
}

// TestPollFails: a server that cannot go on says so.
func TestPollFails(t *testing.T) {
	free, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free.Close()
	s := prepare(t, free.LocalAddr().(*net.UDPAddr), tftp.Config{})
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() { done <- s.Run(ctx) }()
	<-s.Ready()
	w := s.dial(2)
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	few := limit
	few.Cur = 1 // poll takes no more descriptors than that, and has two
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	defer syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
	w.send(1, "none", "octet") // wakes it
	select {
	case err := <-done:
		if !errors.Is(err, syscall.EINVAL) {
			t.Error(err)
		}
	case <-time.After(soon):
		t.Error("Run waits though nobody serves")
	}
}

// TestCutShort: a file that is cut short in mid-transfer ends its transfer, not the server.
func TestCutShort(t *testing.T) {
	s := serve(t, tftp.Config{})
	want := s.write("file", 1<<20)
	w := s.dial(1)
	w.send(1, "file", "octet")
	w.receive(soon)
	if err := os.Truncate(filepath.Join(s.root, "file"), 0); err != nil {
		t.Fatal(err)
	}
	w.ack(1)
	w.receive(quiet)
	copy(want, s.write("file", 1000))
	if got := s.dial(1).fetch("file", "octet"); !bytes.Equal(got, want[:1000]) {
		t.Errorf("%d bytes", len(got))
	}
	s.eventually("not sent", func(c tftp.Stats) bool { return c.Unsent > 0 })
}

func TestStopWithSilentClients(t *testing.T) {
	s := serve(t, tftp.Config{})
	s.write("file", 9000)
	for _, options := range [][]string{nil, {"tsize", "0"}} {
		w := s.dial(1)
		w.send(1, append([]string{"file", "octet"}, options...)...)
		w.receive(soon)
	}
	start := time.Now()
	if err := s.stop(); err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took > 2*time.Second || s.Stats().Active != 0 {
		t.Errorf("stopped after %v, %+v", took, s.Stats())
	}
}

func TestConfig(t *testing.T) {
	for _, c := range []struct {
		cfg  tftp.Config
		want string
	}{
		{tftp.Config{Listen: "x"}, "use ADDRESS:PORT or :PORT"}, {tftp.Config{MaxTransfers: -1}, "use 1 or more"}, {tftp.Config{PerClient: -1}, "use 1 or more"},
		{tftp.Config{MTU: 100}, "use 576 or more"}, {tftp.Config{Blocks: []tftp.BlockLimit{{Network: prefix("127.0.0.0/8"), Block: 100}}}, "use 512 to 65464"},
	} {
		if err := c.cfg.Validate(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.cfg, err, c.want)
		}
	}
}

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }
