package health

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"everboot/site"
)

// Config of a Runner.
type Config struct {
	// Report is called with each change of a check's health or reason, by one goroutine. It must not block. It may be nil.
	Report func(name string, c site.Check)
}

// Runner runs checks, each in a goroutine of its own.
type Runner struct {
	cfg     Config
	log     *slog.Logger
	ready   chan struct{}
	changed chan struct{} // cap 1: wanted has changed
	results chan result
	status  atomic.Pointer[[]Result]

	mu     sync.Mutex
	wanted []Check // in order of dependence
}

// New returns a runner without checks.
func New(cfg Config, log *slog.Logger) *Runner {
	if cfg.Report == nil {
		cfg.Report = func(string, site.Check) {}
	}
	r := &Runner{cfg: cfg, log: log, ready: make(chan struct{}), changed: make(chan struct{}, 1), results: make(chan result)}
	r.status.Store(&[]Result{})
	return r
}

// Set says which checks are wanted from now on. It may be called at any time, also before Run, and does not wait. Checks that are
// found again keep their health. After an error, which says what is wrong with the checks, everything is as before.
func (r *Runner) Set(checks []Check) error {
	list, err := sorted(checks)
	if err != nil {
		return err
	}
	r.mu.Lock()
	r.wanted = list
	r.mu.Unlock()
	select {
	case r.changed <- struct{}{}:
	default: // Run has yet to look
	}
	return nil
}

// Ready closes when Run has begun.
func (r *Runner) Ready() <-chan struct{} { return r.ready }

// String names the runner in logs.
func (r *Runner) String() string { return "health" }

// Result is the state of a check.
type Result struct {
	Name      string        `json:"name"`
	DependsOn []string      `json:"depends_on,omitempty"`
	Check     site.Check    `json:"check"`
	Probes    uint64        `json:"probes"`          // since the check is wanted
	Failures  uint64        `json:"failures"`        // of these
	Probed    time.Time     `json:"probed,omitzero"` // when the last probe ended
	Took      time.Duration `json:"took_ns"`         // the last probe
	Error     string        `json:"error,omitempty"` // of the last probe; Rise or Fall may not have been reached
}

// Status returns the results of now, each behind those that it depends on.
func (r *Runner) Status() []Result { return *r.status.Load() }

// Run probes until ctx ends, and then waits for the probes under way. It may be called once.
func (r *Runner) Run(ctx context.Context) error {
	o := &owner{Runner: r, ctx: ctx, workers: make(map[string]*worker)}
	close(r.ready)
	for {
		select {
		case <-ctx.Done():
			for _, w := range o.workers {
				w.cancel()
			}
			o.group.Wait()
			return nil
		case <-r.changed:
			o.apply()
		case res := <-r.results:
			o.take(res)
		}
	}
}

// owner is the state of Run's goroutine.
type owner struct {
	*Runner
	ctx     context.Context // lives as long as Run
	order   []*worker
	workers map[string]*worker
	group   sync.WaitGroup
}

// apply makes the workers what is wanted.
func (o *owner) apply() {
	o.mu.Lock()
	wanted := o.wanted
	o.mu.Unlock()
	before := o.workers
	o.workers, o.order = make(map[string]*worker, len(wanted)), nil
	for _, c := range wanted {
		w := before[c.Name]
		switch {
		case w == nil:
			w = o.start(c, nil)
		case w.check.Revision != c.Revision:
			w.cancel()
			w = o.start(c, w)
		default:
			w.machine.rise, w.machine.fall = c.Rise, c.Fall
			w.result.DependsOn = c.DependsOn
		}
		delete(before, c.Name)
		o.workers[c.Name] = w
		o.order = append(o.order, w)
	}
	for name, w := range before {
		w.cancel()
		o.log.Debug("health: check ended", "check", name)
	}
	o.settle()
}

// start starts a worker; the one that it follows, if any, hands its health down.
func (o *owner) start(c Check, old *worker) *worker {
	w := newWorker(c, o.results)
	var after <-chan struct{}
	if old != nil {
		w.machine.check = old.machine.check
		after = old.done
	}
	ctx, cancel := context.WithCancel(o.ctx)
	w.cancel = cancel
	w.result = Result{Name: c.Name, DependsOn: c.DependsOn}
	o.group.Go(func() { w.run(ctx, after) })
	return w
}

func (o *owner) take(res result) {
	w := res.worker
	if o.workers[w.check.Name] != w {
		return // no longer wanted
	}
	w.result.Probes++
	w.result.Probed, w.result.Took, w.result.Error = res.at, res.took, ""
	if res.err != nil {
		w.result.Failures++
		w.result.Error = brief(res.err)
	}
	if w.open.Load() && w.machine.result(res.at, res.err, res.lost) {
		o.report(w)
	}
	o.settle()
}

// settle opens and closes the workers' gates after what they depend on. Workers stand behind what they depend on, so once through
// the list is enough.
func (o *owner) settle() {
	now := time.Now()
	for _, w := range o.order {
		open := true
		for _, name := range w.result.DependsOn {
			dependency := o.workers[name].machine.check.Health
			if dependency == site.Down && w.machine.block(now, name) {
				o.report(w)
			}
			if dependency != site.Up {
				open = false
				break
			}
		}
		w.setOpen(open)
	}
	list := make([]Result, 0, len(o.order))
	for _, w := range o.order {
		w.result.Check = w.machine.check
		list = append(list, w.result)
	}
	o.status.Store(&list)
}

func (o *owner) report(w *worker) {
	c := w.machine.check
	o.log.Info("health: changed", "check", w.check.Name, "health", c.Health, "reason", c.Reason)
	o.cfg.Report(w.check.Name, c)
}
