package lab

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Foreign programs that do what everboot does, or that talk to it. Each starts on a host and is ready when the function returns,
// if the program says when it is.

// peerPatience is how long a peer may take until it serves, on a machine that is busy with other things.
const peerPatience = 20 * time.Second

// Keepalived starts keepalived with a configuration, of which only the vrrp_instance blocks are needed.
func Keepalived(h *Host, conf string) *Process {
	base := filepath.Join(h.lab.options.Dir, h.name+"-keepalived")
	h.lab.mustWrite(base+".conf", "global_defs {\n  enable_script_security\n  script_user root\n}\n"+conf, 0o644)
	return h.Start("keepalived", "keepalived", "--dont-fork", "--log-console", "--log-detail", "--dump-conf", "--vrrp",
		"--use-file", base+".conf", "--pid", base+".pid", "--vrrp_pid", base+".vrrp.pid")
}

// Dnsmasq starts dnsmasq with arguments of its command line and nothing else: no DNS, no settings from files, leases kept in the
// lab's folder. It returns when dnsmasq serves.
func Dnsmasq(h *Host, args ...string) *Process { return dnsmasq(h, "dnsmasq", args) }

// RouterAdvertiser starts a router advertiser for 2001:db8::/64 that offers no default route; the host needs an address of that
// network on eth0. iPXE waits 13 s for an advertisement in vain where there is none.
func RouterAdvertiser(h *Host) *Process {
	// Every 4 s, the shortest period of dnsmasq; a lifetime of 0 s means "not a default router".
	return dnsmasq(h, "advertiser", []string{"--enable-ra", "--dhcp-range=2001:db8::,ra-only,64", "--ra-param=eth0,4,0"})
}

func dnsmasq(h *Host, name string, args []string) *Process {
	leases := filepath.Join(h.lab.options.Dir, h.name+"-"+name+".leases")
	argv := []string{
		"dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--port=0", "--no-resolv", "--no-hosts", "--user=root", "--group=",
		"--log-dhcp", "--no-ping", "--dhcp-leasefile=" + leases, "--pid-file=",
	}
	p := h.Start(name, append(argv, args...)...)
	if _, err := p.Expect("^dnsmasq: started", peerPatience); err != nil {
		h.lab.fail(err)
	}
	return p
}

// Kea starts kea-dhcp4 on eth0 of the host, with one subnet as its JSON says it, and leases kept in the lab's folder. It returns when Kea serves.
func Kea(h *Host, subnet string) *Process {
	dir := filepath.Join(h.lab.options.Dir, h.name+"-kea")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		h.lab.fail(err)
	}
	conf := filepath.Join(dir, "kea.json")
	h.lab.mustWrite(conf, fmt.Sprintf(`{"Dhcp4": {"interfaces-config": {"interfaces": ["eth0"]},
  "lease-database": {"type": "memfile", "name": "%s/leases.csv", "lfc-interval": 0},
  "loggers": [{"name": "kea-dhcp4", "severity": "INFO", "output_options": [{"output": "stdout"}]}],
  "subnet4": [%s]}}`, dir, subnet), 0o644)
	p := h.StartWith(Settings{Env: []string{"KEA_PIDFILE_DIR=" + dir, "KEA_LOCKFILE_DIR=" + dir}}, "kea", "kea-dhcp4", "-c", conf)
	if _, err := p.Expect("DHCP4_STARTED", peerPatience); err != nil {
		h.lab.fail(err)
	}
	return p
}

// Lease is what a DHCP client got: the values that udhcpc gives to its script. Among them are "ip", "mask" (a number of bits),
// "router", "lease" (seconds), "serverid" (option 54), "siaddr", "sname" and "boot_file" (fields of the header), "tftp" and
// "bootfile" (options 66 and 67).
type Lease map[string]string

// Addr is the address of the lease.
func (l Lease) Addr() netip.Addr {
	addr, _ := netip.ParseAddr(l["ip"]) // the zero Addr says that there is none
	return addr
}

// udhcpc calls the script with what happened as its argument, and with the lease in the environment.
const udhcpcScript = `#!/bin/sh
echo "event=$1"
[ "$1" = bound ] || exit 0
env
`

