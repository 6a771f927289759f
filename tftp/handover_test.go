package tftp_test

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"everboot/tftp"
)

var floating = []netip.Addr{netip.MustParseAddr("127.0.0.1")}

// pair is two servers of one floating address, of which one runs at a time. The other hears all that the first tells.
type pair struct {
	a, b *served
	mu   sync.Mutex
	told int
}

func newPair(t *testing.T, cfg tftp.Config) *pair {
	t.Helper()
	free, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free.Close()
	address, p := free.LocalAddr().(*net.UDPAddr), new(pair)
	cfg.Tell = func([]byte) {}
	p.b = prepare(t, address, cfg)
	cfg.Tell = func(m []byte) {
		p.peer().PeerChanged("a", m)
		p.mu.Lock()
		defer p.mu.Unlock()
		p.told++
	}
	p.a = prepare(t, address, cfg)
	p.a.start()
	p.a.Own(floating)
	return p
}

// peer returns who hears what a tells.
func (p *pair) peer() *served {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.b
}

// await waits until a has told so many messages.
func (p *pair) await(n int) {
	p.a.t.Helper()
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		p.mu.Lock()
		told := p.told
		p.mu.Unlock()
		if told >= n {
			return
		}
		if time.Now().After(end) {
			p.a.t.Fatalf("%d messages to the peer, want %d", told, n)
		}
	}
}

// move is the death of a, and b's take-over.
func (p *pair) move() {
	p.a.t.Helper()
	if err := p.a.stop(); err != nil {
		p.a.t.Fatal(err)
	}
	p.b.start()
	p.b.Own(floating)
}

// block returns the next block that a client wants, and acknowledges it.
func (c *client) block(number uint16) []byte {
	c.t.Helper()
	for {
		p := c.receive(soon)
		if p == nil {
			c.t.Fatalf("block %d does not come", number)
		}
		if len(p) < 4 || p[1] != 3 {
			c.t.Fatalf("block %d: %q", number, p)
		}
		if got := binary.BigEndian.Uint16(p[2:]); got == number {
			c.ack(number)
			return p[4:]
		}
		c.ack(number - 1) // as firmware does with a block that it has: it says where it is
	}
}

func TestTransferGoesOnElsewhere(t *testing.T) {
	for name, own := range map[string]bool{"from the port of all": false, "from its own port": true} {
		t.Run(name, func(t *testing.T) { goesOnElsewhere(t, own) })
	}
}

func goesOnElsewhere(t *testing.T, own bool) {
	p := newPair(t, tftp.Config{EphemeralPorts: own})
	want := p.a.write("file", 100*512+7)
	p.b.write("file", len(want))
	w := p.a.dial(2)
	w.free = own
	w.send(1, "file", "octet")
	var got []byte
	for n := range uint16(30) {
		got = append(got, w.block(n+1)...)
	}
	p.await(1)
	for n := range uint16(20) { // what the peer may not know
		got = append(got, w.block(n+31)...)
	}
	p.move()
	// The client sends nothing by itself: b must. It has sent block 51 of a's last answer or an older one.
	for n := uint16(51); len(got) < len(want); n++ {
		got = append(got, w.block(n)...)
	}
	if !bytes.Equal(got, want) {
		t.Error("other bytes")
	}
	p.b.eventually("complete", func(s tftp.Stats) bool { return s.Resumed == 1 && s.Finished["complete"] == 1 && s.Active == 0 })
	if _, past := p.b.Transfers(t.Context()); len(past) != 1 || past[0].Resumed != 1 {
		t.Errorf("%+v", past)
	}
}

// TestOtherFile: two files are never mixed.
func TestOtherFile(t *testing.T) {
	for name, change := range map[string]func(path string) error{
		"the file differs on the appliance that took over: start again": func(path string) error { return os.WriteFile(path, make([]byte, 9000), 0o644) },
		"file not found on the appliance that took over":                os.Remove,
	} {
		p := newPair(t, tftp.Config{})
		p.a.write("file", 9000)
		p.b.write("file", 9000)
		if err := change(filepath.Join(p.b.root, "file")); err != nil {
			t.Fatal(err)
		}
		w := p.a.dial(2)
		w.send(1, "file", "octet")
		w.block(1)
		p.await(1)
		p.move()
		for n := 0; ; {
			got := w.receive(4 * quiet)
			if got == nil {
				if n++; n > 5 {
					t.Fatalf("no answer, want %q", name)
				}
				w.ack(1) // as firmware does that hears nothing
				continue
			}
			if got[1] == 5 && string(got[4:len(got)-1]) == name {
				break
			}
		}
	}
}

// TestThereAndBack: an address that comes back brings its transfers, as far as they are by then.
func TestThereAndBack(t *testing.T) {
	p := newPair(t, tftp.Config{})
	want := p.a.write("file", 20*512+7)
	w := p.a.dial(2)
	w.send(1, "file", "octet")
	got := w.block(1)
	p.await(1)
	p.a.Own(nil)
	p.a.eventually("let go", func(s tftp.Stats) bool { return s.Active == 0 && s.Dropped["let_go"] == 1 })
	for w.receive(quiet) != nil { // what was on its way
	}
	w.ack(1)
	if p := w.receive(quiet); p != nil {
		t.Errorf("answered without the address: %.20q", p)
	}
	p.a.Own(floating)
	for n := uint16(2); len(got) < len(want); n++ {
		got = append(got, w.block(n)...)
	}
	if !bytes.Equal(got, want) {
		t.Error("other bytes")
	}
}

// TestWhole: what a peer that was away is told at once.
func TestWhole(t *testing.T) {
	p := newPair(t, tftp.Config{})
	want := p.a.write("file", 3*512+7)
	p.b.write("file", len(want))
	w := p.a.dial(2)
	w.send(1, "file", "octet")
	got := w.block(1)
	p.a.eventually("one", func(s tftp.Stats) bool { return s.Active == 1 })
	whole := p.a.PeerWhole()
	b := prepare(t, p.a.address, tftp.Config{Tell: func([]byte) {}})
	p.mu.Lock()
	p.b = b
	p.mu.Unlock()
	p.b.write("file", len(want))
	p.b.PeerMerge("a", whole)
	p.b.PeerChanged("a", []byte("rubbish"))
	p.move()
	for n := uint16(2); len(got) < len(want); n++ {
		got = append(got, w.block(n)...)
	}
	if !bytes.Equal(got, want) {
		t.Error("other bytes")
	}
	p.b.eventually("a bad message is counted", func(s tftp.Stats) bool { return s.Dropped["bad_peer"] == 1 })
}
