package health

import (
	"context"
	"hash/fnv"
	"sync/atomic"
	"time"
)

// worker is the goroutine of one check. The owner's goroutine holds machine, result and cancel; the worker only probes and tells.
type worker struct {
	check   Check
	results chan<- result
	started time.Time
	open    atomic.Bool   // what it depends on is up
	wake    chan struct{} // cap 1: it has been opened
	done    chan struct{} // closed at the end

	machine machine
	result  Result
	cancel  context.CancelFunc
}

// result of one probe.
type result struct {
	worker *worker
	err    error
	lost   bool // the probe followed on a loss that Watch saw
	at     time.Time
	took   time.Duration
}

func newWorker(c Check, results chan<- result) *worker {
	return &worker{
		check: c, results: results, started: time.Now(), machine: newMachine(c.Rise, c.Fall),
		wake: make(chan struct{}, 1), done: make(chan struct{}),
	}
}

// setOpen is called by the owner.
func (w *worker) setOpen(open bool) {
	if w.open.Swap(open) == open || !open {
		return
	}
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// run probes until ctx ends, but not before another worker of the same name has ended.
func (w *worker) run(ctx context.Context, after <-chan struct{}) {
	defer close(w.done)
	if w.check.Close != nil {
		defer w.check.Close()
	}
	if after != nil {
		<-after
	}
	for lost, failed := false, false; w.waitOpen(ctx); {
		took, err := w.probe(ctx)
		if ctx.Err() != nil {
			return // the probe was cut off
		}
		select {
		case w.results <- result{worker: w, err: err, lost: lost, at: time.Now(), took: took}:
		case <-ctx.Done():
			return
		}
		until := w.next(time.Now())
		if err != nil && !failed {
			until = time.Now().Add(againAfter)
		}
		lost, failed = w.rest(ctx, until, err == nil && !lost), err != nil
	}
}

// waitOpen returns false when ctx ends.
func (w *worker) waitOpen(ctx context.Context) bool {
	for ctx.Err() == nil {
		if w.open.Load() {
			return true
		}
		select {
		case <-w.wake:
		case <-ctx.Done():
		}
	}
	return false
}

func (w *worker) probe(ctx context.Context) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, w.check.Timeout)
	defer cancel()
	start := time.Now()
	err := w.check.Probe(ctx)
	return time.Since(start), err
}

// againAfter is when a probe that failed is repeated, if the one before did not: that it is a death and no hiccup is known soon.
const againAfter = 100 * time.Millisecond

// rest waits for the time of the next probe, or until the check has been opened. If it may watch meanwhile, it returns true as soon as
// the thing is lost. It may not after a loss, lest a thing that dies after each probe be probed without a pause.
func (w *worker) rest(ctx context.Context, until time.Time, watch bool) (lost bool) {
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	if watch && w.check.Watch != nil && w.check.Watch(ctx) != nil && ctx.Err() == nil {
		return true
	}
	for {
		select {
		case <-ctx.Done():
			return false
		case <-w.wake:
			if w.open.Load() {
				return false
			}
		}
	}
}

// next returns the time of the next probe. The first follows at once on the start; the others keep to a grid that is moved by a hash of
// the name, so that many checks of one interval spread over it.
func (w *worker) next(now time.Time) time.Time {
	h := fnv.New64a()
	h.Write([]byte(w.check.Name))
	phase := time.Duration(h.Sum64() % uint64(w.check.Interval))
	since := now.Sub(w.started) - phase
	if since < 0 {
		return w.started.Add(phase)
	}
	return w.started.Add(phase + (since/w.check.Interval+1)*w.check.Interval)
}
