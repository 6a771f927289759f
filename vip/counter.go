package vip

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"everboot/internal/durable"
)

// Counter gives the number of each advertisement that a node seals (vrrp.Auth). Peers take what is not above the last one for a replay, so
// it must rise whatever happens: over a restart, with a clock that was set back, and from one process to the other, for the guard resigns
// for a worker that may wake and speak again. All processes of a node share one.
//
// A number is the time, or one more than the last where that is further on: then a node that has lost its state is still heard, and one
// with a good clock is heard by a keepalived that looks at its own. On disk stands a ceiling that no number has reached yet; the next start
// begins there.
type Counter struct {
	words *words
	memfd *os.File // of words; nil: they are this process's alone
	// The rest is that of the process that opened it.
	ledger *os.File // nil: there is none
	log    *slog.Logger
	quit   chan struct{}
	done   chan struct{}
}

// words are what the processes share.
type words struct {
	last    atomic.Uint64
	ceiling atomic.Uint64 // of what the time may set last to
}

const (
	// reserveAhead is how far the ceiling is above the time, in seconds: after a crash the numbers are that much ahead of it, less what
	// the next start takes. A keepalived takes what is five seconds off its clock for stale.
	reserveAhead = 4
	// reserveCounts is how far it is above the last number at least, where that is ahead of the time: starts that crash one after the other must
	// not add their seconds up. It lasts 255 routers that advertise each 10 ms for half a minute.
	reserveCounts = 1 << 20
	// reserveLook is how often the process that opened the counter looks whether half of that is used up.
	reserveLook = 500 * time.Millisecond
	// ledgerFormat has always the same length, within one sector: a write replaces all of it or nothing.
	ledgerFormat = "%020d\n"
	ledgerLen    = 21
)

// newCounter returns a counter of this process alone, which goes by the clock.
func newCounter() *Counter {
	c := &Counter{words: &words{}}
	c.words.ceiling.Store(math.MaxUint64)
	return c
}

// Next returns the next number.
func (c *Counter) Next(now time.Time) uint64 {
	for {
		last := c.words.last.Load()
		n := max(last+1, min(stamp(now), c.words.ceiling.Load()))
		if c.words.last.CompareAndSwap(last, n) {
			return n
		}
	}
}

// stamp is a time as a number: seconds since 1970, 16 bits of fraction, and 16 bits to count on with.
func stamp(t time.Time) uint64 {
	const fraction = 1 << 16
	seconds := uint64(max(t.Unix(), 0))
	return seconds<<32 | uint64(t.Nanosecond())*fraction/uint64(time.Second)<<16
}

// OpenCounter opens the counter of a node whose ledger is the file, which is made if there is none. The folder must be there. An empty path:
// no ledger, the clock alone counts. So it does while another process has the ledger open.
func OpenCounter(path string, log *slog.Logger) (*Counter, error) {
	memfd, shared, err := shareWords()
	if err != nil {
		return nil, err
	}
	c := &Counter{words: shared, memfd: memfd, log: log}
	c.words.ceiling.Store(math.MaxUint64)
	if path == "" {
		return c, nil
	}
	if err := c.openLedger(path); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	if c.ledger != nil {
		c.quit, c.done = make(chan struct{}), make(chan struct{})
		go c.keepAhead()
	}
	return c, nil
}

func (c *Counter) openLedger(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("opening the count of advertisements: %w; it must belong to the user that the appliance runs as, as its folder does", err)
	}
	giveToOwner(f, filepath.Dir(path))
	switch err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
	case errors.Is(err, unix.EWOULDBLOCK):
		c.log.Warn("another process counts the advertisements of this node; the clock counts for this one", "file", path)
		return f.Close()
	case err != nil:
		return errors.Join(fmt.Errorf("locking %s: %w", path, err), f.Close())
	}
	text, err := io.ReadAll(io.LimitReader(f, ledgerLen+1))
	if err != nil {
		return errors.Join(fmt.Errorf("reading %s: %w", path, err), f.Close())
	}
	reached, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	if reached > math.MaxUint64-reserveAhead<<33 { // there must be numbers left
		reached, err = 0, strconv.ErrRange
	}
	if err != nil && len(text) > 0 {
		c.log.Error("the count of advertisements cannot be read; it begins with the clock", "file", path, "error", err)
		reached = 0
		if err := f.Truncate(0); err != nil {
			return errors.Join(fmt.Errorf("emptying %s: %w", path, err), f.Close())
		}
	}
	c.ledger = f
	c.words.last.Store(reached)
	err = errors.Join(c.reserve(time.Now()), durable.SyncDir(filepath.Dir(path)))
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}

// reserve puts the ceiling further on, on disk first.
func (c *Counter) reserve(now time.Time) error {
	ceiling := max(c.words.last.Load()+reserveCounts, stamp(now)+reserveAhead<<32)
	if err := c.write(ceiling); err != nil {
		return err
	}
	c.words.ceiling.Store(ceiling)
	return nil
}

func (c *Counter) write(n uint64) error {
	if _, err := c.ledger.WriteAt(fmt.Appendf(nil, ledgerFormat, n), 0); err != nil {
		return err
	}
	return c.ledger.Sync()
}

// due reports whether half of what was reserved is used up, by numbers or by the time, which a router that is silent now goes by later.
func (c *Counter) due(now time.Time) bool {
	return max(c.words.last.Load()+reserveCounts/2, stamp(now)+reserveAhead/2<<32) > c.words.ceiling.Load()
}

// keepAhead is the goroutine that reserves. Nobody waits for its disk.
func (c *Counter) keepAhead() {
	defer close(c.done)
	told := false
	for look := time.NewTicker(reserveLook); ; {
		select {
		case <-c.quit:
			look.Stop()
			return
		case <-look.C:
		}
		if !c.due(time.Now()) {
			continue
		}
		err := c.reserve(time.Now())
		if err != nil && !told {
			c.log.Error("the count of advertisements cannot be saved: after a crash of this host and with a clock that is set back, peers would take its advertisements for replays", "error", err)
		}
		told = err != nil
	}
}

// Close notes how far the numbers have come, so that the next start begins there, and closes the files. Nobody must seal any more.
func (c *Counter) Close() error {
	var errs []error
	if c.done != nil {
		close(c.quit)
		<-c.done
	}
	if c.ledger != nil {
		errs = append(errs, c.write(c.words.last.Load()), c.ledger.Close())
	}
	if c.memfd != nil {
		errs = append(errs, c.memfd.Close())
	}
	return errors.Join(errs...)
}

// giveToOwner gives a file to whom its folder belongs: root's `everboot vip flush` may be the first to make it, and the service must write to it.
func giveToOwner(f *os.File, folder string) {
	info, err := os.Stat(folder)
	if err != nil || os.Geteuid() != 0 {
		return
	}
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		_ = f.Chown(int(s.Uid), int(s.Gid)) // a file system without owners needs none
	}
}
