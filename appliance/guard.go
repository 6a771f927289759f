package appliance

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"everboot/appliance/keep"
)

const (
	// stopTime is what a worker has to say goodbye: it is longer than any of its rooms takes.
	stopTime = 10 * time.Second
	// restartMin and restartMax pace the restarts of a worker that dies again and again.
	restartMin = 100 * time.Millisecond
	restartMax = 5 * time.Second
	// restartCalm is how long a worker must have lived for the pace to start anew.
	restartCalm = time.Minute
)

// Guard is the process that `everboot appliance` starts as. It holds no state of the site and answers nobody; it starts the worker
// again when it dies, and takes the node's addresses away in between, so that two hosts never answer for one address.
type Guard struct {
	Worker  []string     // program and arguments of the worker; it gets a Lifeline as file 3
	Release func() error // takes the VIPs away and tells the other routers
	Keep    *keep.Holder // gives the worker a socket as file 4, and drops what it kept when its addresses are released
	Counter *os.File     // what the worker counts its advertisements in, its file 5
	// Patience is for how long a worker may give no sign on its lifeline, once it has begun to, before its addresses are released. 0: for ever.
	Patience time.Duration
	Log      *slog.Logger
}

// ExitError says that the worker ended by itself before it was ready: it has said why.
type ExitError struct{ Code int }

func (e ExitError) Error() string { return fmt.Sprintf("the worker ended with code %d", e.Code) }

// Run returns nil after ctx ended and the worker is gone, or an ExitError if the first worker could not start. A later one is tried again
// and again: what keeps it from starting, such as an interface that is made anew, may pass.
func (g *Guard) Run(ctx context.Context) error {
	runtime.LockOSThread() // Pdeathsig is tied to the thread that forked: it must live as long as the guard
	defer runtime.UnlockOSThread()
	pause, served := restartMin, false
	for {
		started := time.Now()
		ready, err := g.once(ctx)
		served = served || ready
		if ctx.Err() != nil {
			return nil
		}
		var exit *exec.ExitError
		if !served && (err == nil || errors.As(err, &exit) && exit.Exited()) {
			return ExitError{Code: max(1, exitCode(err))}
		}
		if !served && exit == nil {
			return err
		}
		if time.Since(started) > restartCalm {
			pause = restartMin
		}
		g.Log.Error("the worker died; its addresses are taken away and it is started again", "how", err, "after", time.Since(started).Round(time.Millisecond), "pause", pause)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		pause = min(2*pause, restartMax)
	}
}

// once runs one worker to its end and then releases its addresses. It reports whether the worker was ever ready.
func (g *Guard) once(ctx context.Context) (ready bool, err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return false, fmt.Errorf("making the worker's pipe: %w", err)
	}
	defer r.Close()
	kept, err := g.Keep.Attach()
	if err != nil {
		return false, errors.Join(err, w.Close())
	}
	cmd := exec.Command(g.Worker[0], g.Worker[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{w, kept, g.Counter}
	// A worker whose guard was killed stops as if it had been told to. Its own process group keeps a terminal's Ctrl-C from reaching it twice.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setpgid: true}
	err = cmd.Start()
	w.Close()
	kept.Close()
	defer g.Keep.Release() // when the addresses are gone
	if err != nil {
		return false, fmt.Errorf("starting the worker: %w", err)
	}
	ready, err = g.attend(ctx, cmd, listen(r))
	g.release()
	return ready, err
}

// attend waits for the end of the worker, which is told to stop when ctx ends.
func (g *Guard) attend(ctx context.Context, cmd *exec.Cmd, said <-chan time.Time) (ready bool, err error) {
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	watch := vigil{patience: g.Patience}
	look := time.NewTicker(watch.lookEvery())
	defer look.Stop()
	stop, kill, looks := ctx.Done(), (<-chan time.Time)(nil), look.C
	hear := func(at time.Time) {
		if ready {
			watch.sign(at)
		}
		ready = true
	}
	for {
		select {
		case at, open := <-said:
			if !open {
				said = nil
				continue
			}
			hear(at)
		case now := <-looks:
			if watch.look(now) {
				g.Log.Error("the worker gives no sign of life; its addresses are taken away", "for", g.Patience)
				g.release()
			}
		case <-stop:
			_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself
			stop, kill = nil, time.After(stopTime)
			// Its routers hand over one by one, each in its own time, and those that have do not beat any more. What hangs while it
			// does so loses its addresses when the kernel's lifetime ends.
			looks = nil
		case <-kill:
			_ = cmd.Process.Kill()
		case err := <-ended:
			if said != nil { // its last words may be unread
				for at := range said {
					hear(at)
				}
			}
			return ready, err
		}
	}
}

func (g *Guard) release() {
	if err := g.Release(); err != nil {
		g.Log.Error("releasing the addresses", "error", err)
	}
}

func exitCode(err error) int {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	return 0
}
