package appliance

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"everboot/dhcp/leases"
	"everboot/dhcp/pair"
	"everboot/site"
)

// shelf is a registry that takes pages, and can be away.
type shelf struct {
	mu    sync.Mutex
	away  bool
	torn  netip.Addr         // the node whose pages cannot be read
	hangs []netip.Addr       // the nodes of which no word comes, and to which none goes
	asked map[netip.Addr]int // how often pages were
	pages map[netip.Addr]map[string][]byte
	beats map[netip.Addr]uint64
	puts  int
	most  int // bytes between two beats
	round int
}

func newShelf() *shelf {
	return &shelf{pages: make(map[netip.Addr]map[string][]byte), beats: make(map[netip.Addr]uint64), asked: make(map[netip.Addr]int)}
}

// pass lets time pass, and the nodes end what they do.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// tear makes a node's pages unreadable; the zero address: nobody's.
func (s *shelf) tear(node netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.torn = node
}

// reads returns how often a node's pages were asked for.
func (s *shelf) reads(node netip.Addr) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[node]
}

// hang keeps whoever asks for a node that hangs.
func (s *shelf) hang(ctx context.Context, node netip.Addr) error {
	if !slices.Contains(s.hangs, node) {
		return nil
	}
	<-ctx.Done()
	return ctx.Err()
}

func (s *shelf) set(away bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.away = away
}

// seen returns what was put so far: how many pages a node has, how often one was written, and the most bytes between two beats.
func (s *shelf) seen(node netip.Addr) (pages, puts, most int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.pages[node]), s.puts, s.most
}

// count returns how many pages a node has.
func (s *shelf) count(node netip.Addr) int {
	pages, _, _ := s.seen(node)
	return pages
}

var errAway = errors.New("the registry is away")

func (s *shelf) do(f func()) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away {
		return errAway
	}
	f()
	return nil
}

func (s *shelf) PutPage(ctx context.Context, node netip.Addr, page string, value []byte) error {
	if err := s.hang(ctx, node); err != nil {
		return err
	}
	return s.do(func() {
		s.puts++
		s.round += len(value)
		s.most = max(s.most, s.round)
		if s.pages[node] == nil {
			s.pages[node] = make(map[string][]byte)
		}
		if s.pages[node][page] = value; value == nil {
			delete(s.pages[node], page)
		}
	})
}

func (s *shelf) Pages(ctx context.Context, node netip.Addr) (pages map[string][]byte, err error) {
	if err := s.hang(ctx, node); err != nil {
		return nil, err
	}
	torn := false
	err = s.do(func() {
		s.asked[node]++
		pages, torn = maps.Clone(s.pages[node]), node == s.torn
	})
	if torn {
		return nil, errAway
	}
	return pages, err
}

func (s *shelf) Beat(_ context.Context, node netip.Addr, _ time.Time) error {
	return s.do(func() { s.beats[node]++; s.round = 0 })
}

func (s *shelf) Beats(ctx context.Context, node netip.Addr) (n uint64, err error) {
	if err := s.hang(ctx, node); err != nil {
		return 0, err
	}
	err = s.do(func() { n = s.beats[node] })
	return n, err
}

// bookkeeper is a server's leases, on the real table.
type bookkeeper struct {
	mu    sync.Mutex
	table *leases.Table
	peers []pair.Peer
	lives map[netip.Addr]int
	ready chan struct{}
}

func (k *bookkeeper) Ready() <-chan struct{} { return k.ready }
func (k *bookkeeper) Peers() []pair.Peer     { return k.peers }
func (k *bookkeeper) Leases() []leases.Lease {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.table.All(time.Now())
}
func (k *bookkeeper) Page(block netip.Prefix) []leases.Lease {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.table.Within(time.Now(), block)
}
func (k *bookkeeper) Learn(_ context.Context, from netip.Addr, lives bool, list []leases.Lease) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if lives {
		k.lives[from]++
	}
	for _, l := range list {
		k.table.Recall(time.Now(), l)
	}
	return nil
}

