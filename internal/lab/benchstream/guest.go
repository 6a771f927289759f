package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"everboot/appliance/web"
	"everboot/internal/lab"
	"everboot/internal/lab/fleet"
	"everboot/internal/lab/guest/vdisk"
)

const (
	bootTime  = 4 * time.Minute // of an emulated machine; it takes half of one
	guestWait = 3 * time.Second // after each failure; what comes later is of something else
	bootRead  = 4 << 20         // bytes that the boot loader has read when its streamer is killed
)

// machine is a booted QEMU guest, and the site that it booted from.
type machine struct {
	*fleet.Fleet
	target *fleet.Target
}

// failure is something that is taken away, and how often.
type failure struct {
	what  string
	goal  time.Duration
	times int
	fail  func(owner, serving string) error
	mend  func(owner, serving string) error
}

// guest boots a Debian in QEMU whose streamer dies while its boot loader reads, and shows what a reader in it sees of every failure.
func guest(binary, dir string) error {
	m, end, err := newMachine(binary, dir, vdisk.Full, fleet.Options{Loader: true})
	if err != nil {
		return err
	}
	defer end()
	if err := m.bootKilled(); err != nil {
		return err
	}
	if err := m.target.AwaitMultiuser(bootTime); err != nil {
		return err
	}
	return m.measureAll(m.failures())
}

