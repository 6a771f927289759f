// Package fleet puts a whole everboot site into the lab: two appliances, two streamers and targets on one Ethernet, run from
// the real binary with configuration files as a person would write them. The demo and the end-to-end tests share it.
package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"everboot/appliance/web"
	"everboot/image"
	"everboot/internal/lab"
	"everboot/site"
)

// The addresses of the site. All are of the range for benchmarks (RFC 2544).
const (
	VIP       = "198.18.0.10"
	targetNet = "198.18.0.0/24"
	siteName  = "berlin"
)

var (
	applianceAddress = map[string]string{"a": "198.18.0.2", "b": "198.18.0.3"}
	streamerAddress  = map[string]string{"s1": "198.18.0.21", "s2": "198.18.0.22"}
	// floatingAddress and its vrid are a streamer's with Options.Floating.
	floatingAddress = map[string]string{"s1": "198.18.0.121", "s2": "198.18.0.122"}
	floatingVRID    = map[string]int{"s1": 61, "s2": 62}
	consulAddress   = map[string]string{"c1": "198.18.0.31", "c2": "198.18.0.32", "c3": "198.18.0.33"}
)

// Fleet is the site in the lab.
type Fleet struct {
	Lab  *lab.Lab
	LAN  *lab.Segment
	Host map[string]*lab.Host // a, b, s1, s2, router, and with Consul c1, c2, c3
	opts Options
	run  map[string]*lab.Process
}

// New lays the network and writes the configuration. Nothing runs yet but the router, which advertises no route: iPXE
// waits 13 s for a router advertisement before it goes on without one.
func New(l *lab.Lab, o Options) (*Fleet, error) {
	f := &Fleet{Lab: l, LAN: l.Segment("lan"), Host: map[string]*lab.Host{}, opts: o, run: map[string]*lab.Process{}}
	join := func(name, address string) {
		f.Host[name] = l.Host(name)
		f.Host[name].Join(f.LAN, address+"/24")
	}
	if !o.Machines {
		for name, address := range applianceAddress {
			join(name, address)
		}
	}
	for name, address := range streamerAddress {
		join(name, address)
	}
	if o.Consul {
		for name, address := range consulAddress {
			join(name, address)
		}
	}
	f.Host["router"] = l.Host("router")
	f.Host["router"].Join(f.LAN, "198.18.0.1/24", "2001:db8::1/64")
	lab.RouterAdvertiser(f.Host["router"])
	if o.Media {
		lab.Dnsmasq(f.Host["router"], append([]string{"--dhcp-range=198.18.0.100,198.18.0.199,1h"}, o.Router...)...)
	}

	if err := os.WriteFile(f.path("api.token"), []byte("a-token-for-the-lab-only\n"), 0o600); err != nil {
		return nil, err
	}
	if err := os.WriteFile(f.path("peer.key"), []byte("a-peer-key-for-the-lab-only\n"), 0o600); err != nil {
		return nil, err
	}
	if !o.Machines {
		for name := range applianceAddress {
			if err := f.writeAppliance(name); err != nil {
				return nil, err
			}
		}
	}
	for name := range streamerAddress {
		if err := f.writeStreamer(name); err != nil {
			return nil, err
		}
	}
	return f, nil
}

func (f *Fleet) path(parts ...string) string {
	return filepath.Join(append([]string{f.Lab.Dir()}, parts...)...)
}

// MAC returns the MAC of the n-th target, from 1.
func MAC(n int) string { return fmt.Sprintf("52:54:00:00:00:%02x", n) }

// Address returns the reserved address of the n-th target.
func Address(n int) string { return fmt.Sprintf("198.18.0.%d", 50+n) }

// Targets is how many targets the site knows.
const Targets = 4

