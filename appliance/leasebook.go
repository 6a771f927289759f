package appliance

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"everboot/dhcp/leases"
	"everboot/dhcp/pair"
)

const (
	// bookPace is the time between two rounds of writing. Each write goes through the log of all of Consul's servers.
	bookPace = 5 * time.Second
	// bookRound bounds what is written in one round; more is written later. It is twenty thousand leases of the usual size.
	bookRound = 1 << 20
	// bookFailures ends a round of writing: the registry refuses one page, or it refuses all.
	bookFailures = 3
	// bookPatience bounds one word with the registry; bookStart what a server with a new disk waits for it, and bookEnd the last words.
	bookPatience = 3 * time.Second
	bookStart    = 5 * time.Second
	bookAgain    = 200 * time.Millisecond // between two tries of a start: an agent that starts beside us answers soon
	bookEnd      = time.Second
	// bookLate is a lag that somebody should know of.
	bookLate = time.Minute
	// maxRecalled bounds what is read at a start: as many as a table remembers.
	maxRecalled = 1 << 17
)

// pages is where leases are written down: *consul.Registry. An embedded registry has no such place: what it is told goes over the same channel to the same
// disks as the leases themselves do (docs/adr/0012).
type pages interface {
	PutPage(ctx context.Context, node netip.Addr, page string, value []byte) error // nil takes it away
	Pages(ctx context.Context, node netip.Addr) (map[string][]byte, error)
	Beat(ctx context.Context, node netip.Addr, at time.Time) error
	Beats(ctx context.Context, node netip.Addr) (uint64, error) // another number after each Beat
}

// bookServer is what a leasebook needs of *dhcp.Server.
type bookServer interface {
	Ready() <-chan struct{}
	Leases() []leases.Lease
	Page(block netip.Prefix) []leases.Lease
	Learn(ctx context.Context, from netip.Addr, lives bool, list []leases.Lease) error
	Peers() []pair.Peer
}

// leasebook writes this node's leases down in the registry, a page for each block of addresses, soon after they changed, and reads what others wrote while they
// are out of contact. Nothing waits for it.
type leasebook struct {
	pages  pages
	own    netip.Addr
	peers  []netip.Addr // whose leases are ours, too
	server bookServer
	log    *slog.Logger
	ready  chan struct{}

	opened bool                  // what follows is Run's: what was there before was read
	beats  map[netip.Addr]uint64 // of peers that are out of contact
	news   bool                  // a page was written since the last beat
	said   string                // the error that was logged

	mu      sync.Mutex
	dirty   map[netip.Prefix]time.Time // since when a page is behind
	written uint64
	failed  uint64
	err     error // of the last round
}

func newLeasebook(p pages, own netip.Addr, peers []netip.Addr, log *slog.Logger) *leasebook {
	return &leasebook{
		pages: p, own: own, peers: peers, log: log, ready: make(chan struct{}), beats: make(map[netip.Addr]uint64), dirty: make(map[netip.Prefix]time.Time),
	}
}

// changed notes that leases are no longer what their pages say. It never blocks.
func (b *leasebook) changed(list []leases.Lease) {
	now, last := time.Now(), netip.Prefix{}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, l := range list {
		if page := leases.PageOf(l.Address); page != last {
			last = page
			if _, ok := b.dirty[page]; !ok {
				b.dirty[page] = now
			}
		}
	}
}

// recall returns all that was written down, for a server whose disk is new.
func (b *leasebook) recall() (list []leases.Lease) {
	ctx, cancel := context.WithTimeout(context.Background(), bookStart)
	defer cancel()
	for _, node := range append([]netip.Addr{b.own}, b.peers...) {
		pages, err := b.pages.Pages(ctx, node)
		for err != nil && ctx.Err() == nil {
			select {
			case <-ctx.Done():
			case <-time.After(bookAgain):
				pages, err = b.pages.Pages(ctx, node)
			}
		}
		if err != nil {
			b.log.Warn("the lease file is new, and what was written down of leases cannot be read yet", "error", err)
			return list
		}
		for _, page := range b.read(node, pages) {
			if list = append(list, page...); len(list) >= maxRecalled {
				return list
			}
		}
	}
	return list
}

