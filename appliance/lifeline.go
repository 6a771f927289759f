package appliance

import (
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Lifeline is the worker's end of the pipe that its guard holds. One byte says that everything serves, each further one that the
// router of the floating address is at work.
type Lifeline struct{ fd int }

// InheritedLifeline returns the lifeline that the guard gave to this process as the file of that number.
func InheritedLifeline(fd int) (*Lifeline, error) {
	// A worker whose guard is frozen must not freeze, too, when the pipe is full.
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, os.NewSyscallError("making the pipe to the guard not block", err)
	}
	unix.CloseOnExec(fd)
	return &Lifeline{fd: fd}, nil
}

// Say writes a byte. It never blocks; a guard that is gone needs none.
func (l *Lifeline) Say() { _, _ = unix.Write(l.fd, []byte{1}) }

// listen reads the guard's end: it sends the moment of each byte, and closes the channel when the worker is gone.
func listen(r io.Reader) <-chan time.Time {
	said := make(chan time.Time, 16)
	go func() {
		defer close(said)
		buffer := make([]byte, 64)
		for {
			n, err := r.Read(buffer)
			for range n {
				said <- time.Now()
			}
			if err != nil {
				return
			}
		}
	}()
	return said
}

// vigil is what the guard knows of a worker that shows again and again that it is at work.
type vigil struct {
	patience time.Duration // 0: it need not show it
	last     time.Time     // of its signs; zero: it has begun with none
	looked   time.Time
	frozen   bool
}

// lookEvery returns how often look wants to be called.
func (v *vigil) lookEvery() time.Duration {
	if v.patience == 0 {
		return time.Hour
	}
	return v.patience / 4
}

func (v *vigil) sign(at time.Time) { v.last, v.frozen = at, false }

// look reports whether the worker has just turned out to be frozen. A guard that did not run for a while itself gives the worker
// the time anew: its signs may lie unread in the pipe.
func (v *vigil) look(now time.Time) bool {
	late := !v.looked.IsZero() && now.Sub(v.looked) > v.patience/2
	v.looked = now
	switch {
	case v.patience == 0 || v.last.IsZero() || v.frozen:
		return false
	case late:
		v.last = now
		return false
	}
	v.frozen = now.Sub(v.last) > v.patience
	return v.frozen
}
