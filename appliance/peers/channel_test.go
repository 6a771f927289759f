package peers

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// room is a share that writes down what it is told.
type room struct {
	whole []byte
	told  chan string
}

func newRoom(whole string) *room { return &room{whole: []byte(whole), told: make(chan string, 100)} }

func (r *room) share() Share {
	return Share{
		Changed: func(from string, m []byte) { r.told <- from + " says " + string(m) },
		Whole:   func() []byte { return r.whole },
		Merge:   func(from string, w []byte) { r.told <- from + " has " + string(w) },
	}
}

// await waits until the room is told something.
func (r *room) await(t *testing.T, want string) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		select {
		case got := <-r.told:
			if got == want {
				return
			}
		case <-deadline:
			t.Fatalf("never told: %s", want)
		}
	}
}

var first, second = netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2")

// freePort returns a port that is free at both addresses, for UDP and TCP.
func freePort(t *testing.T) int {
	t.Helper()
	for range 20 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		other, err := net.ListenTCP("tcp", &net.TCPAddr{IP: second.AsSlice(), Port: port})
		l.Close()
		if err == nil {
			other.Close()
			return port
		}
	}
	t.Fatal("no port is free at both addresses")
	return 0
}

// start runs a channel until the returned function is called.
func start(t *testing.T, cfg Config, r *room) (*Channel, func()) {
	t.Helper()
	c, err := New(cfg, map[Topic]Share{Leases: r.share()}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	select {
	case <-c.Ready():
	case err := <-ended:
		t.Fatal(err)
	}
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return c, stop
}

const testKey = "a key for this test only"

func pair(port int) (a, b Config) {
	a = Config{Node: "a", Site: "berlin", Own: first, Peers: []netip.Addr{second}, Key: testKey, Port: port}
	b = Config{Node: "b", Site: "berlin", Own: second, Peers: []netip.Addr{first}, Key: testKey, Port: port}
	return a, b
}

func TestPeersExchangeTheWholeAndThenChanges(t *testing.T) {
	cfgA, cfgB := pair(freePort(t))
	roomA, roomB := newRoom("a's leases"), newRoom("b's leases")
	a, _ := start(t, cfgA, roomA)
	b, stopB := start(t, cfgB, roomB)
	roomA.await(t, "b has b's leases")
	roomB.await(t, "a has a's leases")

	a.Tell(Leases, []byte("one"))
	roomB.await(t, "a says one")
	long := strings.Repeat("x", MaxDatagram+1)
	b.Tell(Leases, []byte(long))
	roomA.await(t, "b says "+long)

	awaitAlive(t, a, 1)
	if p := a.Alive()[0]; p.Name != "b" || p.Address != second {
		t.Errorf("a finds alive: %+v", p)
	}
	stopB() // says goodbye
	awaitAlive(t, a, 0)

	_, _ = start(t, cfgB, roomB) // and is back
	roomA.await(t, "b has b's leases")
}

// awaitAlive waits until a channel finds n peers alive.
func awaitAlive(t *testing.T, c *Channel, n int) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); len(c.Alive()) != n; {
		if time.Now().After(deadline) {
			t.Fatalf("never found %d peers alive: %+v", n, c.Peers())
		}
		time.Sleep(10 * time.Millisecond) // memberlist calls nobody who could be waited for
	}
}

func TestStrangersAreNotHeard(t *testing.T) {
	port := freePort(t)
	for what, change := range map[string]func(*Config){
		"another key":  func(c *Config) { c.Key = "somebody else's key" },
		"another site": func(c *Config) { c.Site = "paris" },
	} {
		t.Run(what, func(t *testing.T) {
			cfgA, cfgB := pair(port)
			change(&cfgB)
			roomA, roomB := newRoom("secret"), newRoom("poison")
			a, stopA := start(t, cfgA, roomA)
			b, stopB := start(t, cfgB, roomB)
			b.Tell(Leases, []byte("poison"))
			a.Tell(Leases, []byte("secret"))
			time.Sleep(2 * meetInterval) // nothing happens: there is nothing to wait for
			if len(roomA.told)+len(roomB.told) > 0 || len(a.Alive())+len(b.Alive()) > 0 {
				t.Errorf("strangers met: a %v, b %v", a.Alive(), b.Alive())
			}
			stopA()
			stopB()
		})
	}
}

func TestNothingReadableIsOnTheWire(t *testing.T) {
	cfgA, _ := pair(freePort(t))
	sniffer, err := net.ListenUDP("udp", &net.UDPAddr{IP: second.AsSlice(), Port: cfgA.Port})
	if err != nil {
		t.Fatal(err)
	}
	defer sniffer.Close()
	a, _ := start(t, cfgA, newRoom(""))
	a.Tell(Leases, []byte("the secret of site berlin"))
	b := make([]byte, 2000)
	if err := sniffer.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	n, _, err := sniffer.ReadFrom(b)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(b[:n], []byte("secret")) || bytes.Contains(b[:n], []byte("berlin")) {
		t.Errorf("the datagram can be read: %q", b[:n])
	}
	if around := n - len("the secret of site berlin") + maxName; MaxDatagram+around > 1400-28 {
		t.Errorf("%d bytes around a message: the longest datagram would not fit an MTU of 1400", around)
	}
}

func TestTellBeforeRunDoesNothing(t *testing.T) {
	cfg, _ := pair(freePort(t))
	c, err := New(cfg, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	c.Tell(Leases, []byte("x"))
	if s := c.Stats(); s.Sent != 0 || len(s.Dropped) != 0 {
		t.Errorf("stats %+v", s)
	}
}

func TestTakenPortIsAnError(t *testing.T) {
	cfg, _ := pair(freePort(t))
	taken, err := net.ListenUDP("udp", &net.UDPAddr{IP: first.AsSlice(), Port: cfg.Port})
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	c, err := New(cfg, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "stop the program that has the port") {
		t.Errorf("Run = %v", err)
	}
}

func TestBadConfig(t *testing.T) {
	good, _ := pair(0)
	for name, change := range map[string]func(*Config){
		"no node":         func(c *Config) { c.Node = "" },
		"long node":       func(c *Config) { c.Node = strings.Repeat("n", maxName+1) },
		"no own address":  func(c *Config) { c.Own = netip.Addr{} },
		"no key":          func(c *Config) { c.Key = "" },
		"its own address": func(c *Config) { c.Peers = append(c.Peers, c.Own) },
	} {
		cfg := good
		cfg.Peers = append([]netip.Addr(nil), good.Peers...)
		change(&cfg)
		if _, err := New(cfg, nil, slog.New(slog.DiscardHandler)); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if err := errors.Join(good.Validate()); err != nil {
		t.Errorf("the good one: %v", err)
	}
}

// TestAShareOfMessagesOnly has nothing to say when two peers meet, and hears nothing.
func TestAShareOfMessagesOnly(t *testing.T) {
	c, err := New(Config{Node: "a", Site: "s", Own: netip.MustParseAddr("127.0.0.1"), Key: "k"}, map[Topic]Share{Leases: {}}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	d := delegate{c}
	d.MergeRemoteState(d.LocalState(true), true)
	d.MergeRemoteState(marshalWhole("b", []part{{Leases, []byte("x")}}), true)
	if n := c.Stats().Dropped[DropTopic]; n != 1 {
		t.Errorf("%d dropped, want the one that nobody takes", n)
	}
}