// read returns the leases of pages, by block. A page that cannot be read is left out.
func (b *leasebook) read(node netip.Addr, pages map[string][]byte) map[netip.Prefix][]leases.Lease {
	out := make(map[netip.Prefix][]leases.Lease)
	for name, value := range pages {
		a, err := netip.ParseAddr(name)
		block := leases.PageOf(a)
		var list []leases.Lease
		if err == nil {
			list, err = leases.DecodePage(time.Now(), block, value)
		}
		if err != nil {
			b.log.Warn("leaving out a page of leases", "of", node, "page", name, "error", err)
			continue
		}
		out[block] = list
	}
	return out
}

// Ready implements task.
func (b *leasebook) Ready() <-chan struct{} { return b.ready }

// Run implements task.
func (b *leasebook) Run(ctx context.Context) error {
	close(b.ready)
	select {
	case <-ctx.Done():
		return nil
	case <-b.server.Ready():
	}
	pace := time.NewTicker(bookPace)
	defer pace.Stop()
	for {
		b.note(b.round(ctx))
		select {
		case <-ctx.Done():
			return b.last()
		case <-pace.C:
		}
	}
}

// last writes what changed since the last round, if that can be done quickly: a planned stop leaves nothing behind.
func (b *leasebook) last() error {
	ctx, cancel := context.WithTimeout(context.Background(), bookEnd)
	defer cancel()
	if b.opened {
		b.note(errors.Join(b.write(ctx), b.beat(ctx)))
	}
	return nil
}

// note keeps how a round ended, and logs it when that changes.
func (b *leasebook) note(err error) {
	b.mu.Lock()
	b.err = err
	if err != nil {
		b.failed++
	}
	b.mu.Unlock()
	text := ""
	if err != nil {
		text = err.Error()
	}
	switch {
	case text == b.said:
		return
	case err != nil && b.said == "":
		b.log.Warn("leases cannot be written down in the registry; they are on this disk and with the peers", "error", err)
	case err == nil:
		b.log.Info("leases are written down in the registry again")
	}
	b.said = text
}

func (b *leasebook) round(ctx context.Context) error {
	if !b.opened {
		if err := b.open(ctx); err != nil {
			return err
		}
		b.opened = true
		return nil // the server takes what it was told before we write the next page
	}
	err := errors.Join(b.write(ctx), b.beat(ctx), b.look(ctx))
	if ctx.Err() != nil {
		return nil // we stop
	}
	return err
}

// open reads what was there when we came: it may be more than our disk knows. All of it, and all that we know, is written anew.
func (b *leasebook) open(ctx context.Context) error {
	for _, node := range append([]netip.Addr{b.own}, b.peers...) {
		pages, err := b.readPages(ctx, node, false)
		if err != nil {
			return err
		}
		if node != b.own {
			continue
		}
		for block := range pages { // also those that nobody has a lease in any more
			b.changed([]leases.Lease{{Address: block.Addr()}})
		}
	}
	b.changed(b.server.Leases())
	return nil
}

func (b *leasebook) readPages(ctx context.Context, node netip.Addr, lives bool) (map[netip.Prefix][]leases.Lease, error) {
	bounded, cancel := context.WithTimeout(ctx, bookPatience)
	defer cancel()
	pages, err := b.pages.Pages(bounded, node)
	if err != nil {
		return nil, err
	}
	read := b.read(node, pages)
	for _, list := range read {
		if err := b.server.Learn(bounded, node, lives, list); err != nil {
			return nil, err
		}
	}
	return read, nil
}

// write writes the pages that are behind, the longest behind first.
func (b *leasebook) write(ctx context.Context) error {
	wrote := 0
	var errs []error
	for _, page := range b.behind() {
		if wrote >= bookRound || len(errs) >= bookFailures {
			break
		}
		b.mu.Lock()
		since := b.dirty[page]
		delete(b.dirty, page) // what changes from now on makes it dirty again
		b.mu.Unlock()
		value := leases.EncodePage(time.Now(), b.server.Page(page))
		err := b.within(ctx, func(ctx context.Context) error { return b.pages.PutPage(ctx, b.own, page.Addr().String(), value) })
		b.mu.Lock()
		if err != nil {
			b.dirty[page] = since
			b.mu.Unlock()
			errs = append(errs, fmt.Errorf("page %s: %w", page, err))
			continue
		}
		b.written++
		b.mu.Unlock()
		b.news = true
		wrote += len(value)
	}
	return errors.Join(errs...)
}

