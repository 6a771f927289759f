package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Host is a machine's worth of network: a namespace in which processes run. It shares files and process numbers with all others.
type Host struct {
	lab    *Lab
	name   string
	space  *space
	cables []*Cable // guarded by lab.mu
}

// Host makes a host with nothing but its loopback interface.
func (l *Lab) Host(name string) *Host {
	h := &Host{lab: l, name: name, space: l.space("host " + name)}
	err := h.space.sysctl(map[string]string{
		// An IPv6 address is used at once: detection of duplicates would cost a second a host.
		"ipv6/conf/all/accept_dad":     "0",
		"ipv6/conf/default/accept_dad": "0",
	})
	if err == nil {
		err = h.space.do(func() error { return configure("lo", nil) })
	}
	if err != nil {
		l.fail(fmt.Errorf("making host %s: %w", name, err))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hosts = append(l.hosts, h)
	return h
}

// Name is the name that the host was made with.
func (h *Host) Name() string { return h.name }

// Enter is the command line that opens a shell in the host, for as long as this program runs.
func (h *Host) Enter() string {
	return fmt.Sprintf("nsenter --net=/proc/%d/fd/%d", os.Getpid(), h.space.file.Fd())
}

// Do runs f on an operating system thread inside the host's namespace. Sockets that f opens belong to the host also afterwards.
// Other goroutines that f starts are not in the namespace.
func (h *Host) Do(f func() error) error { return h.space.do(f) }

// Sysctl sets a network setting of the host, such as "ipv4/ip_forward".
func (h *Host) Sysctl(key, value string) {
	if err := h.space.sysctl(map[string]string{key: value}); err != nil {
		h.lab.fail(fmt.Errorf("host %s: %w", h.name, err))
	}
}

// Run runs a program to its end and returns what it printed. If the context ends before, the program is killed.
func (h *Host) Run(ctx context.Context, argv ...string) (string, error) {
	return h.lab.run(ctx, h.space, h.name, argv)
}

func (l *Lab) run(ctx context.Context, space *space, where string, argv []string) (string, error) {
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = childAttr()
	cmd.WaitDelay = time.Second // a daemon that it leaves behind may hold the pipe for ever
	err := space.keep(cmd.Start)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return out.String(), fmt.Errorf("running %s on %s: %w: %s", argv[0], where, err, lastLines(out.String(), 3))
	}
	return out.String(), nil
}

// childAttr is how every process of the lab starts: it dies with the thread that forked it, and a Ctrl-C in the terminal is
// left to the program that owns the lab.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}

// Die is the death of the host by power loss: its cables are cut, so that no farewell leaves it, and everything that lives in
// its namespace is killed. Addresses stay on its interfaces, unheard. Revive brings it back.
func (h *Host) Die() {
	for _, c := range h.Cables() {
		c.Cut()
	}
	h.KillAll()
}

// KillAll sends SIGKILL to everything that lives in the host's namespace, also what was not started through Start, and
// returns when all is gone. The host's kernel lives on: it closes the connections, and answers for all addresses still there.
func (h *Host) KillAll() {
	if err := killAll([]*space{h.space}); err != nil {
		h.lab.fail(fmt.Errorf("killing everything on %s: %w", h.name, err))
	}
	for _, p := range h.lab.Processes() {
		if p.space == h.space {
			<-p.done
		}
	}
}

// PIDs are the processes that live in the host's namespace, whoever started them.
func (h *Host) PIDs() []int {
	pids, err := residents([]*space{h.space})
	if err != nil {
		h.lab.fail(fmt.Errorf("looking for processes on %s: %w", h.name, err))
	}
	return pids
}

// Revive mends the cables of a host that died and takes away every address that Join did not give it. Nothing is started.
func (h *Host) Revive() {
	for _, c := range h.Cables() {
		if err := h.space.do(func() error { return restore(c) }); err != nil {
			h.lab.fail(fmt.Errorf("reviving %s: %w", h.name, err))
		}
		c.Mend()
	}
}

