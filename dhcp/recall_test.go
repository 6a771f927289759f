package dhcp

import (
	"log/slog"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"everboot/dhcp/leases"
	"everboot/dhcp/pair"
)

func writtenDown(a string, version uint64) leases.Lease {
	return leases.Lease{
		Address: ip(a), Client: leases.ClientOf(nil, pooled), MAC: pooled, State: leases.Bound, Start: time.Now(), Expires: time.Now().Add(time.Hour), Version: version,
	}
}

// TestANewDiskKnowsWhatWasWrittenDown: a node whose disk is new gives away no address that somebody has, and its disk knows it from then on. A disk that is
// not new is not doubted.
func TestANewDiskKnowsWhatWasWrittenDown(t *testing.T) {
	file := filepath.Join(t.TempDir(), "leases.db")
	for _, asked := range []bool{true, false} {
		cfg, calls := alone(), 0
		cfg.LeaseFile = file
		cfg.Recall = func() ([]leases.Lease, bool) {
			calls++
			return []leases.Lease{writtenDown("198.18.0.100", 7)}, true
		}
		s, err := New(cfg, testView, nil, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		w := newWire()
		s.listen = func(Config, inbox) (transport, error) { return w, nil }
		s.arp = nil
		stop := run(t, s)
		if l, _ := s.LeaseAt(ip("198.18.0.100")); l.Client != leases.ClientOf(nil, pooled) || !l.Live() || calls == 1 != asked {
			t.Errorf("asked %d times: %+v", calls, l)
		}
		p, _ := Handle(time.Now(), testView(), message(stranger, discover), s.state)
		if a := p.YourIPAddr.String(); a != "198.18.0.101" {
			t.Errorf("a stranger was offered %s", a)
		}
		stop()
	}
}

// TestWhatIsOnTheDiskIsWrittenDown: Kept hears of each lease once it is on the disk, and of none that is not.
func TestWhatIsOnTheDiskIsWrittenDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		kept := make(map[netip.Addr]bool)
		cfg := alone()
		var d *slowDisk
		cfg.Kept = func(list []leases.Lease) {
			mu.Lock()
			defer mu.Unlock()
			for _, l := range list {
				kept[l.Address] = true
				if !d.written[l.Address] {
					t.Errorf("%s is not on the disk", l.Address)
				}
			}
		}
		s, _, disk, _ := simulated(t, cfg)
		d = disk
		stop := run(t, s)
		arrive(s, message(stranger, ask, serverID("198.18.0.2"), requested("198.18.0.120")))
		time.Sleep(time.Second)
		mu.Lock()
		if !kept[ip("198.18.0.120")] {
			t.Errorf("kept %v", kept)
		}
		mu.Unlock()
		if page := s.Page(leases.PageOf(ip("198.18.0.120"))); len(page) != 1 || page[0].MAC != stranger {
			t.Errorf("the page has %v", page)
		}
		stop()
	})
}

// TestAPeerThatWritesLives: a peer whose channel is broken, but that writes its leases down, is not taken for gone, however long; and what it wrote is known.
func TestAPeerThatWritesLives(t *testing.T) {
	for _, writes := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			cfg := testConfig()
			cfg.Tell = func([]byte) {}
			s, _, d, _ := simulated(t, cfg)
			s.state.Join(time.Now(), 1, time.Time{})
			stop := run(t, s)
			peer := cfg.Peers[0]
			for range 6 * 90 { // an hour and a half
				time.Sleep(10 * time.Second)
				if writes {
					if err := s.Learn(t.Context(), peer, true, []leases.Lease{writtenDown("198.18.0.150", 3)}); err != nil {
						t.Fatal(err)
					}
				}
			}
			want := map[bool]pair.Contact{true: pair.Away, false: pair.Gone}[writes]
			if got := s.Peers()[0].State; got != want || d.written[ip("198.18.0.150")] != writes {
				t.Errorf("writes %v: the peer is %s; written %v", writes, got, d.written)
			}
			stop()
		})
	}
}

// TestWhoIsAloneKnowsAll: what its disk says of that serves it when it gets its first peer. Who has a peer without a word from it knows nothing.
func TestWhoIsAloneKnowsAll(t *testing.T) {
	for _, cfg := range []Config{alone(), testConfig()} {
		synctest.Test(t, func(t *testing.T) {
			s, _, d, _ := simulated(t, cfg)
			stop := run(t, s)
			time.Sleep(2 * syncedEvery)
			stop()
			if d.synced != (len(cfg.Peers) == 0) {
				t.Errorf("with peers %v: %v", cfg.Peers, d.synced)
			}
		})
	}
}
