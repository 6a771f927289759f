package tftp_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
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
	// free: the first answer may come from any port but the one that was asked; all others come from there, and what is sent goes there.
	free bool
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
	s.put(name, data)
	return data
}

func (s *served) put(name string, data []byte) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.root, name), data, 0o644); err != nil {
		s.t.Fatal(err)
	}
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

// receive returns the next answer, or nothing after patience. Every answer comes from the port that was asked, unless the client is free.
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
	if c.free && from.Port != c.server.Port {
		c.free, c.server = false, from
	}
	if c.free || from.Port != c.server.Port {
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
