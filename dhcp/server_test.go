package dhcp

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"everboot/dhcp/leases"
	"everboot/dhcp/pair"
	"everboot/site"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"go.uber.org/goleak"
)

// wire is a transport in memory.
type wire struct {
	mu      sync.Mutex
	sent    []*dhcpv4.DHCPv4
	failure chan error
	once    sync.Once
}

func newWire() *wire { return &wire{failure: make(chan error, 1)} }

func (w *wire) Send(payload []byte, _ destination) error {
	p, err := dhcpv4.FromBytes(payload)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sent = append(w.sent, p)
	return nil
}

func (w *wire) Wait() error { return <-w.failure }

func (w *wire) Close() { w.once.Do(func() { close(w.failure) }) }

func (w *wire) answers() []*dhcpv4.DHCPv4 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sent
}

// slowDisk is a store whose writes take time, or fail.
type slowDisk struct {
	delay   time.Duration
	err     error
	mu      sync.Mutex
	writes  [][]leases.Lease
	wire    *wire // to see that nothing is sent before it is written
	early   bool
	written map[netip.Addr]bool
	synced  bool
	busy    atomic.Bool
	twice   bool // two wrote at once
}

func (d *slowDisk) Commit(list []leases.Lease) error {
	before := len(acked(d.wire.answers()))
	twice := d.busy.Swap(true)
	d.mu.Lock()
	delay := d.delay
	d.mu.Unlock()
	time.Sleep(delay) // simulated
	d.busy.Store(false)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.twice = d.twice || twice
	if len(acked(d.wire.answers())) != before {
		d.early = true
	}
	if d.err != nil {
		return d.err
	}
	d.writes = append(d.writes, list)
	for _, l := range list {
		d.written[l.Address] = true
	}
	return nil
}

func (d *slowDisk) SetSynced(time.Time) error {
	d.synced = true
	return nil
}

func (d *slowDisk) Close() error { return nil }

func acked(list []*dhcpv4.DHCPv4) (acks []*dhcpv4.DHCPv4) {
	for _, p := range list {
		if p.MessageType() == dhcpv4.MessageTypeAck {
			acks = append(acks, p)
		}
	}
	return acks
}

// simulated is a server with everything outside it in memory.
func simulated(t *testing.T, cfg Config) (*Server, *wire, *slowDisk, *[]site.Event) {
	t.Helper()
	var events []site.Event
	s, err := New(cfg, testView, func(e site.Event) { events = append(events, e) }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	w := newWire()
	d := &slowDisk{delay: 5 * time.Millisecond, wire: w, written: make(map[netip.Addr]bool)}
	s.net, s.store, s.opened, s.arp = w, d, true, nil
	return s, w, d, &events
}

func run(t *testing.T, s *Server) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	<-s.Ready()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// hear is one message that arrives.
func hear(s *Server, q *dhcpv4.DHCPv4) { s.receive(question{DHCPv4: q}) }

// arrive is what the reader of a socket does with messages that are there at once.
func arrive(s *Server, list ...*dhcpv4.DHCPv4) {
	for _, q := range list {
		hear(s, q)
	}
	s.drained()
}

// TestLeasesAreWrittenTogetherAndBeforeTheirACK: a slow disk does not make the clients queue for it one by one.
func TestLeasesAreWrittenTogetherAndBeforeTheirACK(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := alone()
		cfg.QueueLength = 200
		s, w, d, _ := simulated(t, cfg)
		d.delay = 100 * time.Millisecond
		stop := run(t, s)
		for i := range 90 {
			mac := site.MAC{0x52, 0x54, 0, 0, 1, byte(i)}
			arrive(s, message(mac, ask, serverID("198.18.0.2"), requested(netip.AddrFrom4([4]byte{198, 18, 0, byte(100 + i)}).String())))
			time.Sleep(time.Millisecond)
		}
		hear(s, message(stranger, discover))
		synctest.Wait()
		if n := len(w.answers()); n == 0 || w.answers()[n-1].MessageType() != dhcpv4.MessageTypeOffer {
			t.Error("an offer waited for the disk")
		}
		time.Sleep(time.Second)
		stop()
		// 150 is reserved for somebody else: a NAK, and 89 ACKs.
		if n := len(acked(w.answers())); n != 89 {
			t.Errorf("%d ACKs", n)
		}
		if len(d.writes) > 4 || d.early {
			t.Errorf("%d writes of 100 ms for 89 leases, an ACK before its write: %v", len(d.writes), d.early)
		}
		st := s.Stats()
		if st.Committed != 89 || st.Messages["request"] != 90 || st.Messages["discover"] != 1 || st.Answers["ack"] != 89 || st.Answers["nak"] != 1 || st.Reasons[Pooled] != 90 {
			t.Errorf("%+v", st)
		}
	})
}

func TestNoACKWithoutADisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, w, d, events := simulated(t, alone())
		d.err = errors.New("no space left on device")
		stop := run(t, s)
		hear(s, message(stranger, discover))
		arrive(s, message(stranger, ask, serverID("198.18.0.2"), requested("198.18.0.100")))
		time.Sleep(time.Second)
		if got := w.answers(); len(got) != 1 || got[0].MessageType() != dhcpv4.MessageTypeOffer {
			t.Errorf("answers: %v", got)
		}
		d.mu.Lock()
		d.err = nil
		d.mu.Unlock()
		// The client asks again, and now there is room.
		arrive(s, message(stranger, ask, serverID("198.18.0.2"), requested("198.18.0.100")))
		time.Sleep(time.Second)
		stop()
		if got := acked(w.answers()); len(got) != 1 || !d.written[ip("198.18.0.100")] {
			t.Errorf("answers after: %v", got)
		}
		if len(*events) != 2 || s.Stats().CommitErrors != 1 {
			t.Errorf("events %v, stats %+v", *events, s.Stats())
		}
	})
}

func TestLeasesExpireAndAreSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _, _, _ := simulated(t, alone())
		stop := run(t, s)
		arrive(s, message(stranger, ask, serverID("198.18.0.2"), requested("198.18.0.100")))
		synctest.Wait()
		if l := s.Leases(); len(l) != 1 || l[0].State != leases.Bound || l[0].MAC != stranger {
			t.Errorf("%+v", l)
		}
		if st := s.Stats(); st.Reasons[Pooled] != 1 || st.Answers["ack"] != 1 {
			t.Errorf("%+v", st)
		}
		time.Sleep(time.Hour - time.Millisecond)
		if l := s.Leases(); l[0].State != leases.Bound {
			t.Errorf("before its end: %+v", l)
		}
		time.Sleep(time.Millisecond)
		if l := s.Leases(); l[0].State != leases.Expired {
			t.Errorf("at its end: %+v", l)
		}
		stop()
	})
}

// TestWhoHasAnAddressIsCheapToAsk: TFTP and HTTP ask for every request that comes, also for a flood of bad ones. A copy of ten thousand leases
// for each held up DHCP.
func TestWhoHasAnAddressIsCheapToAsk(t *testing.T) {
	s, err := New(alone(), func() *site.View { return nil }, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		mac := site.MAC{2, 0, 0, 0, 0, byte(i)}
		a := ip("198.18.0.100")
		for range i {
			a = a.Next()
		}
		s.state.table.Bind(time.Now(), leases.Lease{Address: a, MAC: mac, Client: leases.ClientOf(nil, mac)}, time.Hour)
	}
	if l, ok := s.LeaseAt(ip("198.18.0.101")); !ok || l.MAC != (site.MAC{2, 0, 0, 0, 0, 1}) {
		t.Errorf("%+v %v", l, ok)
	}
	if _, ok := s.LeaseAt(ip("198.18.0.99")); ok {
		t.Error("an address that nobody has")
	}
	if l, ok := s.LiveOf(site.MAC{2, 0, 0, 0, 0, 1}); !ok || l.Address != ip("198.18.0.101") || s.Live() != 100 {
		t.Errorf("%+v %v of %d", l, ok, s.Live())
	}
	ask := func() { s.LeaseAt(ip("198.18.0.150")); s.Live(); s.LiveOf(site.MAC{2, 0, 0, 0, 0, 1}) }
	if n := testing.AllocsPerRun(10, ask); n > 2 { // of a client's name each
		t.Errorf("%v allocations", n)
	}
}

func TestAFullQueueDropsAndCounts(t *testing.T) {
	cfg := alone()
	cfg.QueueLength = 6
	s, _, _, _ := simulated(t, cfg)
	for range 10 {
		hear(s, message(stranger, discover))
	}
	if n := s.Stats().Reasons[Overloaded]; n != 7 {
		t.Errorf("%d of 10 messages of strangers dropped", n)
	}
	for range 10 {
		hear(s, message(known, discover))
	}
	if n := s.Stats().Reasons[Overloaded]; n != 14 {
		t.Errorf("%d of 10 messages of a device dropped", n-7)
	}
}

