package main

import (
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"everboot/internal/lab"
)

const (
	floating = "198.18.0.10"
	patience = 20 * time.Second
)

// rig is a segment with two routers and a client.
type rig struct {
	lab     *lab.Lab
	a, b, c *lab.Host
	cable   *lab.Cable // of a
	dir     string
}

func newRig() (*rig, error) {
	dir, err := os.MkdirTemp("", "benchvip-")
	if err != nil {
		return nil, err
	}
	l, err := lab.Open(lab.Options{Dir: dir})
	if err != nil {
		return nil, err
	}
	seg := l.Segment("lan")
	r := &rig{lab: l, a: l.Host("a"), b: l.Host("b"), c: l.Host("c"), dir: dir}
	r.cable = r.a.Join(seg, "198.18.0.2/24")
	r.b.Join(seg, "198.18.0.3/24")
	r.c.Join(seg, "198.18.0.4/24")
	return r, nil
}

func (r *rig) close() error {
	if err := r.lab.Close(); err != nil {
		return err
	}
	return os.RemoveAll(r.dir)
}

// event is what happens to the owner, a.
type event struct {
	name string
	do   func(r *rig, p peer) error
	// sample is for how long the owners are watched after it, and settled from when on two of them count.
	sample, settled time.Duration
	// apart says that a is out of reach afterwards: that it has the address does no harm.
	apart bool
}

const freezeTime = 3500 * time.Millisecond

var events = []event{
	{name: "planned stop", do: func(r *rig, p peer) error { return p.stop(r.a) }, sample: time.Second, settled: 100 * time.Millisecond},
	{name: "daemon SIGKILLed", do: func(r *rig, p peer) error { return p.signal(r.a, syscall.SIGKILL, false) }, sample: 2 * time.Second, settled: 100 * time.Millisecond},
	{name: "guard and worker SIGKILLed at once", do: func(r *rig, p peer) error { return p.signal(r.a, syscall.SIGKILL, true) }, sample: 6 * time.Second, settled: 3500 * time.Millisecond},
	{name: "worker frozen 3.5 s, then woken", do: freeze, sample: 6 * time.Second, settled: time.Second},
	{name: "silent host", do: func(r *rig, _ peer) error { r.cable.Silence(true); return nil }, sample: time.Second, apart: true},
}

func freeze(r *rig, p peer) error {
	if err := p.signal(r.a, syscall.SIGSTOP, false); err != nil {
		return err
	}
	time.AfterFunc(freezeTime, func() { _ = p.signal(r.a, syscall.SIGCONT, false) }) // it may be gone
	return nil
}

// result is one run of an event.
type result struct {
	gap       time.Duration // the longest time in which what was sent got no answer
	lost      int           // datagrams without an answer
	twoOwners time.Duration // for how long both had the address, after the event has settled
}

func once(e event, p peer) (result, error) {
	r, err := newRig()
	if err != nil {
		return result{}, err
	}
	res, err := r.play(e, p)
	if closeErr := r.close(); err == nil {
		err = closeErr
	}
	return res, err
}

func (r *rig) play(e event, p peer) (result, error) {
	for _, h := range []*lab.Host{r.a, r.b} {
		stop, err := echo(h)
		if err != nil {
			return result{}, err
		}
		defer stop()
	}
	if err := p.start(r.a, r.dir, 200); err != nil {
		return result{}, err
	}
	if err := lab.Eventually(patience, "a owns the address", func() bool { return owns(r.a) }); err != nil {
		return result{}, err
	}
	if err := p.start(r.b, r.dir, 100); err != nil {
		return result{}, err
	}
	time.Sleep(1500 * time.Millisecond) // b knows of a, and the first announcements are over
	if owns(r.b) || !owns(r.a) {
		return result{}, fmt.Errorf("%s did not settle: a owns the address: %t, b: %t", p.name, owns(r.a), owns(r.b))
	}
	c, err := startClient(r.c)
	if err != nil {
		return result{}, err
	}
	defer c.stop()
	time.Sleep(300 * time.Millisecond)
	began := time.Now()
	if err := e.do(r, p); err != nil {
		return result{}, err
	}
	two := r.watch(e, began)
	gap, lost := c.result(began)
	return result{gap: gap, lost: lost, twoOwners: two}, nil
}

// watch looks every few milliseconds who has the address, and returns for how long both had it.
func (r *rig) watch(e event, began time.Time) time.Duration {
	var two time.Duration
	last := time.Now()
	for time.Since(began) < e.sample {
		time.Sleep(5 * time.Millisecond)
		both := owns(r.a) && owns(r.b)
		now := time.Now()
		if both && !e.apart && now.Sub(began) > e.settled {
			two += now.Sub(last)
		}
		last = now
	}
	return two
}

// owns reports whether a host has the address, on its interface or on a macvlan there.
func owns(h *lab.Host) bool {
	if h.Has(floating) {
		return true
	}
	found := false
	err := h.Do(func() error {
		list, err := net.InterfaceAddrs()
		for _, a := range list {
			if p, ok := a.(*net.IPNet); ok && p.IP.String() == floating {
				found = true
			}
		}
		return err
	})
	return err == nil && found
}
