package dhcp

import (
	"errors"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"everboot/dhcp/leases"
	"everboot/dhcp/pair"
	"everboot/site"
)

// TestWhoReadsWrites: on a quick disk the ACKs have left when what was there is read, all after one write. On a slow one the reader goes on reading.
func TestWhoReadsWrites(t *testing.T) {
	for name, c := range map[string]struct {
		disk   time.Duration
		direct bool
	}{
		"quick": {time.Millisecond, true},
		"slow":  {2 * slowWrite, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, w, d, _ := simulated(t, alone())
				d.delay = c.disk
				defer run(t, s)()
				arrive(s, message(pooled, ask, serverID("198.18.0.2"), requested("198.18.0.120")))
				time.Sleep(time.Second) // the first write shows how quick the disk is
				synctest.Wait()
				before, writes := time.Now(), len(d.writes)
				arrive(s, message(stranger, ask, serverID("198.18.0.2"), requested("198.18.0.121")), message(known, ask, serverID("198.18.0.2"), requested("198.18.0.51")))
				acks, took := len(acked(w.answers())), time.Since(before)
				if direct := acks == 3 && took == c.disk; direct != c.direct || !c.direct && took != 0 {
					t.Errorf("%d ACKs after %s", acks, took)
				}
				time.Sleep(time.Second)
				synctest.Wait()
				if len(acked(w.answers())) != 3 || len(d.writes) != writes+1 {
					t.Errorf("in the end %d ACKs, %d writes", len(acked(w.answers())), len(d.writes)-writes)
				}
			})
		})
	}
}

// TestRecordsReachTheDiskInTheirOrder: clients that come and an operator who frees their addresses are written by two goroutines. The last record of an address
// is what counts after a restart.
func TestRecordsReachTheDiskInTheirOrder(t *testing.T) {
	for name, delay := range map[string]time.Duration{"who reads writes": 700 * time.Microsecond, "the disk is slow": 2 * slowWrite} {
		t.Run(name, func(t *testing.T) { synctest.Test(t, func(t *testing.T) { recordsInOrder(t, delay) }) })
	}
}

func recordsInOrder(t *testing.T, delay time.Duration) {
	s, w, d, _ := simulated(t, alone())
	d.delay = delay
	stop := run(t, s)
	addr := ip("198.18.0.120")
	const rounds = 300
	for i := range rounds {
		arrive(s, message(pooled, ask, serverID("198.18.0.2"), requested("198.18.0.121")))
		time.Sleep(time.Duration(i%7) * 150 * time.Microsecond) // a slow disk is busy with that, and what follows is one write
		arrive(s, message(stranger, ask, serverID("198.18.0.2"), requested(addr.String())))
		freed := make(chan error)
		go func() { freed <- s.Release(t.Context(), addr) }()
		time.Sleep(time.Duration(i%5) * 150 * time.Microsecond)
		arrive(s, message(pooled, ask, ciaddr("198.18.0.121"))) // read while the other writes
		if err := <-freed; err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second) // no client is heard more often than a limit says
	}
	stop()
	last := make(map[netip.Addr]leases.Lease)
	for _, batch := range d.writes {
		for _, l := range batch {
			if before, ok := last[l.Address]; ok && l.Version < before.Version {
				t.Fatalf("%s: version %d was written after version %d", l.Address, l.Version, before.Version)
			}
			last[l.Address] = l
		}
	}
	if last[addr].State != leases.Released || d.twice || d.early || len(acked(w.answers())) != 3*rounds {
		t.Errorf("on disk %s, two writers at once %v, an ACK before its write %v, %d ACKs", last[addr].State, d.twice, d.early, len(acked(w.answers())))
	}
}

// TestAWriteThatFailedIsTriedAgain: also when the reader of the socket wrote, and no client comes any more.
func TestAWriteThatFailedIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, w, d, _ := simulated(t, alone())
		d.delay = time.Millisecond
		defer run(t, s)()
		broken := func(err error) { d.mu.Lock(); d.err = err; d.mu.Unlock() }
		arrive(s, message(pooled, ask, serverID("198.18.0.2"), requested("198.18.0.120")))
		time.Sleep(time.Second + tickEvery/2) // at a tick somebody else may have the turn
		broken(errors.New("no space left on device"))
		arrive(s, message(stranger, ask, serverID("198.18.0.2"), requested("198.18.0.121")))
		if len(acked(w.answers())) != 1 || s.Stats().CommitErrors != 1 {
			t.Fatalf("%d ACKs, %d failed writes", len(acked(w.answers())), s.Stats().CommitErrors)
		}
		time.Sleep(5*retryAfter + retryAfter/2)
		if n := s.Stats().CommitErrors; n < 4 || n > 7 {
			t.Errorf("%d tries in five seconds", n)
		}
		broken(nil)
		time.Sleep(2 * retryAfter)
		synctest.Wait()
		if !d.written[ip("198.18.0.121")] || len(acked(w.answers())) != 1 {
			t.Errorf("written: %v; %d ACKs", d.written, len(acked(w.answers())))
		}
	})
}

