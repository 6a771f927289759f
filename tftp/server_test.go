package tftp_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"everboot/tftp"
)

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
		{"one that no datagram could hold, too", []string{"blksize", "70000"}, "\x00\x06blksize\x001468\x00"},
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
