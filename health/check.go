// Package health asks, again and again, whether what targets need works: it reads a file over TFTP, gets a page over HTTP, logs in to a
// streamer and reads a block, as a target does. The Runner turns answers into up and down; what follows from that is the caller's.
package health

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// Defaults of a Check.
const (
	DefaultInterval = time.Second
	DefaultTimeout  = time.Second
	DefaultRise     = 2
	DefaultFall     = 2
)

// Check is something to ask about. Zero fields mean the defaults.
type Check struct {
	Name string
	// Revision says what the functions below were made of, an address, say. A check that Set finds again by Name and Revision goes on
	// undisturbed; with another Revision it starts again, and keeps its health until its first result.
	Revision string
	// DependsOn names checks without which this one cannot be up. While one of them is down this one is down too, with
	// that reason, and is not probed.
	DependsOn []string
	Interval  time.Duration // from one probe to the next
	Timeout   time.Duration // of a probe's context
	Rise      int           // successes in a row until up; the first result of all counts at once
	Fall      int           // failures in a row until down; the first result of all counts at once
	// Probe returns why the thing does not work. It must return soon after ctx ends. There are never two at a time.
	Probe func(ctx context.Context) error
	// Watch, if there is one, runs between a probe that succeeded and the next. It returns nil when ctx ends or when there is nothing to
	// watch, and an error as soon as it sees the thing die. Then the probe follows at once, and if it fails too the check is down
	// whatever Fall says: two signs of death are enough.
	Watch func(ctx context.Context) error
	// Close, if there is one, is called when the check is no longer wanted and no probe of it runs.
	Close func()
}

func (c Check) withDefaults() Check {
	if c.Interval == 0 {
		c.Interval = DefaultInterval
	}
	if c.Timeout == 0 {
		c.Timeout = DefaultTimeout
	}
	if c.Rise == 0 {
		c.Rise = DefaultRise
	}
	if c.Fall == 0 {
		c.Fall = DefaultFall
	}
	return c
}

// Validate returns an error that says what is wrong with the check by itself.
func (c Check) Validate() error {
	switch {
	case c.Name == "":
		return fmt.Errorf("a check has no name")
	case c.Probe == nil:
		return fmt.Errorf("check %s: no probe", c.Name)
	case c.Interval < 0 || c.Timeout < 0 || c.Rise < 0 || c.Fall < 0:
		return fmt.Errorf("check %s: interval %v, timeout %v, rise %d, fall %d: use nothing below zero", c.Name, c.Interval, c.Timeout, c.Rise, c.Fall)
	}
	return nil
}

// sorted returns the checks so that each stands behind those that it depends on.
func sorted(checks []Check) ([]Check, error) {
	byName := make(map[string]Check, len(checks))
	for _, c := range checks {
		if err := c.Validate(); err != nil {
			return nil, err
		}
		if _, twice := byName[c.Name]; twice {
			return nil, fmt.Errorf("check %s: there are two of that name", c.Name)
		}
		byName[c.Name] = c.withDefaults()
	}
	var list []Check
	var path []string
	done := make(map[string]bool)
	var visit func(name, from string) error
	visit = func(name, from string) error {
		c, ok := byName[name]
		switch {
		case !ok:
			return fmt.Errorf("check %s depends on %s, which does not exist", from, name)
		case done[name]:
			return nil
		case slices.Contains(path, name):
			return fmt.Errorf("check %s depends on itself: %v", name, append(path, name))
		}
		path = append(path, name)
		for _, d := range c.DependsOn {
			if err := visit(d, name); err != nil {
				return err
			}
		}
		path = path[:len(path)-1]
		done[name] = true
		list = append(list, c)
		return nil
	}
	for _, c := range checks {
		if err := visit(c.Name, ""); err != nil {
			return nil, err
		}
	}
	return list, nil
}