// Cables are the cables of the host in the order of their interfaces.
func (h *Host) Cables() []*Cable {
	h.lab.mu.Lock()
	defer h.lab.mu.Unlock()
	return append([]*Cable(nil), h.cables...)
}

// Dial connects from the host. The address must be an IP address and a port: there is no name service in the lab.
func (h *Host) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	if _, err := netip.ParseAddrPort(address); err != nil && !strings.HasPrefix(network, "unix") {
		return nil, fmt.Errorf("dialling %s from %s: %w", address, h.name, err)
	}
	var conn net.Conn
	err := h.space.do(func() (err error) {
		conn, err = new(net.Dialer).DialContext(ctx, network, address)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("dialling from %s: %w", h.name, err)
	}
	return conn, nil
}

// Listen opens a listening socket of the host.
func (h *Host) Listen(network, address string) (net.Listener, error) {
	var listener net.Listener
	err := h.space.do(func() (err error) {
		listener, err = new(net.ListenConfig).Listen(context.Background(), network, address)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listening on %s: %w", h.name, err)
	}
	return listener, nil
}

// ListenPacket opens a datagram socket of the host.
func (h *Host) ListenPacket(network, address string) (net.PacketConn, error) {
	var conn net.PacketConn
	err := h.space.do(func() (err error) {
		conn, err = new(net.ListenConfig).ListenPacket(context.Background(), network, address)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listening on %s: %w", h.name, err)
	}
	return conn, nil
}

// HTTP is a client on the host. It keeps no connection open between requests, and follows no proxy.
func (h *Host) HTTP() *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: h.Dial, DisableKeepAlives: true}}
}

// Addresses lists the addresses that eth0 has now, link-local ones too.
func (h *Host) Addresses() []netip.Prefix { return h.AddressesOf("eth0") }

// AddressesOf lists the addresses that an interface has now, link-local ones too.
func (h *Host) AddressesOf(iface string) []netip.Prefix {
	var prefixes []netip.Prefix
	err := h.space.do(func() (err error) {
		prefixes, err = addresses(iface)
		return err
	})
	if err != nil {
		h.lab.fail(fmt.Errorf("listing the addresses of %s on %s: %w", iface, h.name, err))
	}
	return prefixes
}

// Has tells whether eth0 has the address now, with whatever prefix length.
func (h *Host) Has(address string) bool {
	for _, p := range h.Addresses() {
		if p.Addr().String() == address {
			return true
		}
	}
	return false
}

func addresses(iface string) ([]netip.Prefix, error) {
	link, err := netlink.LinkByName(iface)
	if err != nil {
		return nil, err
	}
	list, err := netlink.AddrList(link, netlink.FAMILY_ALL)
	for range 100 { // of a table that changes all the time, the last list must do
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
		list, err = netlink.AddrList(link, netlink.FAMILY_ALL)
	}
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, err
	}
	var prefixes []netip.Prefix
	for _, a := range list {
		ip, _ := netip.AddrFromSlice(a.IP)
		bits, _ := a.Mask.Size()
		prefixes = append(prefixes, netip.PrefixFrom(ip.Unmap(), bits))
	}
	return prefixes, nil
}

// restore gives an interface the addresses that Join gave it, and no other but the kernel's link-local one.
func restore(c *Cable) error {
	link, err := netlink.LinkByName(c.iface)
	if err != nil {
		return fmt.Errorf("finding %s: %w", c.iface, err)
	}
	list, err := netlink.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("listing the addresses of %s: %w", c.iface, err)
	}
	for _, a := range list {
		if a.IP.IsLinkLocalUnicast() && a.IP.To4() == nil {
			continue
		}
		// With its primary address the kernel may have removed this one already.
		if err := netlink.AddrDel(link, &a); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fmt.Errorf("removing %s: %w", a.IPNet, err)
		}
	}
	return configure(c.iface, c.prefixes)
}
