package vrrp

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"everboot/internal/golden"
)

// TestTraces: lines of input are comments, then "router" with its settings, then "<time>: <event>". Ticks are not written: the player steps the
// machine at each deadline up to the time of the next event, unless the event is "thaw", the end of a time in which nothing ran, alone or before
// what happened first then.
func TestTraces(t *testing.T) {
	golden.Traces(t, func(out *strings.Builder) func(string) error {
		start := time.Unix(0, 0)
		return (&player{out: out, start: start, now: start}).line
	})
}

// player writes a trace again while it plays it.
type player struct {
	out     *strings.Builder
	machine *Machine
	cfg     Config
	start   time.Time
	now     time.Time
}

func (p *player) line(line string) error {
	when, what, timed := strings.Cut(line, ": ")
	switch {
	case line == "" || strings.HasPrefix(line, "#"):
		fmt.Fprintln(p.out, line)
		return nil
	case strings.HasPrefix(line, "router "):
		fmt.Fprintln(p.out, line)
		return p.router(strings.Fields(line)[1:])
	case !timed || p.machine == nil:
		return fmt.Errorf("not an event")
	}
	d, err := time.ParseDuration(when)
	if err != nil {
		return err
	}
	at := p.start.Add(d)
	what, frozen := strings.CutPrefix(what, "thaw")
	for !frozen && !p.machine.Deadline().IsZero() && !p.machine.Deadline().After(at) {
		p.now = p.machine.Deadline()
		p.step(Tick{}, "  "+p.now.Sub(p.start).String()+": ")
	}
	p.now = at
	fmt.Fprintln(p.out, line)
	if what == "" {
		what = "tick"
	}
	e, err := parseEvent(what, p.cfg)
	if err != nil || e == nil {
		return err
	}
	p.step(e, "  ")
	return nil
}

func (p *player) router(fields []string) error {
	p.cfg = Config{Primary: a2, Addresses: v4[:1]}
	for _, f := range fields {
		key, value, _ := strings.Cut(f, "=")
		if err := set(&p.cfg, key, value); err != nil {
			return err
		}
	}
	p.machine = New(p.cfg)
	return nil
}

func set(c *Config, key, value string) error {
	if key == "preempt" {
		c.Preempt = true
		return nil
	}
	if key == "delay" {
		d, err := time.ParseDuration(value)
		c.PreemptDelay = d
		return err
	}
	if key == "interval" {
		d, err := time.ParseDuration(value)
		c.Interval = d
		return err
	}
	n, err := strconv.ParseUint(value, 10, 8)
	switch key {
	case "vrid":
		c.VRID = uint8(n)
	case "priority":
		c.Priority = uint8(n)
	case "sick":
		c.Sick = uint8(n)
	default:
		return fmt.Errorf("unknown setting %q", key)
	}
	return err
}

// parseEvent returns nil for the events that are only the passing of time.
func parseEvent(what string, c Config) (Event, error) {
	f := strings.Fields(what)
	switch f[0] {
	case "start":
		return Startup{}, nil
	case "stop":
		return Shutdown{}, nil
	case "release":
		return Release{}, nil
	case "in-use":
		return AddressesInUse{}, nil
	case "addresses-lost":
		return AddressesLost{}, nil
	case "slept":
		return Slept{}, nil
	case "hold-failed":
		return ClaimFailed{}, nil
	case "end":
		return nil, nil
	case "tick":
		return Tick{}, nil
	case "priority":
		n, err := strconv.ParseUint(f[1], 10, 8)
		return SetPriority{uint8(n)}, err
	case "hear":
		from, err := netip.ParseAddr(f[1])
		a := Advertisement{VRID: c.VRID, Interval: c.Interval, Addresses: c.Addresses}
		var heard Config
		for _, kv := range f[2:] {
			key, value, _ := strings.Cut(kv, "=")
			if err := set(&heard, key, value); err != nil {
				return nil, err
			}
		}
		a.Priority = heard.Priority
		if heard.Interval > 0 {
			a.Interval = heard.Interval
		}
		if heard.VRID > 0 {
			a.VRID = heard.VRID
		}
		return Received{From: from, Advertisement: a}, err
	}
	return nil, fmt.Errorf("unknown event %q", f[0])
}

func (p *player) step(e Event, prefix string) {
	before := p.machine.Deadline()
	actions := p.machine.Step(p.now, e)
	var words []string
	for _, a := range actions {
		words = append(words, describe(a))
	}
	if len(words) == 0 {
		words = append(words, "nothing")
	}
	switch after := p.machine.Deadline(); {
	case after.Equal(before):
	case after.IsZero():
		words = append(words, "timer off")
	default:
		words = append(words, "timer at "+after.Sub(p.start).String())
	}
	fmt.Fprintln(p.out, prefix+strings.Join(words, "; "))
}

func describe(a Action) string {
	switch a := a.(type) {
	case Advertise:
		return fmt.Sprintf("advertise %d", a.Priority)
	case Hold:
		return "hold the addresses"
	case Drop:
		return "drop the addresses"
	case Announce:
		return "announce"
	case Probe:
		if a.PutOff {
			return "put off, and probe"
		}
		return "probe"
	case Transition:
		return fmt.Sprintf("%s -> %s: %s", a.From, a.To, a.Cause.Text())
	}
	return fmt.Sprintf("unknown action %T", a)
}
