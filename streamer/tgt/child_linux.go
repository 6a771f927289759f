package tgt

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// child is a running tgtd.
type child struct {
	done  chan error    // one error at its end
	ended chan struct{} // closed at its end

	mu   sync.Mutex
	last []string // of its output
}

// spawn starts tgtd on a loopback port that nobody knows.
func (e *Engine) spawn(ctx context.Context) (*child, error) {
	if err := os.MkdirAll(filepath.Dir(e.cfg.socket()), 0o700); err != nil {
		return nil, fmt.Errorf("making a folder for tgtd's socket: %w", err)
	}
	program, err := find("tgtd")
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, program, "-f", "-C", "0", "--nr_iothreads", strconv.Itoa(e.cfg.Threads), "--iscsi", "portal=127.0.0.1:0")
	cmd.Env = append(os.Environ(), "TGT_IPC_SOCKET="+e.cfg.socket())
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = w, w
	c := &child{done: make(chan error, 1), ended: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		// The death signal comes when the thread that forked ends, so that thread stays until the child is gone.
		runtime.LockOSThread()
		err := cmd.Start()
		w.Close()
		started <- err
		if err != nil {
			r.Close()
			return
		}
		e.drain(c, r)
		err = cmd.Wait()
		close(c.ended)
		c.done <- err
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting tgtd: %w", err)
	}
	return c, nil
}

// find looks where daemons live too: the PATH of a person may lack it.
func find(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	path := filepath.Join("/usr/sbin", name)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("%s is not installed: apt-get install tgt", name)
	}
	return path, nil
}

// drain logs what tgtd says until it ends.
func (e *Engine) drain(c *child, r io.ReadCloser) {
	defer r.Close()
	const keep = 5
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		e.log.Debug("tgtd says", "line", lines.Text())
		c.mu.Lock()
		c.last = append(c.last, lines.Text())
		c.last = c.last[max(0, len(c.last)-keep):]
		c.mu.Unlock()
	}
	io.Copy(io.Discard, r) // after a line too long to read
}

// lastWords returns what tgtd said last, in one line.
func (c *child) lastWords() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.Join(c.last, "; ")
}

// commandTimeout bounds one tgtadm; it takes about 2 ms.
const commandTimeout = 5 * time.Second

// tgtadm runs one command against our own tgtd.
func (e *Engine) tgtadm(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	program, err := find("tgtadm")
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, program, append([]string{"-C", "0"}, args...)...)
	cmd.Env = append(os.Environ(), "TGT_IPC_SOCKET="+e.cfg.socket())
	out, err := cmd.Output()
	var failed *exec.ExitError
	if errors.As(err, &failed) {
		return "", fmt.Errorf("%s (%w)", strings.TrimSpace(string(failed.Stderr)), err)
	}
	return string(out), err
}
