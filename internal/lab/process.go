package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Process is a program that runs on a host.
type Process struct {
	space      *space
	host, name string
	path       string // of its output
	cmd        *exec.Cmd
	done       chan struct{} // closed when it has been reaped
	err        error         // what Wait of os/exec said; valid when done is closed

	mu   sync.Mutex
	seen int // how far Expect has read
}

// Settings are what a process may be started with beside its arguments.
type Settings struct {
	Env   []string   // added to the environment of this process, as "KEY=value"
	Dir   string     // working directory; empty means this process's
	Files []*os.File // descriptors 3 and up
	// Stdin is the standard input; nil means nothing to read.
	Stdin *os.File
}

// Start starts a program on the host. What it prints goes to the file <host>-<name>.log of the lab's folder; a second process of
// the same name goes on in that file.
func (h *Host) Start(name string, argv ...string) *Process {
	return h.StartWith(Settings{}, name, argv...)
}

// StartWith is Start with settings.
func (h *Host) StartWith(s Settings, name string, argv ...string) *Process {
	return h.lab.start(h.space, h.name, s, name, argv)
}

func (l *Lab) start(space *space, host string, s Settings, name string, argv []string) *Process {
	path := filepath.Join(l.options.Dir, host+"-"+name+".log")
	out, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		l.fail(fmt.Errorf("starting %s on %s: %w", name, host, err))
	}
	defer out.Close()
	size, err := out.Seek(0, 2)
	if err != nil {
		l.fail(fmt.Errorf("starting %s on %s: %w", name, host, err))
	}
	p := &Process{space: space, host: host, name: name, path: path, done: make(chan struct{}), seen: int(size)}
	p.cmd = exec.Command(argv[0], argv[1:]...)
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.ExtraFiles, p.cmd.Dir = out, out, s.Files, s.Dir
	if s.Stdin != nil {
		p.cmd.Stdin = s.Stdin
	}
	p.cmd.Env = append(os.Environ(), s.Env...)
	p.cmd.SysProcAttr = childAttr()

	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		l.fail(fmt.Errorf("starting %s on %s: the lab is closed", name, host))
	}
	if err := space.keep(p.cmd.Start); err != nil {
		l.fail(fmt.Errorf("starting %s on %s: %w", name, host, err))
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	l.processes = append(l.processes, p)
	l.log.Debug("process started", "host", host, "name", name, "pid", p.PID())
	return p
}

// PID is the process's number.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Signal sends a signal; it is no error if the process is gone.
func (p *Process) Signal(s os.Signal) error {
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("sending %v to %s on %s: %w", s, p.name, p.host, err)
	}
	return nil
}

// Kill sends SIGKILL to this one process and returns when it has been reaped.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // the only error is that it is gone
	<-p.done
}

// Stop sends SIGTERM and waits. A process that does not end in time is killed, and that is an error, as is a failure as exit code.
func (p *Process) Stop(timeout time.Duration) error {
	if err := p.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	err := p.Wait(timeout)
	if errors.Is(err, errStillRuns) {
		p.Kill()
		return fmt.Errorf("stopping %s on %s: it went on for %v after SIGTERM; killed", p.name, p.host, timeout)
	}
	status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if ok && status.Signaled() && status.Signal() == syscall.SIGTERM {
		return nil // it has no handler
	}
	return err
}

var errStillRuns = errors.New("it still runs")

// Wait waits for the process to end by itself. It returns an error if it does not in time, or if it fails.
func (p *Process) Wait(timeout time.Duration) error {
	select {
	case <-p.done:
	case <-time.After(timeout):
		return fmt.Errorf("waiting %v for the end of %s on %s: %w", timeout, p.name, p.host, errStillRuns)
	}
	if p.err != nil {
		return fmt.Errorf("%s on %s ended: %w: %s", p.name, p.host, p.err, lastLines(p.Log(), 5))
	}
	return nil
}

// Running tells whether the process has not ended yet.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// ExitCode is the exit code, or -1 if the process runs or died of a signal.
func (p *Process) ExitCode() int {
	if p.Running() {
		return -1
	}
	return p.cmd.ProcessState.ExitCode()
}

// Expect waits for a whole line of output that matches, after the line that the last Expect returned, and gives the match and its
// groups. It gives up when the process ends or the time is over; the error shows the last lines.
func (p *Process) Expect(pattern string, timeout time.Duration) ([]string, error) {
	re, err := regexp.Compile(pattern)
	if err != nil {
		return nil, fmt.Errorf("reading pattern %q: %w", pattern, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var match []string
	err = Eventually(timeout, "waiting for "+pattern, func() bool {
		over := !p.Running() // before the last look
		match = p.next(re)
		return match != nil || over
	})
	switch {
	case match != nil:
		return match, nil
	case err == nil:
		err = fmt.Errorf("waiting for %s: the process has ended (%v)", pattern, p.cmd.ProcessState)
	}
	return nil, fmt.Errorf("%s on %s: %w; its last lines:\n%s", p.name, p.host, err, lastLines(p.Log(), 20))
}

// next looks for the first whole line that matches, from where the last match ended.
func (p *Process) next(re *regexp.Regexp) []string {
	text := p.Log()
	for at := p.seen; at < len(text); {
		end := strings.IndexByte(text[at:], '\n')
		if end < 0 {
			return nil
		}
		line := strings.TrimSuffix(text[at:at+end], "\r")
		at += end + 1
		if match := re.FindStringSubmatch(line); match != nil {
			p.seen = at
			return match
		}
	}
	return nil
}

// Log is all that the process has printed, and what other processes of its name and host have.
func (p *Process) Log() string {
	text, err := os.ReadFile(p.path)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// Processes are all that were started through the lab, those that have ended too.
func (l *Lab) Processes() []*Process {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.processes)
}