// alive returns how often a peer was said to live.
func (k *bookkeeper) alive(peer netip.Addr) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.lives[peer]
}

var (
	bookA = netip.MustParseAddr("198.18.0.2")
	bookB = netip.MustParseAddr("198.18.0.3")
	bookC = netip.MustParseAddr("198.18.0.4")
)

// bookNode is a node with its leasebook.
type bookNode struct {
	*leasebook
	server *bookkeeper
	stop   func()
}

func startBook(t *testing.T, s *shelf, own, peer netip.Addr, state pair.Contact) *bookNode {
	return runBook(t, newLeasebook(s, own, []netip.Addr{peer}, slog.New(slog.DiscardHandler)), newBookkeeper(peer, state))
}

// newBookkeeper is a server without leases.
func newBookkeeper(peer netip.Addr, state pair.Contact) *bookkeeper {
	k := &bookkeeper{
		table: leases.NewTable([]leases.Pool{{First: netip.MustParseAddr("198.18.0.10"), Last: netip.MustParseAddr("198.18.255.250")}}),
		peers: []pair.Peer{{Address: peer, State: state}}, lives: make(map[netip.Addr]int), ready: make(chan struct{}),
	}
	close(k.ready)
	return k
}

func runBook(t *testing.T, b *leasebook, k *bookkeeper) *bookNode {
	b.server = k
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	return &bookNode{b, k, func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}}
}

// give gives so many addresses, from the first of a block on.
func (n *bookNode) give(first string, count int) {
	n.server.mu.Lock()
	defer n.server.mu.Unlock()
	var changed []leases.Lease
	for a := netip.MustParseAddr(first); len(changed) < count; a = a.Next() {
		b := a.As4()
		l := leases.Lease{Address: a, MAC: site.MAC{2, 0, 0, 0, b[2], b[3]}, Client: leases.Client(a.String())}
		changed = append(changed, n.server.table.Bind(time.Now(), l, time.Hour))
	}
	n.changed(changed)
}

func (n *bookNode) lagged() time.Duration {
	lag, _, _, _ := n.lag(time.Now())
	return lag
}

// TestLeasesAreWrittenDownSoon: many changes of one page are one write; a change is in the registry within two rounds, or the lag says for how long not.
func TestLeasesAreWrittenDownSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf()
		n := startBook(t, s, bookA, bookB, pair.InTouch)
		pass(time.Second)
		for range 300 { // ten a second
			n.give("198.18.0.10", 10)
			time.Sleep(100 * time.Millisecond)
		}
		synctest.Wait()
		if _, puts, _ := s.seen(bookA); puts > 7 {
			t.Errorf("%d writes in 30 s", puts)
		}
		pass(2 * bookPace)
		if n.lagged() != 0 || s.count(bookA) != 1 {
			t.Errorf("behind by %s, pages %d", n.lagged(), s.count(bookA))
		}
		s.set(true)
		n.give("198.18.4.10", 10)
		pass(2 * time.Minute)
		w := worker{book: n.leasebook}
		if lag := n.lagged(); lag < 119*time.Second || len(w.bookWarnings()) != 1 {
			t.Errorf("behind by %s: %v", lag, w.bookWarnings())
		}
		s.set(false)
		pass(2 * bookPace)
		if n.lagged() != 0 || s.count(bookA) != 2 || len(w.bookWarnings()) != 0 {
			t.Errorf("behind by %s, %d pages, %v", n.lagged(), s.count(bookA), w.bookWarnings())
		}
		n.give("198.18.8.10", 1)
		n.stop()
		if s.count(bookA) != 3 {
			t.Error("a stop leaves something behind")
		}
	})
}

