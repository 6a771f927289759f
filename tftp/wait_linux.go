package tftp

import (
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// spinFor is how long the owner asks again and again after an answer to a client in lockstep, rather than sleep: a wake-up costs as much as all
	// the rest of a block. Most clients on a LAN answer within it. An idle server never spins.
	spinFor = 60 * time.Microsecond
	// spinMost is how many transfers there may be: with more, there is something to do after each wake-up anyway.
	spinMost = 4
	// taken: if another thread had the processor for so long while we spun, there is none to spare, and we sleep for the next spinPause. Shorter
	// gaps come all the time: they say nothing.
	taken     = 200 * time.Microsecond
	spinPause = 2 * time.Millisecond
	// gatherFrom is from how many transfers on the owner lets ACKs gather for gatherFor, after less than half a batch of them: each wake-up, and each
	// call of the kernel, then serves more of them. The kernel adds 50 µs, its timer slack. With fewer transfers
	// their clients would wait for it.
	gatherFrom = 32
	gatherFor  = 60 * time.Microsecond
)

// waiter waits until there is something to read.
type waiter struct {
	fds    [3]unix.PollFd // the socket, the inbox, and the transfers' own ports
	polite time.Time      // until then it does not spin
}

func newWaiter(socket, inbox, ports int) *waiter {
	return &waiter{fds: [3]unix.PollFd{{Fd: int32(socket), Events: unix.POLLIN}, {Fd: int32(inbox), Events: unix.POLLIN}, {Fd: int32(ports), Events: unix.POLLIN}}}
}

// sleep waits in the kernel, in whole milliseconds, rounded up. EINTR is no error.
func (w *waiter) sleep(most time.Duration) error {
	_, err := unix.Poll(w.fds[:], int((most+time.Millisecond-1)/time.Millisecond))
	if err == unix.EINTR {
		return nil
	}
	return err
}

// spin asks again and again whether datagrams are there, for spinFor at most, and returns how many came. Its system calls never wait, so they are
// raw ones.
func (w *waiter) spin(o *owner) int {
	now := time.Now()
	if now.Before(w.polite) {
		return 0
	}
	for end := now.Add(spinFor); now.Before(end) && !o.s.inbox.full.Load(); {
		if n := o.in.receive(o.socket); n > 0 {
			return n
		}
		syscall.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
		before := now
		if now = time.Now(); now.Sub(before) > taken {
			w.polite = now.Add(spinPause)
		}
	}
	return 0
}

// gather lets more arrive. It is a raw system call: others of this process wait no longer for it than for a spin.
func gather() {
	pause := unix.NsecToTimespec(int64(gatherFor))
	syscall.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&pause)), 0, 0)
}

// gathers tells whether answers to so few datagrams at once are worth a pause: there are many clients that load.
func (o *owner) gathers(n int) bool {
	return 0 < n && n < batch/2 && o.table.loading() >= gatherFrom
}

// spins tells whether the next packet is likely to come before a sleep could begin and end: the last one was from a client in lockstep.
func (o *owner) spins() bool {
	spins := o.lockstep && len(o.ports.byFD) == 0 && len(o.table.byEnds) <= spinMost
	o.lockstep = false
	return spins
}

// sleep returns how long nothing is due.
func (o *owner) sleep() time.Duration {
	now := time.Since(o.epoch)
	wait := idle
	if first := o.table.first(); first != nil {
		wait = first.due - now
	}
	if o.s.cfg.Tell != nil {
		wait = min(wait, o.hand.wait(now, len(o.table.byEnds)))
	}
	return min(max(wait, 0), idle)
}
