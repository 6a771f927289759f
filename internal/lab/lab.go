// Package lab builds networks of the kind that everboot serves, on one machine and out of nothing but the kernel: hosts are
// network namespaces, cables are veth pairs, switches are bridges. Tests and the demo use it.
//
//	l, err := lab.Open(lab.Options{Dir: dir})
//	defer l.Close()
//	lan := l.Segment("lan")
//	a, b := l.Host("a"), l.Host("b")
//	cable := a.Join(lan, "198.18.0.2/24")
//	b.Join(lan, "198.18.0.3/24")
//	p := b.Start("everboot", "everboot", "appliance", "--config", "b.toml")
//	cable.Cut()
//
// # Who may use it
//
// The lab needs CAP_NET_ADMIN and CAP_SYS_ADMIN in its user namespace. Root has them. Anybody else calls [TestMain] (tests) or
// [Main] (programs), which start the program again as root of a user namespace of its own. A test gets its lab from [ForTest],
// which skips unless EVERBOOT_LAB=1 is set, and then fails rather than skips if something is missing. [Need] and [NeedFile] name
// programs and files that are missing. With EVERBOOT_LAB_DIR=DIR the files of each test stay in DIR/<test>.
//
// # Death
//
// There are several ways to die, and they look different from outside:
//
//   - [Process.Kill] kills one process. The host's kernel closes its sockets and says so to the peers.
//   - [Host.KillAll] kills all processes of a host, daemons too. Addresses stay, and the kernel answers for them.
//   - [Host.Die] is the loss of power: cables first, then all processes. Nobody hears a farewell. [Host.Revive] brings the host
//     back with the addresses that it was made with.
//   - [Cable.Cut] takes the carrier from both ends; [Cable.Silence] drops all frames and leaves the carrier; [Cable.Lose] drops
//     some. The processes live on.
//   - [Machine.Stop] is the loss of power for an emulated machine, [Machine.Reset] its reset button.
//
// After a death by Die or Silence, a peer's kernel may have a neighbour entry that failed; it asks again once a second.
//
// # Machines
//
// A [Machine] is QEMU without hardware virtualisation: SeaBIOS with the network card's iPXE ROM of 2019, or OVMF with its own PXE.
// The ROM is iPXE by itself and says so in its DHCP user class: it takes a script at once. On an idle machine a script runs
// 6 s after power-on over BIOS, 15 s over UEFI, given that router advertisements are on the segment ([RouterAdvertiser]); without
// them iPXE waits 13 s longer.
//
// # Frames
//
// Offloads are off unless Options.Offload is set, so frames are as on a wire: no longer than the MTU, with good checksums.
// [Segment.Capture] records them, [Segment.Decoded] lets tshark show them.
//
// # What it leaves behind
//
// Nothing but files in Options.Dir: <host>-<process>.log, <machine>-console.log, <capture>.pcap. Namespaces have no names: they
// live as long as a descriptor or a process of the lab does ([Host.Enter] tells how to look into one). Close kills every
// process that lives in one of them, also one that nobody started through the lab. If the program dies without a Close, a
// small watchdog does the same.
//
// # Errors
//
// Building blocks (Segment, Host, Join, Start and the like) have no error to return, because nothing sensible can be done about
// one in the middle of a test. They call Options.Fail; the default panics, and ForTest ends the test.
package lab

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"
)

// Options are the settings of a lab.
type Options struct {
	// Dir takes logs, captures and sockets. It is made if it is missing. Keep the path under 80 bytes: sockets live in it.
	Dir string
	// Log takes what the lab does; nil means silence.
	Log *slog.Logger
	// Fail is called when the lab itself cannot go on, and must not return. Nil means panic.
	Fail func(error)
	// Offload leaves segmentation and checksum offload on. Frames are then up to 64 KiB long and carry unfinished
	// checksums, unlike frames on a wire, and throughput is some times higher.
	Offload bool
}

// Lab is a set of hosts and segments. Its methods may be called by several goroutines.
type Lab struct {
	options Options
	log     *slog.Logger

	mu        sync.Mutex
	spaces    []*space
	segments  []*Segment
	hosts     []*Host
	machines  []*Machine
	processes []*Process
	watchdog  *watchdog
	closed    bool
}

// Open returns an empty lab.
func Open(o Options) (*Lab, error) {
	if o.Dir == "" {
		return nil, errors.New("opening a lab: Options.Dir is empty")
	}
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("opening a lab: %w", err)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Fail == nil {
		o.Fail = func(err error) { panic(err) }
	}
	l := &Lab{options: o, log: o.Log}
	s, err := newSpace()
	if err != nil {
		return nil, fmt.Errorf("opening a lab: %w (run it as root, or call lab.TestMain, or `unshare -Urnm`)", err)
	}
	s.close()
	return l, nil
}

// Dir is the folder that takes logs, captures and sockets.
func (l *Lab) Dir() string { return l.options.Dir }

// Close kills every process of the lab and every process that lives in one of its namespaces, and removes the namespaces with
// all that is in them. Files in Dir stay. A second call does nothing.
func (l *Lab) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	spaces, processes, machines := slices.Clone(l.spaces), slices.Clone(l.processes), slices.Clone(l.machines)
	segments, dog := slices.Clone(l.segments), l.watchdog
	l.mu.Unlock()

	err := killAll(spaces)
	for _, p := range processes {
		p.Kill()
	}
	for _, m := range machines {
		m.close()
	}
	for _, s := range segments {
		s.close()
	}
	dog.dismiss()
	for _, s := range spaces {
		s.close()
	}
	if err != nil {
		return fmt.Errorf("closing the lab: %w", err)
	}
	return nil
}

// fail ends what the caller does: it never returns.
func (l *Lab) fail(err error) {
	l.options.Fail(err)
	panic(err)
}

// space makes a namespace that the lab keeps until Close.
func (l *Lab) space(what string) *space {
	s, err := newSpace()
	if err != nil {
		l.fail(fmt.Errorf("making %s: %w", what, err))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		s.close()
		l.fail(fmt.Errorf("making %s: the lab is closed", what))
	}
	l.spaces = append(l.spaces, s)
	next, err := startWatchdog(l.spaces)
	if err != nil {
		l.fail(fmt.Errorf("making %s: %w", what, err))
	}
	l.watchdog.dismiss()
	l.watchdog = next
	return s
}

// Eventually calls f until it returns true or nil, and gives up after the timeout with an error that says what did not happen
// and, if f returned an error, its last one. The two forms of f are func() bool and func() error.
func Eventually[F func() bool | func() error](timeout time.Duration, what string, f F) error {
	const period = 5 * time.Millisecond // short against every time that is measured here, long against a poll
	try := func() error {
		switch f := any(f).(type) {
		case func() error:
			return f()
		case func() bool:
			if f() {
				return nil
			}
		}
		return errNotYet
	}
	deadline := time.Now().Add(timeout)
	for {
		err := try()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s: not within %v: %w", what, timeout, err)
		}
		time.Sleep(period)
	}
}

var errNotYet = errors.New("not yet")