// Udhcpc asks for a lease on an interface once, without setting the address, and returns what was given. It waits up to 10 s;
// the arguments are more of udhcpc's, such as "-r", "198.18.0.7" or "-x", "0x5d:0007".
func Udhcpc(h *Host, iface string, args ...string) (Lease, error) {
	script := filepath.Join(h.lab.options.Dir, "udhcpc-script")
	if err := writeOnce(script, udhcpcScript, 0o755); err != nil {
		return nil, err
	}
	argv := append([]string{"udhcpc", "-f", "-q", "-n", "-t", "5", "-T", "2", "-i", iface, "-s", script,
		"-O", "tftp", "-O", "bootfile", "-O", "serverid"}, args...)
	out, err := h.Run(context.Background(), argv...)
	if err != nil {
		return nil, err
	}
	_, env, found := strings.Cut(out, "event=bound\n")
	if !found {
		return nil, fmt.Errorf("asking for a lease on %s of %s: none was given: %s", iface, h.name, lastLines(out, 3))
	}
	ours := map[string]bool{}
	for _, line := range os.Environ() {
		key, _, _ := strings.Cut(line, "=")
		ours[key] = true
	}
	lease := Lease{}
	for line := range strings.Lines(env) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !ours[key] {
			lease[key] = value
		}
	}
	maps.DeleteFunc(lease, func(key, _ string) bool { return key == "PWD" || key == "SHLVL" || key == "_" || key == "OLDPWD" })
	return lease, nil
}

// TFTPGet reads a file with the client tftp-hpa, in binary mode.
func TFTPGet(h *Host, server, file string) ([]byte, error) {
	temp, err := os.CreateTemp(h.lab.options.Dir, "tftp-")
	if err != nil {
		return nil, fmt.Errorf("reading %s by TFTP: %w", file, err)
	}
	defer os.Remove(temp.Name())
	defer temp.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second) // the client itself gives up after 25 s
	defer cancel()
	// The client's exit code is 0 whatever happens; what it prints tells.
	out, err := h.Run(ctx, "tftp", "-m", "binary", server, "-c", "get", file, temp.Name())
	if err == nil && strings.TrimSpace(out) != "" {
		err = fmt.Errorf("the client says: %s", strings.TrimSpace(out))
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s from %s by TFTP: %w", file, server, err)
	}
	return os.ReadFile(temp.Name())
}

// ISCSITargets lists the targets of an iSCSI portal, such as "198.18.0.10:3260", by iscsi-ls: one URL a target.
func ISCSITargets(h *Host, portal string) ([]string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), iscsiPatience)
	defer cancel()
	out, err := h.Run(ctx, "iscsi-ls", "--url", "iscsi://"+portal)
	if err != nil {
		return nil, err
	}
	var urls []string
	for _, word := range strings.Fields(out) {
		if strings.HasPrefix(word, "iscsi://") {
			urls = append(urls, word)
		}
	}
	return urls, nil
}

// iscsiPatience is longer than a director holds a login open for want of a streamer.
const iscsiPatience = 30 * time.Second

// ISCSIInquiry logs in to a logical unit, such as "iscsi://198.18.0.10:3260/iqn.x:y/1", and returns iscsi-inq's text of a vital
// product data page (0x80: serial, 0x83: identity), or of the standard inquiry if the page is negative.
func ISCSIInquiry(h *Host, url string, page int) (string, error) {
	argv := []string{"iscsi-inq"}
	if page >= 0 {
		argv = append(argv, "-e", "1", "-c", strconv.Itoa(page))
	}
	ctx, cancel := context.WithTimeout(context.Background(), iscsiPatience)
	defer cancel()
	return h.Run(ctx, append(argv, url)...)
}

// ISCSILoad starts iscsi-perf, which reads a logical unit with many commands at once. It ignores SIGTERM: end it with Kill.
func ISCSILoad(h *Host, name, url string) *Process {
	return h.Start(name, "iscsi-perf", "--max", "32", "--blocks", "128", url)
}

func (l *Lab) mustWrite(path, text string, mode os.FileMode) {
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		l.fail(err)
	}
}

// writeOnce writes a file that may be there and in use already.
func writeOnce(path, text string, mode os.FileMode) error {
	if old, err := os.ReadFile(path); err == nil && string(old) == text {
		return nil
	}
	temp, err := os.CreateTemp(filepath.Dir(path), ".new-")
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name())
	if _, err := temp.WriteString(text); err != nil {
		temp.Close()
		return err
	}
	if err := temp.Chmod(mode); err != nil {
		temp.Close()
		return err
	}
	if err := temp.Close(); err != nil {
		return err
	}
	return os.Rename(temp.Name(), path)
}
