package tftp

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// portOwner says which process has a port ("udp" or "tcp") and what to do about it.
func portOwner(network string, port int) string {
	inodes := make(map[string]bool)
	for _, table := range []string{network, network + "6"} { // of this thread: a network namespace belongs to a thread
		for _, inode := range portInodes("/proc/thread-self/net/"+table, network, port) {
			inodes["socket:["+inode+"]"] = true
		}
	}
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*") // its only error is a bad pattern
	for _, link := range links {
		if target, err := os.Readlink(link); err != nil || !inodes[target] {
			continue // ended meanwhile, not ours to see, or another file
		}
		pid := strings.Split(link, "/")[2]
		comm, err := os.ReadFile("/proc/" + pid + "/comm")
		if err != nil {
			continue
		}
		return fmt.Sprintf("process %s (%s) has the port: stop it, or listen elsewhere", pid, strings.TrimSpace(string(comm)))
	}
	return "another process has the port: find it with `ss -" + network[:1] + "lnp sport = " + strconv.Itoa(port) + "`, stop it, or listen elsewhere"
}

// portInodes reads a table of sockets (proc(5), /proc/net/tcp): local address:port in hexadecimal is the second field, the state the
// fourth (0A: a TCP socket that listens), the inode the tenth.
func portInodes(path, network string, port int) []string {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	var inodes []string
	for s := bufio.NewScanner(f); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) < 10 || network == "tcp" && fields[3] != "0A" {
			continue
		}
		_, hex, ok := strings.Cut(fields[1], ":")
		if n, err := strconv.ParseUint(hex, 16, 16); ok && err == nil && int(n) == port {
			inodes = append(inodes, fields[9])
		}
	}
	return inodes
}
