package guest

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"
)

const (
	// readInterval throttles the reads: an emulated machine has few CPU cycles, and 200 looks a second find every stall.
	readInterval = 5 * time.Millisecond
	// reportInterval is between two lines.
	reportInterval = 500 * time.Millisecond
)

// Config says what to read and where to tell.
type Config struct {
	Area   io.ReaderAt // reads must not be cached
	Blocks uint64      // in the area
	Buffer []byte      // BlockSize bytes, aligned as the area wants it
	Output io.Writer   // gets one line each half second, in one Write
	// Uptime and Multiuser say what the lines say of the machine.
	Uptime    func() time.Duration
	Multiuser func() bool
}

// Validate returns an error that says what is missing, or nil.
func (c Config) Validate() error {
	if c.Area == nil || c.Output == nil || c.Uptime == nil || c.Multiuser == nil {
		return fmt.Errorf("guest: Area, Output, Uptime and Multiuser must be set")
	}
	if c.Blocks == 0 || len(c.Buffer) != BlockSize {
		return fmt.Errorf("guest: want at least one block and a buffer of %d bytes", BlockSize)
	}
	return nil
}

// Reader reads and reports.
type Reader struct {
	config Config

	mu     sync.Mutex
	report Report
	begun  time.Time // of the read in progress; zero: none
}

// New returns a Reader.
func New(config Config) (*Reader, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	return &Reader{config: config}, nil
}

// Run reads until ctx is cancelled. An error of the area never stops it, only one of the output does. A read that hangs
// holds Run back.
func (r *Reader) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var reading sync.WaitGroup
	reading.Go(func() { r.read(ctx) })
	defer reading.Wait()
	defer cancel()

	tick := time.NewTicker(reportInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if _, err := io.WriteString(r.config.Output, r.line().String()+"\n"); err != nil {
				return fmt.Errorf("writing a report: %w", err)
			}
		}
	}
}

func (r *Reader) read(ctx context.Context) {
	random := rand.New(rand.NewPCG(1, 2))
	tick := time.NewTicker(readInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			r.readOne(random.Uint64N(r.config.Blocks))
		}
	}
}

func (r *Reader) readOne(index uint64) {
	r.mu.Lock()
	r.begun = time.Now()
	r.mu.Unlock()

	n, err := r.config.Area.ReadAt(r.config.Buffer, int64(index)*BlockSize)
	good := err == nil && CheckBlock(index, r.config.Buffer)

	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen(time.Since(r.begun))
	r.begun = time.Time{}
	r.report.Reads++
	r.report.Bytes += uint64(n)
	switch {
	case err != nil:
		r.report.Errors++
	case !good:
		r.report.Mismatches++
	}
}

// seen takes a read of that length, finished or not, into the report.
func (r *Reader) seen(took time.Duration) {
	r.report.Longest = max(r.report.Longest, took)
	r.report.WindowLongest = max(r.report.WindowLongest, took)
}

// line returns the report of this window and begins the next.
func (r *Reader) line() Report {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.begun.IsZero() {
		r.seen(time.Since(r.begun))
	}
	report := r.report
	r.report.WindowLongest = 0
	report.Uptime = r.config.Uptime()
	report.Multiuser = r.config.Multiuser()
	return report
}