// TestARoundIsBounded: however many leases change, Consul is given about a megabyte in five seconds.
func TestARoundIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf()
		n := startBook(t, s, bookA, bookB, pair.InTouch)
		pass(time.Second)
		n.give("198.18.0.10", 60_000)
		pass(10 * bookPace)
		if pages, _, most := s.seen(bookA); most > bookRound+512<<10 || n.lagged() != 0 || pages != 59 {
			t.Errorf("%d bytes in a round; behind by %s; %d pages", most, n.lagged(), pages)
		}
		n.stop()
	})
}

// TestASurvivorWithANewDisk: it knows what a dead peer gave, and that the peer is dead; also when the registry comes later than it does.
func TestASurvivorWithANewDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf()
		a := startBook(t, s, bookA, bookB, pair.InTouch)
		pass(time.Second)
		a.give("198.18.0.10", 100)
		pass(2 * bookPace)
		a.stop()
		if list, all := newLeasebook(s, bookB, []netip.Addr{bookA}, a.log).recall(); len(list) != 100 || !all {
			t.Errorf("recalled %d", len(list))
		}
		s.set(true)
		b := startBook(t, s, bookB, bookA, pair.Away)
		pass(time.Minute)
		b.give("198.18.4.10", 1)
		s.set(false)
		pass(time.Minute)
		if got := len(b.server.Leases()); got != 101 || b.server.alive(bookA) != 0 || s.count(bookB) != 2 {
			t.Errorf("%d leases, alive %d times, %d pages", got, b.server.alive(bookA), s.count(bookB))
		}
		b.stop()
	})
}

// TestAPeerThatWritesIsSeen: two nodes without a word between them see by the registry that both live, and what each gives.
func TestAPeerThatWritesIsSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf()
		a, b := startBook(t, s, bookA, bookB, pair.Away), startBook(t, s, bookB, bookA, pair.Away)
		pass(time.Minute)
		a.give("198.18.0.10", 1)
		pass(3 * bookPace)
		if len(b.server.Leases()) != 1 || b.server.alive(bookA) < 5 || a.server.alive(bookB) < 5 {
			t.Errorf("%d leases, alive %d and %d times", len(b.server.Leases()), b.server.alive(bookA), a.server.alive(bookB))
		}
		a.stop()
		at := b.server.alive(bookA)
		pass(time.Minute)
		if b.server.alive(bookA) > at+1 {
			t.Errorf("a node that is gone lived %d times more", b.server.alive(bookA)-at)
		}
		b.stop()
	})
}

// TestAPeerBehindOneThatCannotBeReadIsSeen: of two that are out of contact the registry says nothing of one, and the other is not taken for gone.
func TestAPeerBehindOneThatCannotBeReadIsSeen(t *testing.T) {
	s := newShelf()
	s.torn = bookB
	n := startBook(t, s, bookA, bookB, pair.InTouch)
	n.stop()
	n.peers = append(n.peers, bookC)
	n.server.peers = []pair.Peer{{Address: bookB, State: pair.Away}, {Address: bookC, State: pair.Away}}
	for range 3 {
		if s.Beat(t.Context(), bookB, time.Now()) != nil || s.Beat(t.Context(), bookC, time.Now()) != nil {
			t.Fatal("the shelf is away")
		}
		if err := n.look(t.Context()); !errors.Is(err, errAway) {
			t.Error(err)
		}
	}
	if n.server.alive(bookB) != 0 || n.server.alive(bookC) != 2 {
		t.Errorf("seen alive %d and %d times", n.server.alive(bookB), n.server.alive(bookC))
	}
}

// page writes a lease of an address down for a node.
func (s *shelf) page(node netip.Addr, address string) {
	a := netip.MustParseAddr(address)
	l := leases.Lease{Address: a, MAC: site.MAC{2, 0, 0, 0, 0, 1}, State: leases.Bound, Start: time.Now(), Expires: time.Now().Add(time.Hour), Version: 1}
	s.pages[node] = map[string][]byte{leases.PageOf(a).Addr().String(): leases.EncodePage(time.Now(), []leases.Lease{l})}
}