// TestALongWordOfAPeerIsNotQueued: no message of a peer is longer than a datagram of the channel.
func TestALongWordOfAPeerIsNotQueued(t *testing.T) {
	cfg := testConfig()
	cfg.Tell = func([]byte) {}
	s, _, _, _ := simulated(t, cfg)
	s.PeerChanged(make([]byte, maxPeerMessage))
	s.PeerChanged(make([]byte, maxPeerMessage+1))
	if n := len(s.peers); n != 1 || s.Stats().PeerDrops[pair.DropMalformed] != 1 {
		t.Errorf("%d queued, dropped %v", n, s.Stats().PeerDrops)
	}
}

// TestWhatPeersToldIsWrittenInTheEnd: nobody says it again, so a disk that fails for a while must not lose it; and until it is written, the disk
// does not say that all is known. An operator is told when what he freed is not on the disk.
func TestWhatPeersToldIsWrittenInTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _, d, _ := simulated(t, alone())
		ended, done := make(chan struct{}), make(chan struct{})
		go func() { s.writeRest(ended); close(done) }()
		keep := func(o outgoing) { s.keep(o); s.disk.wake() }
		broken := func(err error) { d.mu.Lock(); d.err = err; d.mu.Unlock() }
		broken(errors.New("no space left on device"))
		told := leases.Lease{Address: ip("198.18.0.120"), MAC: pooled, State: leases.Bound}
		freed := leases.Lease{Address: ip("198.18.0.121"), MAC: pooled, State: leases.Released}
		keep(outgoing{save: []leases.Lease{told}})
		keep(outgoing{synced: time.Now()})
		time.Sleep(100 * time.Millisecond)
		var answer error
		keep(outgoing{save: []leases.Lease{freed}, done: func(err error) { answer = err }})
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		if answer == nil || len(d.written) > 0 || d.synced {
			t.Errorf("with a broken disk: %v, %v written, synced %v", answer, d.written, d.synced)
		}
		broken(nil)
		time.Sleep(2 * retryAfter)
		synctest.Wait()
		if !d.written[told.Address] || !d.written[freed.Address] {
			t.Errorf("written after all: %v", d.written)
		}
		close(ended)
		<-done
	})
}

func TestSocketsAreOpenedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, w, _, _ := simulated(t, alone())
		second, attempts := newWire(), 0
		s.listen = func(Config, inbox) (transport, error) {
			if attempts++; attempts < 3 {
				return nil, errors.New("no such device")
			}
			return second, nil
		}
		stop := run(t, s)
		w.failure <- errors.New("network is down")
		time.Sleep(5 * time.Second)
		hear(s, message(stranger, discover))
		synctest.Wait()
		if len(second.answers()) != 1 || attempts != 3 {
			t.Errorf("%d answers after %d attempts", len(second.answers()), attempts)
		}
		stop()
	})
}

// TestRestart: leases survive, on a real disk.
func TestRestart(t *testing.T) {
	defer goleak.VerifyNone(t)
	cfg := alone()
	cfg.LeaseFile = filepath.Join(t.TempDir(), "leases.db")
	for i, want := range []Reason{Pooled, Renewed} {
		s, err := New(cfg, func() *site.View { return nil }, nil, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		w := newWire()
		s.listen, s.arp = func(Config, inbox) (transport, error) { return w, nil }, nil
		stop := run(t, s)
		q := message(stranger, ask, serverID("198.18.0.2"), requested("198.18.0.120"))
		if i == 1 {
			q = message(stranger, ask, ciaddr("198.18.0.120"))
		}
		arrive(s, q)
		for len(w.answers()) == 0 {
			time.Sleep(time.Millisecond)
		}
		stop()
		if got := s.Stats().Reasons; got[want] != 1 || len(got) != 1 {
			t.Errorf("run %d: %v", i, got)
		}
	}
}

// TestAnOperatorFreesAnAddress: it is on disk, and the next client may have it.
func TestAnOperatorFreesAnAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _, d, events := simulated(t, alone())
		stop := run(t, s)
		arrive(s, message(stranger, ask, serverID("198.18.0.2"), requested("198.18.0.100")))
		time.Sleep(time.Second)
		if err := s.Release(t.Context(), ip("198.18.0.100")); err != nil {
			t.Error(err)
		}
		if err := s.Release(t.Context(), ip("198.18.0.100")); err == nil {
			t.Error("freed twice")
		}
		time.Sleep(time.Second)
		stop()
		if last := d.writes[len(d.writes)-1]; last[0].State != leases.Released || s.Leases()[0].State != leases.Released {
			t.Errorf("on disk %v", last)
		}
		if e := (*events)[len(*events)-1]; e.MAC != stranger || e.What != "release" {
			t.Errorf("event %v", e)
		}
	})
}