// beat says that we live: a peer that does not hear us otherwise sees it.
func (b *leasebook) beat(ctx context.Context) error {
	if !b.news && len(b.away()) == 0 {
		return nil
	}
	b.news = false
	return b.within(ctx, func(ctx context.Context) error { return b.pages.Beat(ctx, b.own, time.Now()) })
}

func (b *leasebook) within(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, bookPatience)
	defer cancel()
	return do(ctx)
}

// behind returns the pages that are, the longest first.
func (b *leasebook) behind() []netip.Prefix {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.SortedFunc(maps.Keys(b.dirty), func(x, y netip.Prefix) int {
		return cmp.Or(b.dirty[x].Compare(b.dirty[y]), x.Addr().Compare(y.Addr()))
	})
}

// away returns the peers that are out of contact.
func (b *leasebook) away() (list []netip.Addr) {
	for _, p := range b.server.Peers() {
		if p.State != pair.InTouch && slices.Contains(b.peers, p.Address) {
			list = append(list, p.Address)
		}
	}
	return list
}

// look reads what peers wrote that are out of contact, also of those behind one whose word cannot be had.
func (b *leasebook) look(ctx context.Context) error {
	away := b.away()
	maps.DeleteFunc(b.beats, func(a netip.Addr, _ uint64) bool { return !slices.Contains(away, a) })
	var errs []error
	for _, node := range away {
		if err := b.lookAt(ctx, node); err != nil {
			errs = append(errs, fmt.Errorf("peer %s: %w", node, err))
		}
	}
	return errors.Join(errs...)
}

// lookAt reads what a peer wrote. That it wrote since we looked last says that it lives.
func (b *leasebook) lookAt(ctx context.Context, node netip.Addr) error {
	var beat uint64
	if err := b.within(ctx, func(ctx context.Context) (err error) {
		beat, err = b.pages.Beats(ctx, node)
		return err
	}); err != nil {
		return err
	}
	before, known := b.beats[node]
	if known && beat == before {
		return nil
	}
	pages, err := b.readPages(ctx, node, known)
	if err != nil {
		return err
	}
	if known && len(pages) == 0 { // it lives, and has given nothing
		if err := b.server.Learn(ctx, node, true, nil); err != nil {
			return err
		}
	}
	b.beats[node] = beat
	return nil
}

// lag returns for how long the page that is longest behind is.
func (b *leasebook) lag(now time.Time) (lag time.Duration, written, failed uint64, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, since := range b.dirty {
		lag = max(lag, now.Sub(since))
	}
	return lag, b.written, b.failed, b.err
}

// bookWarnings says that the registry is far behind.
func (w *worker) bookWarnings() []string {
	if w.book == nil {
		return nil
	}
	lag, _, _, err := w.book.lag(time.Now())
	if lag < bookLate {
		return nil
	}
	text := fmt.Sprintf("leases of the last %s are not in the registry; they are on this disk and with the peers", lag.Round(time.Second))
	if err != nil {
		text += ": " + err.Error()
	}
	return []string{text}
}

// The names of the metrics of what is written down of leases.
const (
	metricBookLag     = "everboot_dhcp_registry_lag_seconds"
	metricBookWritten = "everboot_dhcp_registry_pages_written_total"
	metricBookFailed  = "everboot_dhcp_registry_errors_total"
)

func (c collector) book(send emit) {
	lag, written, failed, _ := c.w.book.lag(time.Now())
	send(metricBookLag, "For how long the registry does not know of a change of a lease.", prometheus.GaugeValue, lag.Seconds())
	send(metricBookWritten, "Pages of leases written to the registry.", prometheus.CounterValue, float64(written))
	send(metricBookFailed, "Times that leases could not be written to or read from the registry.", prometheus.CounterValue, float64(failed))
}
