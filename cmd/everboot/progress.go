package main

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// progressPace is the time between two lines about something that takes long; what takes less says nothing.
const progressPace = 2 * time.Second

// progress says how many of many things are done. Several goroutines may do them.
type progress struct {
	to    io.Writer
	what  string // was done to them
	total int

	mu   sync.Mutex
	done int
	said time.Time
}

func newProgress(to io.Writer, what string, total int) *progress {
	return &progress{to: to, what: what, total: total, said: time.Now()}
}

// another says how many are done with this one, if it is time to.
func (p *progress) another() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done++
	if now := time.Now(); now.Sub(p.said) >= progressPace && p.done < p.total {
		p.said = now
		fmt.Fprintf(p.to, "everboot: %d of %d %s\n", p.done, p.total, p.what)
	}
}
