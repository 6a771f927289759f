package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"everboot/appliance/web"
	"everboot/internal/lab"
	"everboot/internal/lab/crowd"
	"everboot/site"
)

// startConsul starts one Consul server, and returns when it leads.
func (s *stage) startConsul() error {
	binary, err := filepath.Abs("build/consul")
	if err == nil {
		_, err = os.Stat(binary)
	}
	if err != nil {
		return fmt.Errorf("make consul first: %w", err)
	}
	at := addresses["c"]
	s.process["c"] = s.host["c"].Start("consul", binary, "agent", "-dev", "-bind="+at, "-client="+at, "-log-level=warn", "-hcl=disable_update_check=true")
	client := s.host["targets"].HTTP()
	defer client.CloseIdleConnections()
	return lab.Eventually(patience, "Consul leads", func() error {
		res, err := client.Get("http://" + at + ":8500/v1/kv/?keys&consistent")
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if res.StatusCode >= http.StatusInternalServerError {
			return fmt.Errorf("it answers %s", res.Status)
		}
		return nil
	})
}

// withoutConsul takes Consul away, and shows what works still: running targets, new logins, failover, the stop of a streamer, a drain, a restart of the appliance.
func withoutConsul(binary, dir string) error {
	s, err := newStage(binary, dir, options{consul: true})
	if err != nil {
		return err
	}
	defer s.lab.Close()
	for i := 1; i <= crowdSize; i++ {
		if err := s.api.Put(context.Background(), site.KindDevice, mac(i).String(), site.Device{MAC: mac(i), VDisk: "debian"}); err != nil {
			return err
		}
	}
	if err := s.await("the devices are known", func(v web.Status) bool { return len(v.View.Devices) == crowdSize }); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	running := s.crowd(ctx, 1, crowdSize/2)
	defer running.Stop()
	if err := readAll(running, crowdSize/2); err != nil {
		return err
	}
	s.process["c"].Kill()
	if err := s.await("the appliance misses Consul", func(v web.Status) bool { return !v.View.Registry.Reachable }); err != nil {
		return err
	}
	start := time.Now()
	fresh := s.crowd(ctx, crowdSize/2+1, crowdSize)
	defer fresh.Stop()
	if err := readAll(fresh, crowdSize/2); err != nil {
		return err
	}
	row("Consul gone: new logins", "%d targets read after %v", crowdSize/2, time.Since(start).Round(time.Millisecond))
	both := []*crowd.Crowd{running, fresh}
	for _, x := range []struct {
		what string
		do   func() error
	}{
		{"one of three streamers killed", func() error { s.process["s3"].Kill(); return nil }},
		{"a streamer's agent stopped", func() error { return s.process["s1"].Stop(patience) }},
		{"the killed streamer started, `everboot streamer drain` of the last other one", func() error {
			s.start("s3")
			if err := s.await("s3 serves", func(v web.Status) bool { return v.View.Streamers["s3"].Check.Health == site.Up }); err != nil {
				return err
			}
			return s.drain("s2")
		}},
		{"the appliance stopped and started, from its saved view", func() error {
			err := s.process["a"].Stop(patience)
			s.start("a")
			return err
		}},
	} {
		if err := goOn("Consul gone: "+x.what, both, x.do); err != nil {
			return err
		}
	}
	status, err := s.api.Status(context.Background())
	if err != nil {
		return err
	}
	row("Consul gone: `everboot status` warns", "%q", strings.Join(status.Warnings[:min(1, len(status.Warnings))], "; "))
	if err := s.consulKnows("s2"); err != nil {
		return err
	}
	for _, c := range both {
		if err := c.Stop(); err != nil {
			return err
		}
	}
	row("errors, wrong bytes", "none in %d reads", running.Reads()+fresh.Reads())
	return nil
}

// drain drains a streamer, and waits until nobody streams from it.
func (s *stage) drain(name string) error {
	if err := s.api.Put(context.Background(), site.KindStreamerState, name, site.Draining); err != nil {
		return err
	}
	return s.await("nobody streams from "+name, func(v web.Status) bool {
		return !slices.ContainsFunc(v.Sessions, func(x web.Session) bool { return x.Streamer == name })
	})
}

// consulKnows starts Consul anew, and waits until it knows that a streamer is drained. It is a development server, which forgets all else.
func (s *stage) consulKnows(streamer string) error {
	if err := s.startConsul(); err != nil {
		return err
	}
	client := s.host["targets"].HTTP()
	defer client.CloseIdleConnections()
	start := time.Now()
	err := lab.Eventually(patience, "Consul knows of the drain", func() error {
		res, err := client.Get("http://" + addresses["c"] + ":8500/v1/kv/everboot/default/streamer-states/" + streamer + "?raw")
		if err != nil {
			return err
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		if err == nil && string(text) != `"draining"` {
			err = fmt.Errorf("it answers %s: %s", res.Status, text)
		}
		return err
	})
	row("Consul back, empty", "it knows of the drain after %v", time.Since(start).Round(time.Millisecond))
	return err
}

func readAll(c *crowd.Crowd, n int) error {
	if err := lab.Eventually(patience, "all targets read", func() bool { return c.Since(make([]int64, n)) == n }); err != nil {
		return fmt.Errorf("%w (%v)", err, c.Err())
	}
	return nil
}

// goOn does something to the site, and prints how long targets waited until all had read on.
func goOn(what string, crowds []*crowd.Crowd, do func() error) error {
	for _, c := range crowds {
		c.Stall()
	}
	if err := do(); err != nil {
		return err
	}
	var stall time.Duration
	for _, c := range crowds {
		mark := c.Mark()
		if err := lab.Eventually(patience, "all targets read on", func() bool { return c.Since(mark) == len(mark) }); err != nil {
			return fmt.Errorf("%s: %w (%v)", what, err, c.Err())
		}
		stall = max(stall, c.Stall())
	}
	row(what, "all read on, longest stall %v", stall.Round(time.Millisecond))
	return nil
}
