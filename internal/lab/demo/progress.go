package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// progress prints one line a step, with its time. On a terminal the line of a step under way counts the seconds; elsewhere
// a step that takes long says so now and then.
type progress struct {
	out      io.Writer
	terminal bool
	start    time.Time

	mu      sync.Mutex
	current string
	since   time.Time
	done    chan struct{}
	once    sync.Once
}

const (
	tick  = time.Second
	quiet = 15 // ticks between signs of life where the output is no terminal
)

func newProgress(out *os.File) *progress {
	p := &progress{out: out, start: time.Now(), done: make(chan struct{})}
	if info, err := out.Stat(); err == nil {
		p.terminal = info.Mode()&os.ModeCharDevice != 0
	}
	go p.run()
	return p
}

func (p *progress) run() {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for n := 1; ; n++ {
		select {
		case <-p.done:
			return
		case <-ticker.C:
		}
		p.mu.Lock()
		switch took := time.Since(p.since).Round(time.Second); {
		case p.current == "":
		case p.terminal:
			fmt.Fprintf(p.out, "\r\033[K  …  %6s  %s", took, p.current)
		case n%quiet == 0:
			fmt.Fprintf(p.out, "  …  %6s  %s\n", took, p.current)
		}
		p.mu.Unlock()
	}
}

// step runs do and prints how it went and how long it took.
func (p *progress) step(what string, do func() error) error {
	p.mu.Lock()
	p.current, p.since = what, time.Now()
	p.mu.Unlock()
	err := do()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.current = ""
	mark := "ok "
	if err != nil {
		mark = "BAD"
	}
	clear := ""
	if p.terminal {
		clear = "\r\033[K"
	}
	fmt.Fprintf(p.out, "%s%s  %6.1fs  %s\n", clear, mark, time.Since(p.since).Seconds(), what)
	return err
}

func (p *progress) stop() { p.once.Do(func() { close(p.done) }) }