// TestWhoIsFarAheadOfTheDiskWaits: what waits for a disk is bounded.
func TestWhoIsFarAheadOfTheDiskWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _, d, _ := simulated(t, alone())
		d.delay = time.Second
		ended := make(chan struct{})
		done := make(chan struct{})
		go func() { s.writeRest(ended); close(done) }()
		began, most := time.Now(), 0
		for i := range 3 * maxBatch {
			l := leases.Lease{Address: netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), MAC: site.MAC{2, 0, 0, 0, byte(i >> 8), byte(i)}, State: leases.Bound}
			s.keep(outgoing{save: []leases.Lease{l}})
			n, _ := s.disk.waits()
			most = max(most, n)
		}
		if most > maxBatch || time.Since(began) < 2*time.Second {
			t.Errorf("%d waited at most, brought in %s", most, time.Since(began))
		}
		close(ended)
		<-done
		if n := len(d.written); n != 3*maxBatch {
			t.Errorf("%d written", n)
		}
	})
}

// TestWithoutADiskAnotherNodeAnswers: who is offered an address by a node that cannot keep leases waits for its ACK in vain, asks anew and is offered it again. It is so with a
// disk that fails and with one that says nothing any more, also while the reader of the socket waits for it.
func TestWithoutADiskAnotherNodeAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		err   error
		delay time.Duration
	}{
		"full": {errors.New("no space left on device"), time.Millisecond},
		"hung": {nil, 10 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := testConfig()
				told := &words{}
				cfg.Tell = told.add
				s, w, d, _ := simulated(t, cfg)
				s.state.Join(time.Now(), 1, time.Time{})
				stop := run(t, s)
				time.Sleep(4 * time.Second) // alone
				mine := ip("198.18.0.100")
				s.mu.Lock()
				for !s.state.owns(mine) {
					mine = mine.Next()
				}
				s.mu.Unlock()
				arrive(s, message(pooled, ask, serverID("198.18.0.2"), requested(mine.String())))
				time.Sleep(time.Second)
				d.mu.Lock()
				d.err, d.delay = c.err, c.delay
				d.mu.Unlock()
				go arrive(s, message(pooled, ask, ciaddr(mine.String())))
				time.Sleep(hungAfter + 2*tickEvery)
				offers := len(w.answers())
				hear(s, message(stranger, discover))
				if n := s.Stats().Reasons[NoDisk]; n != 1 || len(w.answers()) != offers || !s.DiskFails() {
					t.Errorf("%d decisions of that reason, %d answers, and the node says of its disk: fails %v", n, len(w.answers())-offers, s.DiskFails())
				}
				peer := pair.New(time.Now(), pair.Config{Self: cfg.Peers[0], Peers: []netip.Addr{cfg.ServerAddress}, Longest: time.Hour, Incarnation: 2}, leases.NewTable(nil))
				meet(s, peer, told)
				if !peer.First(leases.ClientOf(nil, known)) || !peer.First(leases.ClientOf(nil, pooled)) || !peer.First(leases.ClientOf(nil, stranger)) {
					t.Error("the other node leaves clients to it")
				}
				d.mu.Lock()
				d.err, d.delay = nil, time.Millisecond
				d.mu.Unlock()
				time.Sleep(12 * time.Second)
				arrive(s, message(diskless, discover))
				synctest.Wait()
				if s.DiskFails() {
					t.Error("it does not see that the disk is well again")
				}
				stop()
			})
		})
	}
}

// words are what a server tells its peers.
type words struct {
	mu   sync.Mutex
	list [][]byte
}

func (w *words) add(b []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.list = append(w.list, b)
}

func (w *words) take() [][]byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	list := w.list
	w.list = nil
	return list
}

// meet lets another node hear what a server tells, and answer, for a second.
func meet(s *Server, peer *pair.Machine, told *words) {
	for range 10 {
		time.Sleep(tickEvery)
		synctest.Wait()
		now := time.Now()
		for _, b := range told.take() {
			for _, answer := range peer.Receive(now, b).Tell {
				s.PeerChanged(answer)
			}
		}
		for _, b := range peer.Tick(now, nil) {
			s.PeerChanged(b)
		}
	}
}
