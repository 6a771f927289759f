package dhcp

import (
	"bufio"
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/vishvananda/netlink"
)

// checkHost returns what keeps this host from serving.
func checkHost(cfg Config) []error {
	if cfg.Interface == "" {
		return nil
	}
	link, err := net.InterfaceByName(cfg.Interface)
	if err != nil {
		return []error{noInterface(cfg.Interface)}
	}
	var errs []error
	if link.Flags&net.FlagUp == 0 {
		errs = append(errs, interfaceDown(link.Name))
	}
	addrs, err := link.Addrs()
	if err != nil {
		errs = append(errs, fmt.Errorf("dhcp: reading the addresses of %s: %w", link.Name, err))
	} else if err := hasAddress(cfg, link.Name, addrs); err != nil {
		errs = append(errs, err)
	}
	if err := portTaken(cfg); err != nil {
		errs = append(errs, err)
	}
	return errs
}

func hasAddress(cfg Config, link string, addrs []net.Addr) error {
	var have []string
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err != nil || !p.Addr().Is4() {
			continue
		}
		if p.Addr() == cfg.ServerAddress {
			return nil
		}
		have = append(have, p.String())
	}
	if len(have) == 0 {
		return fmt.Errorf("dhcp: interface %s has no IPv4 address: give it %s", link, cfg.ServerAddress)
	}
	return fmt.Errorf("dhcp: interface %s does not have the server address %s; it has %s", link, cfg.ServerAddress, strings.Join(have, ", "))
}

func interfaceDown(name string) error {
	return fmt.Errorf("dhcp: interface %s is down: bring it up (ip link set %s up)", name, name)
}

// noInterface returns an error that names the interfaces that there are.
func noInterface(name string) error {
	var have []string
	links, _ := net.Interfaces() // without the list the error still says what is wrong
	for _, l := range links {
		if l.Flags&net.FlagLoopback == 0 {
			have = append(have, l.Name)
		}
	}
	return fmt.Errorf("dhcp: there is no interface %s: use one of: %s", name, cmp.Or(strings.Join(have, ", "), "(there is none)"))
}

// udpTables list the UDP sockets of the calling thread's network namespace.
var udpTables = []string{"/proc/thread-self/net/udp", "/proc/thread-self/net/udp6"}

// portTaken returns an error that names the process that listens on port 67 already. bind does not tell: coredhcp shares the port
// (SO_REUSEPORT), and then both servers answer, or each gets half of the messages.
func portTaken(cfg Config) error {
	for _, table := range udpTables {
		b, err := os.ReadFile(table)
		if err != nil {
			if errors.Is(err, os.ErrNotExist) {
				continue // no IPv6
			}
			return fmt.Errorf("dhcp: looking for other servers on port %d: %w", dhcpv4.ServerPort, err)
		}
		for _, inode := range listeners(string(b), dhcpv4.ServerPort, cfg.ServerAddress) {
			if link := boundTo(inode); link != "" && link != cfg.Interface {
				continue
			}
			return fmt.Errorf("dhcp: UDP port %d is taken by %s: stop it, or set mode = \"off\" under [dhcp]", dhcpv4.ServerPort, processOf(inode))
		}
	}
	return nil
}

// listeners returns the inodes of the sockets in a /proc/net/udp table that get what is sent to the port, at the address or by broadcast.
func listeners(table string, port int, self netip.Addr) []string {
	var inodes []string
	lines := bufio.NewScanner(strings.NewReader(table))
	for lines.Scan() {
		// sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode …
		f := strings.Fields(lines.Text())
		if len(f) < 10 {
			continue
		}
		host, p, ok := strings.Cut(f[1], ":")
		if !ok || p != fmt.Sprintf("%04X", port) {
			continue
		}
		if a, ok := procAddr(host); ok && (a.IsUnspecified() || a == self || a == limitedBroadcast) {
			inodes = append(inodes, f[9])
		}
	}
	return inodes
}

// procAddr reads an address as the kernel prints it: 32-bit words in hexadecimal, each in the byte order of the machine. All that we
// compare with reads the same both ways, or is little-endian on every machine that we build for.
func procAddr(s string) (netip.Addr, bool) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b)%4 != 0 {
		return netip.Addr{}, false
	}
	for i := 0; i < len(b); i += 4 {
		slices.Reverse(b[i : i+4])
	}
	a, ok := netip.AddrFromSlice(b)
	return a.Unmap(), ok
}

// boundTo returns the interface that a socket is bound to, if the kernel tells: a server on another interface does no harm.
func boundTo(inode string) string {
	socks, err := netlink.SocketDiagUDP(netlink.FAMILY_V4)
	if err != nil {
		return "" // not every kernel has udp_diag
	}
	for _, s := range socks {
		if fmt.Sprint(s.INode) != inode || s.ID.Interface == 0 {
			continue
		}
		if link, err := net.InterfaceByIndex(int(s.ID.Interface)); err == nil {
			return link.Name
		}
	}
	return ""
}

// processOf returns who has a socket open, as "dnsmasq (pid 123)".
func processOf(inode string) string {
	want := "socket:[" + inode + "]"
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/*") // the pattern is right
	for _, fd := range fds {
		if got, err := os.Readlink(fd); err != nil || got != want {
			continue
		}
		dir := filepath.Dir(filepath.Dir(fd))
		name, err := os.ReadFile(filepath.Join(dir, "comm"))
		if err != nil {
			continue
		}
		return fmt.Sprintf("%s (pid %s)", strings.TrimSpace(string(name)), filepath.Base(dir))
	}
	return "another process (run as root to see which)"
}
