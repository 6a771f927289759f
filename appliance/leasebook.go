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
	// bookPatience bounds one word with the registry, or one with all nodes' pages at a time; bookStart what a server with a new disk waits for it, and bookEnd the last words.
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

	opened bool         // what follows is Run's: what this node wrote before is read
	unread []netip.Addr // whose pages were not read yet
	news   bool         // a page was written since the last beat
	said   string       // the error that was logged

	mu      sync.Mutex
	beats   map[netip.Addr]uint64      // of peers that are out of contact
	dirty   map[netip.Prefix]time.Time // since when a page is behind
	written uint64
	failed  uint64
	err     error // of the last round
}

func newLeasebook(p pages, own netip.Addr, peers []netip.Addr, log *slog.Logger) *leasebook {
	return &leasebook{
		pages: p, own: own, peers: peers, log: log, ready: make(chan struct{}), unread: append([]netip.Addr{own}, peers...),
		beats: make(map[netip.Addr]uint64), dirty: make(map[netip.Prefix]time.Time),
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
		return b.open(ctx) // the server takes what it was told before we write the next page
	}
	err := errors.Join(b.write(ctx), b.beat(ctx), b.open(ctx), b.look(ctx))
	if ctx.Err() != nil {
		return nil // we stop
	}
	return err
}

// write writes the pages that are behind, the longest behind first. It takes no longer than the time between two rounds.
func (b *leasebook) write(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, bookPace)
	defer cancel()
	wrote := 0
	var errs []error
	for _, page := range b.behind() {
		if wrote >= bookRound || len(errs) >= bookFailures || ctx.Err() != nil {
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
