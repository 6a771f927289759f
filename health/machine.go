package health

import (
	"time"

	"everboot/site"
)

// machine is the pure part of a check: results in, health out.
type machine struct {
	rise, fall int
	check      site.Check
	run        int  // results in a row that speak against check.Health
	fresh      bool // the next result counts at once
}

func newMachine(rise, fall int) machine { return machine{rise: rise, fall: fall, fresh: true} }

// result takes the result of a probe. decisive says that a failure is the second sign of death. It reports whether the check has changed.
func (m *machine) result(now time.Time, err error, decisive bool) bool {
	if err == nil {
		return m.good(now)
	}
	reason := brief(err)
	if m.check.Health == site.Down {
		m.run = 0
		return m.to(now, site.Down, reason)
	}
	m.run++
	if m.run < m.fall && !m.fresh && !decisive {
		return false
	}
	return m.to(now, site.Down, reason)
}

func (m *machine) good(now time.Time) bool {
	if m.check.Health == site.Up {
		m.run, m.fresh = 0, false
		return false
	}
	m.run++
	if m.run < m.rise && !m.fresh {
		return false
	}
	return m.to(now, site.Up, "")
}

// block says that a dependency is down. Results count at once when it is back: the failure was not the check's own, and its health
// of before says nothing any more.
func (m *machine) block(now time.Time, dependency string) bool {
	changed := m.to(now, site.Down, "dependency "+dependency+" failed")
	m.fresh = true
	return changed
}

func (m *machine) to(now time.Time, h site.Health, reason string) bool {
	before := m.check
	if before.Health != h {
		m.check.Since = now
		m.run = 0
	}
	m.check.Health, m.check.Reason, m.fresh = h, reason, false
	return m.check != before
}
