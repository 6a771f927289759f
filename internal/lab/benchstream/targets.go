package main

import (
	"context"
	"fmt"
	"time"

	"everboot/appliance/web"
	"everboot/internal/lab"
	"everboot/internal/lab/crowd"
	"everboot/site"
)

func row(what, format string, values ...any) {
	fmt.Printf("%-52s %s\n", what, fmt.Sprintf(format, values...))
}

// targets is what two hundred of them see.
func targets(s *stage) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	start := time.Now()
	c := s.crowd(ctx, 1, crowdSize)
	defer c.Stop()
	if err := lab.Eventually(patience, "all targets read", func() bool { return c.Since(make([]int64, crowdSize)) == crowdSize }); err != nil {
		return fmt.Errorf("%w (%v)", err, c.Err())
	}
	text, off, err := s.spread()
	if err != nil {
		return err
	}
	row(fmt.Sprintf("%d targets log in at once", crowdSize), "all read after %v; %s, at most %.0f %% off even", time.Since(start).Round(time.Millisecond), text, 100*off)
	for _, part := range []func(*stage, *crowd.Crowd) error{killed, returned, silenced, drained} {
		c.Stall()
		if err := part(s, c); err != nil {
			return err
		}
		if err := c.Err(); err != nil {
			return err
		}
	}
	if err := c.Stop(); err != nil {
		return err
	}
	row("errors, wrong bytes", "none in %d reads", c.Reads())
	return nil
}

// back waits until all targets have read again after what was done, and prints how long that took.
func back(s *stage, c *crowd.Crowd, what string, do func() error, without string) error {
	start := time.Now()
	if err := do(); err != nil {
		return err
	}
	if without != "" {
		err := s.await("nobody streams from "+without, func(v web.Status) bool {
			for _, session := range v.Sessions {
				if session.Streamer == without {
					return false
				}
			}
			return true
		})
		if err != nil {
			return err
		}
	}
	mark := c.Mark()
	if err := lab.Eventually(patience, "all targets read on", func() bool { return c.Since(mark) == crowdSize }); err != nil {
		return err
	}
	took := time.Since(start)
	text, off, err := s.spread()
	if err != nil {
		return err
	}
	row(what, "all back after %v, longest stall %v; %s, at most %.0f %% off even", took.Round(time.Millisecond), c.Stall().Round(time.Millisecond), text, 100*off)
	return nil
}

func killed(s *stage, c *crowd.Crowd) error {
	return back(s, c, "one of three streamers killed", func() error { s.process["s3"].Kill(); return nil }, "s3")
}

// serves waits until a streamer is up again.
func (s *stage) serves(name string) error {
	return s.await(name+" serves", func(v web.Status) bool {
		st := v.View.Streamers[name]
		return st.Check.Health == site.Up && st.State == site.Active && len(st.Replicas) == 1
	})
}

// rebalance moves until nothing is left, as the command does.
func (s *stage) rebalance() (moved int, err error) {
	for {
		r, err := s.api.Rebalance(context.Background())
		moved += r.Moved
		if err != nil || r.Left == 0 {
			return moved, err
		}
	}
}

func returned(s *stage, c *crowd.Crowd) error {
	s.start("s3")
	if err := s.serves("s3"); err != nil {
		return err
	}
	return back(s, c, "it came back, `everboot rebalance`", func() error {
		moved, err := s.rebalance()
		row("targets moved", "%d", moved)
		return err
	}, "")
}

func silenced(s *stage, c *crowd.Crowd) error {
	err := back(s, c, "one streamer's host falls silent", func() error { s.cable["s2"].Silence(true); return nil }, "s2")
	s.cable["s2"].Silence(false)
	if err == nil {
		time.Sleep(2 * time.Second) // a portal that fell silent gets no login for one
		err = s.serves("s2")
	}
	if err == nil {
		_, err = s.rebalance()
	}
	return err
}

func drained(s *stage, c *crowd.Crowd) error {
	return back(s, c, "`everboot streamer drain`", func() error {
		return s.api.Put(context.Background(), site.KindStreamerState, "s1", site.Draining)
	}, "s1")
}
