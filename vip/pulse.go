package vip

import "sync"

// Pulse is the heart beat of a process with several routers: it beats when each of them has, so that one that hangs is noticed.
type Pulse struct {
	beat func()

	mu   sync.Mutex
	seen []bool
	left int
}

// NewPulse returns the pulse of n routers. beat is called when all of them have beaten since the last time; nil: nobody listens.
func NewPulse(n int, beat func()) *Pulse { return &Pulse{beat: beat, seen: make([]bool, n), left: n} }

// Of returns the Beat of router i.
func (p *Pulse) Of(i int) func() {
	return func() {
		if p.mark(i) && p.beat != nil {
			p.beat()
		}
	}
}

func (p *Pulse) mark(i int) (all bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.seen[i] {
		p.seen[i] = true
		p.left--
	}
	if p.left > 0 {
		return false
	}
	clear(p.seen)
	p.left = len(p.seen)
	return true
}
