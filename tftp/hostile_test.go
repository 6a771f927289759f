package tftp_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"runtime"
	"testing"

	"everboot/tftp"
)

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
	before := heap()
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
	// A place costs about 1 KB; 10,000 files that were read for nobody would be 200 MB.
	if grown := heap() - before; grown > 8<<20 {
		t.Errorf("the flood costs %d bytes", grown)
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

// heap returns how many bytes are in use.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
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
