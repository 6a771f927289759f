package main

import (
	"fmt"
	"io"
	"time"
)

// progressPace is the time between two lines about something that takes long; what takes less says nothing.
const progressPace = 2 * time.Second

// progress says how many of many things are done.
type progress struct {
	to    io.Writer
	what  string // was done to them
	total int
	said  time.Time
}

func newProgress(to io.Writer, what string, total int) *progress {
	return &progress{to: to, what: what, total: total, said: time.Now()}
}

// done says that n are, if it is time to.
func (p *progress) done(n int) {
	if now := time.Now(); now.Sub(p.said) >= progressPace && n < p.total {
		p.said = now
		fmt.Fprintf(p.to, "everboot: %d of %d %s\n", n, p.total, p.what)
	}
}
