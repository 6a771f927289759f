// Package ports tells who has a UDP or TCP port of this host, for errors that say what to stop.
package ports

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Socket is a UDP socket, or a TCP socket that listens.
type Socket struct {
	Local netip.AddrPort // IPv4 in IPv6 is unmapped
	Inode string         // its number in /proc
}

// Sockets lists the sockets of a network ("udp" or "tcp") and port in the calling thread's network namespace.
func Sockets(network string, port uint16) ([]Socket, error) {
	var all []Socket
	for _, table := range []string{network, network + "6"} {
		f, err := os.Open("/proc/thread-self/net/" + table)
		if errors.Is(err, os.ErrNotExist) {
			continue // no IPv6
		}
		if err != nil {
			return nil, fmt.Errorf("looking who has %s port %d: %w", network, port, err)
		}
		list := parse(f, network)
		f.Close()
		for _, s := range list {
			if s.Local.Port() == port {
				all = append(all, s)
			}
		}
	}
	return all, nil
}

// listening is the state of a TCP socket that listens (proc(5), /proc/net/tcp).
const listening = "0A"

// parse reads a table of sockets: sl, local address:port, remote address:port, state, three more, uid, timeout, inode.
func parse(table io.Reader, network string) []Socket {
	var list []Socket
	for lines := bufio.NewScanner(table); lines.Scan(); {
		f := strings.Fields(lines.Text())
		if len(f) < 10 || network == "tcp" && f[3] != listening {
			continue
		}
		host, port, _ := strings.Cut(f[1], ":")
		n, err := strconv.ParseUint(port, 16, 16)
		if addr, ok := parseAddr(host); ok && err == nil {
			list = append(list, Socket{Local: netip.AddrPortFrom(addr, uint16(n)), Inode: f[9]})
		}
	}
	return list
}

// parseAddr reads an address as the kernel prints it: 32-bit words in hexadecimal, each in the byte order of the machine. All that
// we are built for are little-endian.
func parseAddr(s string) (netip.Addr, bool) {
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

// Process returns who has a socket open, as "dnsmasq (pid 123)".
func (s Socket) Process() string {
	want := "socket:[" + s.Inode + "]"
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*") // its only error is a bad pattern
	for _, link := range links {
		if target, err := os.Readlink(link); err != nil || target != want {
			continue // ended meanwhile, not ours to see, or another file
		}
		dir := filepath.Dir(filepath.Dir(link))
		if name, err := os.ReadFile(filepath.Join(dir, "comm")); err == nil {
			return fmt.Sprintf("%s (pid %s)", strings.TrimSpace(string(name)), filepath.Base(dir))
		}
	}
	return "another process (run as root to see which)"
}

// Owner returns who has a port, as Process does.
func Owner(network string, port uint16) string {
	list, err := Sockets(network, port)
	if err != nil || len(list) == 0 {
		return fmt.Sprintf("another process (ss -%slnp sport = %d shows it)", network[:1], port)
	}
	return list[0].Process()
}
