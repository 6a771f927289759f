// Package tftpload is many TFTP clients in one thread, cheap enough to measure a server by, with the timers and rules of firmware. It is for
// tests and benchmarks in the lab.
package tftpload

import (
	"fmt"
	"net/netip"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Firmware is how a client behaves when nothing comes.
type Firmware uint8

// The kinds of firmware.
const (
	// IPXE waits 0.25 s, then twice that, and so on; it gives up when the next wait would be longer than 10 s, after 15.75 s of silence
	// (src/net/retry.c). It does not look at ICMP.
	IPXE Firmware = iota
	// EDK2 sends what it sent last six times, 4 s apart (MdeModulePkg, Mtftp4Support.c), and gives up when its UDP layer tells of an
	// ICMP error.
	EDK2
	// Hpa is tftp-hpa: 1 s, twice that, and so on, 25 s in all.
	Hpa
)

// String names the firmware.
func (f Firmware) String() string { return [...]string{"iPXE", "EDK2", "tftp-hpa"}[f] }

// wait returns how long a client waits after its n-th try of the same packet, from 0 on; 0: it gives up.
func (f Firmware) wait(n int) time.Duration {
	switch {
	case f == IPXE && n < 6:
		return 250 * time.Millisecond << n
	case f == EDK2 && n < 6:
		return 4 * time.Second
	case f == Hpa && n < 5:
		return time.Second << min(n, 3)
	}
	return 0
}

// Options are what the clients do.
type Options struct {
	Server   netip.AddrPort
	From     []netip.Addr // addresses of this host that the clients take in turn
	Clients  int          // at once
	Each     int          // files that each of them reads, one after another; 0: 1
	File     string
	Want     []byte // what is in it
	Block    int    // asked for; 0: not
	Window   int    // asked for; 0: not
	Firmware func(client int) Firmware
	Timeout  time.Duration // for all of it
	// Progress, if it is not nil, gets how many bytes have come in all, about every 10 ms.
	Progress func(bytes int64)
}

// Result is what became of it.
type Result struct {
	Complete int   // files that were read, every byte as wanted
	Bytes    int64 // of content, without what came twice
	Elapsed  time.Duration
	Failed   int
	Why      map[string]int // failures by text
	// Silence is the longest time in which one client heard nothing, in mid-file.
	Silence time.Duration
	Resent  int // packets that clients sent again because nothing came
	Refused int // ICMP errors
}

// String is the result on one line.
func (r Result) String() string {
	s := fmt.Sprintf("%d complete, %d failed, %.1f MB/s in %.2f s, longest silence %v, %d sent again", r.Complete, r.Failed,
		float64(r.Bytes)/1e6/r.Elapsed.Seconds(), r.Elapsed.Seconds(), r.Silence.Round(time.Millisecond), r.Resent)
	for why, n := range r.Why {
		s += fmt.Sprintf("; %d × %s", n, why)
	}
	return s
}

// load is a run of clients.
type load struct {
	o       Options
	epoll   int
	clients []*client
	running int
	result  Result
	now     time.Time
	packet  []byte
}

// waitMillis is how long the clients wait for packets before they look at their timers.
const waitMillis = 10

// Run reads with all clients, in the network namespace of the calling thread: use [lab.Host.Do].
func Run(o Options) (Result, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return Result{}, err
	}
	defer unix.Close(epoll)
	l := &load{o: o, epoll: epoll, packet: make([]byte, 65536), result: Result{Why: make(map[string]int)}}
	l.now = time.Now()
	start := l.now
	for n := range o.Clients {
		c := &client{load: l, number: n, left: max(o.Each, 1)}
		if o.Firmware != nil {
			c.firmware = o.Firmware(n)
		}
		l.clients = append(l.clients, c)
		if err := c.begin(); err != nil {
			return Result{}, err
		}
	}
	err = l.loop(start.Add(o.Timeout))
	l.result.Elapsed = time.Since(start)
	for _, c := range l.clients {
		c.close()
	}
	return l.result, err
}

func (l *load) loop(deadline time.Time) error {
	events := make([]unix.EpollEvent, 256)
	look := l.now
	for l.running > 0 {
		// Raw: the Go scheduler takes a thread that waits in the kernel for idle after 20 µs, and what it then does on the server's processor costs
		// more than a block.
		n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(l.epoll), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), waitMillis, 0, 0)
		if errno != 0 && errno != unix.EINTR {
			return errno
		}
		l.now = time.Now()
		if errno != 0 {
			n = 0
		}
		for i := range int(n) {
			l.clients[events[i].Fd].readable()
		}
		if l.now.Sub(look) < 10*time.Millisecond {
			continue
		}
		look = l.now
		for _, c := range l.clients {
			c.tick()
		}
		if l.o.Progress != nil {
			l.o.Progress(l.result.Bytes)
		}
		if l.now.After(deadline) {
			l.result.Why["the run's time was over"] += l.running
			l.result.Failed += l.running
			return nil
		}
	}
	return nil
}