// redirected boots a machine whose stream is forwarded, has the appliances redirect from then on, and shows what the machine sees of it.
func redirected(binary, dir string) error {
	m, end, err := newMachine(binary, dir, vdisk.Minimal, fleet.Options{Floating: true})
	if err != nil {
		return err
	}
	defer end()
	if m.target, err = m.PowerOn(1, lab.BIOS); err != nil {
		return err
	}
	if err := m.target.AwaitReading(bootTime); err != nil {
		return err
	}
	for _, name := range []string{"a", "b"} {
		f, err := os.OpenFile(m.Config(name), os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteString("\n[director]\nredirect = true\n")
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	restart := failure{"appliances restarted with director.redirect", 0, 1, func(owner, _ string) error {
		for _, name := range []string{fleet.Other(owner), owner} {
			if err := m.Process(name).Stop(patience); err != nil {
				return err
			}
			m.Start(name)
		}
		return nil
	}, nil}
	kill := func(_, serving string) error { m.Host[serving].KillAll(); return nil }
	start := func(_, serving string) error { m.Start(serving); return nil }
	silence := func(on bool) func(_, serving string) error {
		return func(_, serving string) error { m.Host[serving].Cables()[0].Silence(on); return nil }
	}
	return m.measureAll([]failure{
		restart,
		{"redirected, streamer killed", 100 * time.Millisecond, 5, kill, start},
		{"redirected, streamer's host silent", time.Second, 5, silence(true), silence(false)},
		{"redirected, planned drain", 100 * time.Millisecond, 5,
			func(owner, serving string) error { return m.ask(owner, "streamer", "drain", serving) },
			func(owner, serving string) error { return m.ask(owner, "streamer", "resume", serving) }},
		{"redirected, appliance: guard and worker killed", 0, 1, func(owner, _ string) error { m.Host[owner].KillAll(); return nil },
			func(owner, _ string) error { m.Start(owner); return nil }},
	})
}

// newMachine lays the network, and starts two appliances and two streamers; end ends them.
func newMachine(binary, dir string, kind func(context.Context, string, func(string)) (string, error), o fleet.Options) (m *machine, end func() error, err error) {
	disk, err := kind(context.Background(), "build", func(string) {})
	if err == nil {
		disk, err = filepath.Abs(disk)
	}
	if err != nil {
		return nil, nil, err
	}
	l, err := lab.Open(lab.Options{Dir: dir})
	if err != nil {
		return nil, nil, err
	}
	o.Binary, o.VDisk = binary, disk
	f, err := fleet.New(l, o)
	if err == nil {
		m = &machine{Fleet: f}
		for _, node := range []string{"a", "b", "s1", "s2"} {
			f.Start(node)
		}
		err = m.whole()
	}
	if err != nil {
		l.Close()
		return nil, nil, err
	}
	return m, l.Close, nil
}

// whole waits until both appliances have both streamers, and would let the target boot.
func (m *machine) whole() error {
	for _, name := range []string{"a", "b"} {
		if err := m.AwaitStreamers(name, 2, patience); err != nil {
			return err
		}
		if err := m.AwaitBoots(name, 1, patience); err != nil {
			return err
		}
	}
	return lab.Eventually(patience, "one appliance has the address", func() error { _, err := m.Owner(); return err })
}

// session returns who owns the address, and the last session of the target that is known there.
func (m *machine) session() (owner string, s web.DeviceStatus, err error) {
	if owner, err = m.Owner(); err != nil {
		return "", s, err
	}
	out, err := m.Command(owner, "status", "--device", fleet.MAC(1), "--json")
	if err != nil {
		return "", s, fmt.Errorf("%w: %s", err, out)
	}
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		return "", s, err
	}
	if s.Last == nil || len(s.Sessions) == 0 && !s.Last.Redirected {
		return "", s, fmt.Errorf("%s forwards nothing", owner)
	}
	return owner, s, nil
}

// bootKilled powers the machine on, kills its streamer while GRUB reads by way of the BIOS, and waits for the reads of what it booted.
func (m *machine) bootKilled() (err error) {
	start := time.Now()
	if m.target, err = m.PowerOn(1, lab.BIOS); err != nil {
		return err
	}
	var owner string
	var read uint64
	var s web.DeviceStatus
	err = lab.Eventually(bootTime, "the boot loader reads", func() (err error) {
		if owner, s, err = m.session(); err != nil {
			return err
		}
		if read = s.Sessions[len(s.Sessions)-1].ToTarget; read < bootRead {
			return fmt.Errorf("it has read %d bytes", read)
		}
		return nil
	})
	if err != nil {
		return err
	}
	m.Host[s.Last.Streamer].KillAll()
	if err := m.target.AwaitReading(bootTime); err != nil {
		return err
	}
	report, _ := m.target.Last()
	row("streamer killed while the boot loader reads (BIOS)", "after %.1f MB of %s; the boot went on, first read %.1f s after power-on, %d I/O errors",
		float64(read)/1e6, s.Last.Streamer, time.Since(start).Seconds(), report.Errors)
	if out, err := m.Command(owner, "status", "--device", "t1"); err == nil {
		fmt.Println(out)
	}
	m.Start(s.Last.Streamer)
	return m.whole()
}

func (m *machine) failures() []failure {
	kill := func(_, serving string) error { m.Host[serving].KillAll(); return nil }
	start := func(_, serving string) error { m.Start(serving); return nil }
	silence := func(name string, on bool) error { m.Host[name].Cables()[0].Silence(on); return nil }
	return []failure{
		{"streamer killed", 100 * time.Millisecond, 5, kill, start},
		{"streamer's host silent", 700 * time.Millisecond, 3,
			func(_, serving string) error { return silence(serving, true) }, func(_, serving string) error { return silence(serving, false) }},
		{"planned drain", 100 * time.Millisecond, 5,
			func(_, serving string) error { return m.ask("a", "streamer", "drain", serving) },
			func(_, serving string) error { return m.ask("a", "streamer", "resume", serving) }},
		{"streamer's agent stopped", 100 * time.Millisecond, 2,
			func(_, serving string) error { return m.Process(serving).Stop(30 * time.Second) }, start},
		{"appliance's worker killed", 300 * time.Millisecond, 5, func(owner, _ string) error { return m.KillWorker(owner) }, nil},
		{"appliance's host silent", 700 * time.Millisecond, 3,
			func(owner, _ string) error { return silence(owner, true) }, func(owner, _ string) error { return silence(owner, false) }},
		{"appliance: guard and worker killed", 0, 2,
			func(owner, _ string) error { m.Host[owner].KillAll(); return nil }, func(owner, _ string) error { m.Start(owner); return nil }},
	}
}

// ask runs a command at an appliance.
func (m *machine) ask(appliance string, args ...string) error {
	out, err := m.Command(appliance, args...)
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

func (m *machine) measureAll(list []failure) error {
	for _, x := range list {
		if err := m.measure(x); err != nil {
			return fmt.Errorf("%s: %w", x.what, err)
		}
	}
	return nil
}

// measure lets a failure happen some times, mends it each time, and prints what the guest saw.
func (m *machine) measure(x failure) error {
	var stalls []time.Duration
	for range x.times {
		var owner string
		var s web.DeviceStatus
		if err := lab.Eventually(patience, "the target streams", func() (err error) { owner, s, err = m.session(); return err }); err != nil {
			return err
		}
		var failed error
		stall, err := m.target.Watch(func() { failed = x.fail(owner, s.Last.Streamer) }, guestWait)
		switch {
		case failed != nil:
			return failed
		case err != nil:
			return err
		case stall.Errors+stall.Mismatches > 0:
			return fmt.Errorf("%d I/O errors, %d reads with wrong bytes", stall.Errors, stall.Mismatches)
		}
		stalls = append(stalls, stall.Longest)
		if x.mend != nil {
			if err := x.mend(owner, s.Last.Streamer); err != nil {
				return err
			}
		}
		if err := m.whole(); err != nil {
			return err
		}
	}
	slices.Sort(stalls)
	goal := ""
	if x.goal > 0 {
		goal = fmt.Sprintf("; goal %v", x.goal)
	}
	var all []string
	for _, s := range stalls {
		all = append(all, s.Round(time.Millisecond).String())
	}
	row("QEMU guest, "+x.what, "longest read %v (median of %d: %s%s), no I/O error, no wrong byte", stalls[len(stalls)/2].Round(time.Millisecond), x.times, strings.Join(all, " "), goal)
	return nil
}