func (f *Fleet) writeAppliance(name string) error {
	peer := map[string]string{"a": "b", "b": "a"}[name]
	priority := map[string]int{"a": 110, "b": 100}[name]
	var c strings.Builder
	fmt.Fprintf(&c, "node = %q\nsite = %q\ninterface = \"eth0\"\nstate = %q\n\n", name, siteName, f.path(name))
	fmt.Fprintf(&c, "[registry]\n%s\n", f.registry(name))
	fmt.Fprintf(&c, "[peers]\naddresses = [%q]\nkey = \"file:%s\"\n\n", applianceAddress[peer], f.path("peer.key"))
	fmt.Fprintf(&c, "[vip]\naddresses = [\"%s/24\"]\npriority = %d\n\n", VIP, priority)
	if f.opts.Media {
		c.WriteString("[dhcp]\nmode = \"off\"\n[tftp]\nenabled = false\n")
	} else {
		fmt.Fprintf(&c, "[[dhcp.subnet]]\nnetwork = %q\nrange = \"198.18.0.100-198.18.0.199\"\nrouter = \"198.18.0.1\"\n\n", targetNet)
		c.WriteString("[tftp]\n")
	}
	fmt.Fprintf(&c, "root = %q\n\n", f.path(name, "boot"))
	fmt.Fprintf(&c, "[http]\n%s\n", f.opts.HTTP)
	fmt.Fprintf(&c, "[api]\nlisten = \":8667\"\ntoken = \"file:%s\"\n", f.path("api.token"))
	if !f.opts.Consul {
		for n := 1; n <= Targets; n++ {
			fmt.Fprintf(&c, "\n[[device]]\nmac = %q\nname = \"t%d\"\naddress = %q\nvdisk = \"debian\"\ncollection = %q\n", MAC(n), n, Address(n), f.opts.Collection)
		}
	}
	if !f.opts.Consul && !f.opts.Loader {
		fmt.Fprintf(&c, "\n[[vdisk]]\nname = \"debian\"\nkernel = \"debian/vmlinuz\"\ninitrd = \"debian/initrd.img\"\ncmdline = %q\n", image.DefaultCmdline)
	}
	if err := f.place(filepath.Join(f.opts.VDisk, image.KernelFile), name, "boot", "debian", "vmlinuz"); err != nil {
		return err
	}
	if err := f.place(filepath.Join(f.opts.VDisk, image.InitrdFile), name, "boot", "debian", "initrd.img"); err != nil {
		return err
	}
	return os.WriteFile(f.Config(name), []byte(c.String()), 0o600)
}

func (f *Fleet) writeStreamer(name string) error {
	var c strings.Builder
	fmt.Fprintf(&c, "node = %q\nsite = %q\nstate = %q\n\n", name, siteName, f.path(name))
	fmt.Fprintf(&c, "[registry]\n%s\n", f.registry(name))
	if f.opts.Floating {
		fmt.Fprintf(&c, "[iscsi]\naddresses = [\"%s:3260\"]\nvrids = [%d]\n", floatingAddress[name], floatingVRID[name])
	} else {
		fmt.Fprintf(&c, "[iscsi]\naddresses = [\"%s:3260\"]\n", streamerAddress[name])
	}
	fmt.Fprintf(&c, "\n[store]\npath = %q\n", f.path(name, "vdisks"))
	if err := f.placeReplica(name); err != nil {
		return err
	}
	return os.WriteFile(f.Config(name), []byte(c.String()), 0o600)
}

func (f *Fleet) registry(name string) string {
	if f.opts.Consul {
		server := map[string]string{"a": "c1", "b": "c2", "s1": "c3", "s2": "c1"}[name]
		return fmt.Sprintf("kind = \"consul\"\naddress = \"%s:8500\"\n", consulAddress[server])
	}
	if _, isStreamer := streamerAddress[name]; !isStreamer {
		return "kind = \"embedded\"\n"
	}
	return fmt.Sprintf("kind = \"embedded\"\naddresses = [\"http://%s:8667\", \"http://%s:8667\"]\ntoken = \"file:%s\"\n",
		applianceAddress["a"], applianceAddress["b"], f.path("api.token"))
}

// place puts a file where a node looks for it: as a link, or as a copy on another file system.
func (f *Fleet) place(source string, parts ...string) error {
	target := f.path(parts...)
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	if err := os.Link(source, target); err == nil || errors.Is(err, os.ErrExist) {
		return nil
	}
	return copyFile(source, target)
}