// TestANodeThatCannotBeReadHidesNobody: at a start what the others wrote is read, and this node writes; what cannot be read is tried again, and nothing else is.
func TestANodeThatCannotBeReadHidesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf()
		s.torn = bookB
		s.page(bookB, "198.18.0.20")
		s.page(bookC, "198.18.4.20")
		n := newLeasebook(s, bookA, []netip.Addr{bookB, bookC}, slog.New(slog.DiscardHandler))
		if list, all := n.recall(); all || len(list) != 1 || list[0].Address != netip.MustParseAddr("198.18.4.20") {
			t.Errorf("recalled %v", list)
		}
		before := s.reads(bookC)
		running := runBook(t, n, newBookkeeper(bookB, pair.InTouch))
		pass(3 * bookPace)
		if got := len(running.server.Leases()); got != 1 || s.count(bookA) != 1 {
			t.Errorf("%d leases, %d pages written", got, s.count(bookA))
		}
		if _, _, failed, err := n.lag(time.Now()); failed == 0 || !errors.Is(err, errAway) {
			t.Errorf("%d failures, %v", failed, err)
		}
		s.tear(netip.Addr{})
		pass(3 * bookPace)
		if got := len(running.server.Leases()); got != 2 || s.reads(bookC) != before+1 {
			t.Errorf("%d leases; the pages that could be read were read %d times", got, s.reads(bookC)-before)
		}
		if _, _, _, err := n.lag(time.Now()); err != nil {
			t.Error(err)
		}
		running.stop()
	})
}

// TestARoundEndsThoughTheRegistryHangs: however many peers there are, and pages to write, and the peers of which there is word are seen.
func TestARoundEndsThoughTheRegistryHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf()
		n := newLeasebook(s, bookA, []netip.Addr{bookB, bookC}, slog.New(slog.DiscardHandler))
		k := newBookkeeper(bookC, pair.Away)
		n.server = k
		if err := n.round(t.Context()); err != nil {
			t.Fatal(err)
		}
		for i := range byte(8) {
			peer := netip.AddrFrom4([4]byte{198, 18, 0, 100 + i})
			s.hangs, n.peers = append(s.hangs, peer), append(n.peers, peer)
			k.peers = slices.Insert(k.peers, 0, pair.Peer{Address: peer, State: pair.Away})
		}
		for range 3 {
			start := time.Now()
			if err := n.round(t.Context()); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > bookPatience {
				t.Errorf("%v after %s", err, time.Since(start))
			}
			if err := s.Beat(t.Context(), bookC, time.Now()); err != nil {
				t.Fatal(err)
			}
		}
		if k.alive(bookC) != 2 {
			t.Errorf("the peer of which there is word was seen alive %d times", k.alive(bookC))
		}
		s.hangs = append(s.hangs, bookA)
		(&bookNode{leasebook: n, server: k}).give("198.18.0.10", 5000)
		start := time.Now()
		if err := n.write(t.Context()); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > bookPace || len(n.behind()) != 5 {
			t.Errorf("%v after %s", err, time.Since(start))
		}
	})
}

// TestABadPageIsLeftOut: the others count.
func TestABadPageIsLeftOut(t *testing.T) {
	s := newShelf()
	l := leases.Lease{Address: netip.MustParseAddr("198.18.0.10"), State: leases.Bound, Start: time.Now(), Expires: time.Now().Add(time.Hour), Version: 1}
	good := leases.EncodePage(time.Now(), []leases.Lease{l})
	s.pages[bookA] = map[string][]byte{"198.18.0.0": good, "198.18.4.0": good, "x": good, "198.18.8.0": []byte("{}")}
	if list, _ := newLeasebook(s, bookA, nil, slog.New(slog.DiscardHandler)).recall(); len(list) != 1 {
		t.Errorf("recalled %v", list)
	}
}
