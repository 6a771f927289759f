package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"everboot/internal/lab"
)

// peer is a program that keeps a floating address.
type peer struct {
	name string
	starter
}

type starter interface {
	// start runs it on a host with 10 ms advertisements.
	start(h *lab.Host, dir string, priority int) error
	// signal sends a signal to the process that does the work; all: to every process of it.
	signal(h *lab.Host, s syscall.Signal, all bool) error
	// stop tells it to stop in good order.
	stop(h *lab.Host) error
}

type keepalived struct{}

func (keepalived) start(h *lab.Host, _ string, priority int) error {
	lab.Keepalived(h, fmt.Sprintf(`vrrp_instance x {
  version 3
  nopreempt
  state BACKUP
  interface eth0
  virtual_router_id 51
  priority %d
  advert_int 0.01
  virtual_ipaddress { %s/24 }
}
`, priority, floating))
	return nil
}

// signal always reaches both processes: keepalived's parent starts a dead child again, which then has two owners for a moment only.
func (keepalived) signal(h *lab.Host, s syscall.Signal, _ bool) error { return signalAll(h, s) }

func (keepalived) stop(h *lab.Host) error { return signalAll(h, syscall.SIGTERM) }

type everboot struct {
	binary  string
	virtual bool // with a virtual MAC address
}

const everbootConf = `node = "%s"
interface = "eth0"
state = "%s"
[vip]
addresses = ["%s/24"]
priority = %d
advert_interval = "10ms"
virtual_mac = %t
[tftp]
enabled = false
[http]
enabled = false
[director]
enabled = false
`

func (e everboot) start(h *lab.Host, dir string, priority int) error {
	conf := filepath.Join(dir, h.Name()+".toml")
	text := fmt.Sprintf(everbootConf, h.Name(), filepath.Join(dir, "state-"+h.Name()), floating, priority, e.virtual)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return err
	}
	if e.virtual {
		h.Sysctl("ipv4/conf/all/arp_ignore", "1")
		h.Sysctl("ipv4/conf/all/arp_announce", "2")
		h.Sysctl("ipv4/conf/default/rp_filter", "2")
	}
	_, err := h.Start("everboot", e.binary, "appliance", "--config", conf).Expect("serving", 20*time.Second)
	return err
}

// signal reaches the worker alone, which is what answers; the guard is its parent.
func (everboot) signal(h *lab.Host, s syscall.Signal, all bool) error {
	if all {
		return signalAll(h, s)
	}
	for _, pid := range h.PIDs() {
		if line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil && strings.Contains(string(line), "--worker") {
			return syscall.Kill(pid, s)
		}
	}
	return fmt.Errorf("%s has no worker", h.Name())
}

func (everboot) stop(h *lab.Host) error {
	for _, pid := range h.PIDs() {
		if line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil && !strings.Contains(string(line), "--worker") {
			return syscall.Kill(pid, syscall.SIGTERM)
		}
	}
	return fmt.Errorf("%s has no guard", h.Name())
}

func signalAll(h *lab.Host, s syscall.Signal) error {
	for _, pid := range h.PIDs() {
		if err := syscall.Kill(pid, s); err != nil {
			return fmt.Errorf("signalling %d: %w", pid, err)
		}
	}
	return nil
}

// processorTime returns what the processes of a host have used so far.
func processorTime(h *lab.Host) (time.Duration, error) {
	const perTick = 10 * time.Millisecond // USER_HZ is 100 on every architecture that matters
	var total time.Duration
	for _, pid := range h.PIDs() {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return 0, err
		}
		fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
		for _, f := range fields[11:13] { // utime, stime (proc(5))
			n, err := strconv.Atoi(f)
			if err != nil {
				return 0, err
			}
			total += time.Duration(n) * perTick
		}
	}
	return total, nil
}
