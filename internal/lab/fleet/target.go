package fleet

import (
	"fmt"
	"sync"
	"time"

	"everboot/internal/lab"
	"everboot/internal/lab/guest"
)

// Target is a machine that boots from the site and reads its vDisk, block by block, checking every byte.
type Target struct {
	*lab.Machine
	N       int
	Powered time.Time

	mu      sync.Mutex
	reports []stamped
}

type stamped struct {
	at time.Time
	guest.Report
}

// PowerOn makes the n-th target, a machine with an empty disk, and powers it on.
func (f *Fleet) PowerOn(n int, firmware lab.Firmware) (*Target, error) {
	return f.PowerOnWith(n, lab.MachineConfig{Name: fmt.Sprintf("t%d", n), Firmware: firmware, DiskMB: 64})
}

// PowerOnWith makes the n-th target of what the configuration names, and powers it on. Its card and its memory are the same for all.
func (f *Fleet) PowerOnWith(n int, c lab.MachineConfig) (*Target, error) {
	c.Segment, c.MAC, c.MemoryMB = f.LAN, MAC(n), 1024
	m, err := f.Lab.Machine(c)
	if err != nil {
		return nil, err
	}
	t := &Target{Machine: m, N: n, Powered: time.Now()}
	m.Lines(func(at time.Time, line string) {
		if r, ok := guest.Parse(line); ok {
			t.mu.Lock()
			t.reports = append(t.reports, stamped{at, r})
			t.mu.Unlock()
		}
	})
	return t, nil
}

// Last returns the guest's last report.
func (t *Target) Last() (guest.Report, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.reports) == 0 {
		return guest.Report{}, false
	}
	return t.reports[len(t.reports)-1].Report, true
}

// AwaitReading waits for the guest's first report of reads.
func (t *Target) AwaitReading(timeout time.Duration) error {
	return lab.Eventually(timeout, fmt.Sprintf("target %d reads its vDisk", t.N), func() error {
		if r, ok := t.Last(); !ok || r.Reads == 0 {
			return fmt.Errorf("its console ends with:\n%s", tail(t.Console(), 1500))
		}
		return nil
	})
}

// AwaitMultiuser waits until the guest's systemd has reached multi-user.target.
func (t *Target) AwaitMultiuser(timeout time.Duration) error {
	return lab.Eventually(timeout, fmt.Sprintf("target %d reaches multi-user.target", t.N), func() error {
		if r, _ := t.Last(); !r.Multiuser {
			return fmt.Errorf("its console ends with:\n%s", tail(t.Console(), 1500))
		}
		return nil
	})
}

// Stall is what a guest saw of a failure.
type Stall struct {
	Longest    time.Duration // the longest single read since the failure
	Reads      uint64        // reads since the failure
	Errors     uint64        // reads that failed, since the guest's start
	Mismatches uint64        // reads with a wrong byte, since the guest's start
}

// Watch runs fail, which takes something away, and returns what the guest saw of it in the time after. It is an
// error if the guest does not read on.
func (t *Target) Watch(fail func(), after time.Duration) (Stall, error) {
	before, ok := t.Last()
	if !ok {
		return Stall{}, fmt.Errorf("target %d does not read yet", t.N)
	}
	start := time.Now()
	fail()
	err := lab.Eventually(after+90*time.Second, "the guest reads on", func() error {
		last, at := t.last()
		if at.Sub(start) < after || last.Reads < before.Reads+100 {
			return fmt.Errorf("%d reads since the failure", last.Reads-before.Reads)
		}
		return nil
	})
	s := t.since(start)
	last, _ := t.Last()
	s.Reads, s.Errors, s.Mismatches = last.Reads-before.Reads, last.Errors, last.Mismatches
	return s, err
}

func (t *Target) last() (guest.Report, time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.reports) == 0 {
		return guest.Report{}, time.Time{}
	}
	r := t.reports[len(t.reports)-1]
	return r.Report, r.at
}

func (t *Target) since(start time.Time) Stall {
	t.mu.Lock()
	defer t.mu.Unlock()
	var s Stall
	for _, r := range t.reports {
		if r.at.After(start) {
			s.Longest = max(s.Longest, r.WindowLongest)
		}
	}
	return s
}

func tail(text string, n int) string { return text[max(0, len(text)-n):] }
