package tftp

import (
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// inbox is how other goroutines reach the owner of the transfers: it waits in the kernel, for datagrams and for this.
type inbox struct {
	mu     sync.Mutex
	calls  []func(*owner)
	event  int // eventfd; -1: closed
	closed bool
	full   atomic.Bool // there are calls
}

func newInbox() (*inbox, error) {
	fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("making an eventfd: %w", err)
	}
	return &inbox{event: fd}, nil
}

// call has the owner call f. It does not wait. It returns false when there is no owner any more.
func (b *inbox) call(f func(*owner)) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return false
	}
	b.calls = append(b.calls, f)
	if len(b.calls) == 1 {
		b.full.Store(true)
		_, _ = unix.Write(b.event, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // full only after 2^64 calls
	}
	return true
}

// take returns what was called.
func (b *inbox) take() []func(*owner) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var drain [8]byte
	_, _ = unix.Read(b.event, drain[:]) // it says only that there is something
	calls := b.calls
	b.calls = nil
	b.full.Store(false)
	return calls
}

func (b *inbox) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.closed {
		b.closed = true
		_ = unix.Close(b.event)
	}
}
