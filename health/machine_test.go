package health

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"everboot/site"
)

// TestMachine: "+" is a success, "-" a failure, "!" a failure after a loss, "b" a dependency that is down. The health after each is
// u(p), d(own) or ? (unknown).
func TestMachine(t *testing.T) {
	for _, c := range []struct {
		why        string
		rise, fall int
		in, want   string
	}{
		{"the first success counts at once", 3, 3, "+", "u"},
		{"the first failure counts at once", 3, 3, "-", "d"},
		{"down after fall failures in a row", 2, 3, "+--+---", "uuuuuud"},
		{"up after rise successes in a row", 3, 2, "-++-+++", "ddddddu"},
		{"a failure in between starts the count again", 2, 2, "+-+-+--", "uuuuuud"},
		{"a loss and a failure are two signs of death", 2, 5, "++!", "uud"},
		{"rise counts after a loss too", 2, 5, "+!++", "uddu"},
		{"rise 1 and fall 1 follow at once", 1, 1, "+-+-", "udud"},
		{"blocked is down at once", 3, 3, "+b", "ud"},
		{"after a block the first result counts", 3, 3, "+b+", "udu"},
		{"after a block a failure stays down, and then rise counts", 2, 2, "+b-++", "udddu"},
		{"blocked before any result", 2, 2, "b+", "du"},
	} {
		m := newMachine(c.rise, c.fall)
		now := time.Unix(0, 0)
		got := ""
		for _, in := range c.in {
			now = now.Add(time.Second)
			before := m.check
			var changed bool
			switch in {
			case '+':
				changed = m.result(now, nil, false)
			case 'b':
				changed = m.block(now, "x")
			default:
				changed = m.result(now, errors.New("broken"), in == '!')
			}
			if changed != (before != m.check) {
				t.Errorf("%s: changed is %t, %+v to %+v", c.why, changed, before, m.check)
			}
			if before.Health != m.check.Health && m.check.Since != now {
				t.Errorf("%s: since %v, want %v", c.why, m.check.Since, now)
			}
			if (m.check.Reason == "") != (m.check.Health == site.Up) {
				t.Errorf("%s: %s because %q", c.why, m.check.Health, m.check.Reason)
			}
			got += map[site.Health]string{site.Up: "u", site.Down: "d", site.Unknown: "?"}[m.check.Health]
		}
		if got != c.want {
			t.Errorf("%s: %s gives %s, want %s", c.why, c.in, got, c.want)
		}
	}
}

// TestInheritedHealth: a check that was started again has the health of before. Its first result counts at once; later ones as always.
func TestInheritedHealth(t *testing.T) {
	now := time.Unix(9, 0)
	inherit := func() machine {
		m := newMachine(2, 2)
		m.check = site.Check{Health: site.Up}
		return m
	}
	m := inherit()
	if m.result(now, errors.New("broken"), false); m.check.Health != site.Down {
		t.Errorf("a first failure: %+v", m.check)
	}
	m = inherit()
	m.result(now, nil, false)
	if m.result(now, errors.New("broken"), false); m.check.Health != site.Up {
		t.Errorf("one failure after a success: %+v", m.check)
	}
	if m.result(now, errors.New("broken"), false); m.check.Health != site.Down {
		t.Errorf("two failures after a success: %+v", m.check)
	}
}

func TestReasonFollowsTheLastFailure(t *testing.T) {
	m := newMachine(2, 2)
	now := time.Unix(9, 0)
	m.result(now, errors.New("refused"), false)
	if !m.result(now.Add(time.Second), errors.New("no login"), false) || m.check.Reason != "no login" || m.check.Since != now {
		t.Errorf("%+v", m.check)
	}
	if m.result(now.Add(2*time.Second), errors.New("no login"), false) {
		t.Error("told twice")
	}
}

// TestBrief: the port of our own end changes with each probe; it must not make each failure a new reason.
func TestBrief(t *testing.T) {
	addr := net.TCPAddrFromAddrPort(netip.MustParseAddrPort("198.18.0.21:3260"))
	for want, err := range map[string]error{
		"read 198.18.0.21:3260: connection reset": fmt.Errorf("a: %w", &net.OpError{Op: "read", Net: "tcp", Source: addr, Addr: addr, Err: errors.New("connection reset")}),
		"no answer in time":                       fmt.Errorf("b: %w", context.DeadlineExceeded),
		"two lines":                               errors.New("two\n lines"),
	} {
		if got := brief(err); got != want {
			t.Errorf("%v: %q, want %q", err, got, want)
		}
	}
}

func TestSorted(t *testing.T) {
	probe := func(context.Context) error { return nil }
	check := func(name string, on ...string) Check { return Check{Name: name, DependsOn: on, Probe: probe} }
	list, err := sorted([]Check{check("c", "b"), check("b", "a"), check("a")})
	if err != nil || list[0].Name != "a" || list[2].Name != "c" || list[0].Interval != DefaultInterval {
		t.Errorf("%+v, %v", list, err)
	}
	for why, checks := range map[string][]Check{
		"no name":    {{Probe: probe}},
		"no probe":   {{Name: "a"}},
		"negative":   {{Name: "a", Probe: probe, Fall: -1}},
		"twice":      {check("a"), check("a")},
		"a stranger": {check("a", "x")},
		"a circle":   {check("a", "b"), check("b", "a")},
		"itself":     {check("a", "a")},
	} {
		if _, err := sorted(checks); err == nil {
			t.Errorf("%s: accepted", why)
		}
	}
}