func (f *Fleet) placeReplica(name string) error {
	disk := filepath.Join(f.opts.VDisk, image.DiskFile)
	if f.opts.Damaged != name {
		return f.place(disk, name, "vdisks", "debian", "1", "disk.raw")
	}
	target := f.path(name, "vdisks", "debian", "1", "disk.raw")
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	if err := copyFile(disk, target); err != nil {
		return err
	}
	damaged, err := os.OpenFile(target, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer damaged.Close()
	_, err = damaged.WriteAt([]byte("damaged"), 1<<20)
	return err
}

func copyFile(source, target string) error {
	from, err := os.Open(source)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.Create(target)
	if err != nil {
		return err
	}
	if _, err := to.ReadFrom(from); err != nil {
		to.Close()
		return err
	}
	return to.Close()
}

// Config returns the path of a node's configuration.
func (f *Fleet) Config(name string) string {
	kind := "streamer"
	if _, ok := applianceAddress[name]; ok {
		kind = "appliance"
	}
	return f.path(name + "." + kind + ".toml")
}

// Start starts a node: an appliance (a, b) or a streamer (s1, s2).
func (f *Fleet) Start(name string) *lab.Process {
	command := "streamer"
	if _, ok := applianceAddress[name]; ok {
		command = "appliance"
	}
	f.run[name] = f.Host[name].Start("everboot", f.opts.Binary, command, "--config", f.Config(name))
	return f.run[name]
}

// Process returns the process that Start started last.
func (f *Fleet) Process(name string) *lab.Process { return f.run[name] }

// Command runs everboot on an appliance as a person there would, and returns what it printed.
func (f *Fleet) Command(name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	argv := []string{f.opts.Binary, "--token-file", f.Token()}
	host := f.Host[name]
	if f.opts.Machines {
		host, argv = f.Host["router"], append(argv, "--api", "http://"+applianceAddress[name]+":8667")
	}
	return host.Run(ctx, append(argv, args...)...)
}

// Token is the file with the API's token, on all nodes.
func (f *Fleet) Token() string { return f.path("api.token") }

// Populate writes the site into the registry as an operator would, where the configuration files do not say it.
func (f *Fleet) Populate(name string) error {
	commands := [][]string{{"vdisk", "set", "debian", "--kernel", "debian/vmlinuz", "--initrd", "debian/initrd.img", "--cmdline", image.DefaultCmdline}}
	for n := 1; n <= Targets; n++ {
		commands = append(commands, []string{"device", "set", MAC(n), "--name", fmt.Sprintf("t%d", n), "--address", Address(n), "--vdisk", "debian"})
	}
	for _, args := range commands {
		if out, err := f.Command(name, args...); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
	}
	return nil
}

// Status asks an appliance for the site at a glance.
func (f *Fleet) Status(name string) (web.Status, error) {
	out, err := f.Command(name, "status", "--json")
	if err != nil {
		return web.Status{}, fmt.Errorf("%w: %s", err, out)
	}
	var s web.Status
	return s, json.Unmarshal([]byte(out), &s)
}

// AwaitBoots waits until an appliance would let a target boot.
func (f *Fleet) AwaitBoots(name string, target int, timeout time.Duration) error {
	return lab.Eventually(timeout, fmt.Sprintf("appliance %s lets target %d boot", name, target), func() error {
		out, err := f.Command(name, "explain", "--json", MAC(target))
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		var e web.Explanation
		if err := json.Unmarshal([]byte(out), &e); err != nil {
			return err
		}
		if !e.Boots {
			return errors.New(e.Text)
		}
		return nil
	})
}

// AwaitStreamers waits until an appliance's own probe finds n streamers up.
func (f *Fleet) AwaitStreamers(name string, n int, timeout time.Duration) error {
	return lab.Eventually(timeout, fmt.Sprintf("appliance %s sees %d streamers up", name, n), func() error {
		s, err := f.Status(name)
		if err != nil {
			return err
		}
		up := 0
		for _, streamer := range s.View.Streamers {
			if streamer.Check.Health == site.Up {
				up++
			}
		}
		if up != n {
			return fmt.Errorf("%d are up", up)
		}
		return nil
	})
}

// Owner returns the appliance that has the VIP on its interface, or an error that names none or several.
func (f *Fleet) Owner() (string, error) {
	var owners []string
	for name := range applianceAddress {
		if f.Host[name].Has(VIP) {
			owners = append(owners, name)
		}
	}
	if len(owners) != 1 {
		return "", fmt.Errorf("the VIP has %d owners %v", len(owners), owners)
	}
	return owners[0], nil
}

// Serving returns the streamer that serves a target now, as the director that forwards it says.
func (f *Fleet) Serving(appliance string, target int) (string, error) {
	s, err := f.Status(appliance)
	if err != nil {
		return "", err
	}
	mac, err := site.ParseMAC(MAC(target))
	if err != nil {
		return "", err
	}
	for _, session := range s.Sessions {
		if session.MAC == mac {
			return session.Streamer, nil
		}
	}
	return "", fmt.Errorf("appliance %s forwards no session of %s", appliance, mac)
}

// Other returns the other appliance or streamer.
func Other(name string) string {
	return map[string]string{"a": "b", "b": "a", "s1": "s2", "s2": "s1"}[name]
}

// VIPAddr is the floating address.
func VIPAddr() netip.Addr { return netip.MustParseAddr(VIP) }

// Processes returns the command lines of what runs on a node.
func (f *Fleet) Processes(name string) []string {
	var lines []string
	for _, pid := range f.Host[name].PIDs() {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err == nil && len(text) > 0 {
			lines = append(lines, strings.ReplaceAll(strings.TrimRight(string(text), "\x00"), "\x00", " "))
		}
	}
	return lines
}

// KillWorker sends SIGKILL to an appliance's worker, and leaves its guard.
func (f *Fleet) KillWorker(name string) error {
	for _, pid := range f.Host[name].PIDs() {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err == nil && strings.Contains(string(text), "\x00--worker\x00") {
			return syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	return fmt.Errorf("appliance %s has no worker", name)
}
