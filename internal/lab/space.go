package lab

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// space is a network namespace without a name, and the thread that made it.
//
// That thread lives as long as the space and starts the processes: a child inherits the namespace of the thread that forks it,
// and its parent-death signal comes when that thread ends, not when the process does.
type space struct {
	file  *os.File
	inode uint64
	calls chan func()
}

func newSpace() (*space, error) {
	s := &space{calls: make(chan func())}
	made := make(chan error)
	go onOwnThread(func() {
		err := s.unshare()
		made <- err
		if err != nil {
			return
		}
		for f := range s.calls {
			f()
		}
	})
	if err := <-made; err != nil {
		return nil, err
	}
	return s, nil
}

// unshare moves the calling thread into a new namespace and opens it.
func (s *space) unshare() error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("making a network namespace: %w", err)
	}
	file, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return fmt.Errorf("opening a network namespace: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		return fmt.Errorf("looking at a network namespace: %w", err)
	}
	s.file, s.inode = file, st.Ino
	return nil
}

func (s *space) close() {
	close(s.calls)
	s.file.Close() // read-only: nothing to lose
}

// keep runs f on the thread of the space. Use it to start processes and for nothing that takes long.
func (s *space) keep(f func() error) error {
	done := make(chan error)
	s.calls <- func() { done <- f() }
	return <-done
}

// do runs f on a thread of its own inside the namespace.
func (s *space) do(f func() error) error {
	done := make(chan error, 1)
	go onOwnThread(func() {
		if err := unix.Setns(int(s.file.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("entering a network namespace: %w", err)
			return
		}
		done <- f()
	})
	return <-done
}

// sysctl writes settings below /proc/sys/net, which shows the namespace of the thread that looks.
func (s *space) sysctl(values map[string]string) error {
	return s.do(func() error {
		for key, value := range values {
			if err := os.WriteFile("/proc/sys/net/"+key, []byte(value), 0o644); err != nil {
				return fmt.Errorf("setting net/%s to %s: %w", key, value, err)
			}
		}
		return nil
	})
}

// onOwnThread runs f on a thread that ends with f, so that f may change the thread in ways that cannot be undone. It must be a
// goroutine of its own. The first thread of a process cannot end: it is kept busy here while another goroutine takes f.
func onOwnThread(f func()) {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		f()
		return // still locked: the runtime ends the thread
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		f()
	}()
	<-done
	runtime.UnlockOSThread()
}

// residents lists the processes that live in one of the spaces, but for this one.
func residents(spaces []*space) ([]int, error) {
	inodes := make(map[uint64]bool, len(spaces))
	for _, s := range spaces {
		inodes[s.inode] = true
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("listing processes: %w", err)
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		var st unix.Stat_t
		if unix.Stat("/proc/"+e.Name()+"/ns/net", &st) == nil && inodes[st.Ino] {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// killAll ends everything that lives in the spaces, and what it forks meanwhile.
func killAll(spaces []*space) error {
	const patience = 10 * time.Second // a process that writes to a slow disk may take seconds to die
	return Eventually(patience, "killing the processes of a namespace", func() error {
		pids, err := residents(spaces)
		if err != nil || len(pids) == 0 {
			return err
		}
		for _, pid := range pids {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("killing process %d: %w", pid, err)
			}
		}
		return fmt.Errorf("still alive: %s", strings.Trim(fmt.Sprint(pids), "[]"))
	})
}
