// Package bootpair puts two appliances of the real binary into the lab that do nothing but serve boot files at a floating address, and many
// addresses of clients: for tests and measures of what clients see when the address moves.
package bootpair

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"everboot/appliance/web"
	"everboot/internal/lab"
	"everboot/internal/lab/tftpload"
)

// VIP is the floating address.
const VIP = "198.18.0.10"

// clientAddresses is how many the host of the clients has.
const clientAddresses = 64

// FileName is the file that both serve.
const FileName = "file"

// Names of the appliances; a has the higher priority.
var Names = []string{"a", "b"}

var address = map[string]string{"a": "198.18.0.2", "b": "198.18.0.3"}

// Pair is the two appliances and the host of the clients.
type Pair struct {
	Lab    *lab.Lab
	LAN    *lab.Segment
	Host   map[string]*lab.Host
	Client *lab.Host
	From   []netip.Addr
	binary string
	run    map[string]*lab.Process
}

// New lays the network, writes the configuration, and gives both appliances the content as their file.
func New(l *lab.Lab, binary string, content []byte) (*Pair, error) {
	p := &Pair{Lab: l, LAN: l.Segment("lan"), Host: map[string]*lab.Host{}, Client: l.Host("clients"), binary: binary, run: map[string]*lab.Process{}}
	var prefixes []string
	for i := range clientAddresses {
		a := netip.AddrFrom4([4]byte{198, 18, 1, byte(i + 1)})
		p.From, prefixes = append(p.From, a), append(prefixes, a.String()+"/15")
	}
	p.Client.Join(p.LAN, prefixes...)
	if err := os.WriteFile(p.path("peer.key"), []byte("a-peer-key-for-the-lab-only\n"), 0o600); err != nil {
		return nil, err
	}
	for i, name := range Names {
		p.Host[name] = l.Host(name)
		p.Host[name].Join(p.LAN, address[name]+"/15")
		var c strings.Builder
		fmt.Fprintf(&c, "node = %q\nsite = \"berlin\"\ninterface = \"eth0\"\nstate = %q\n\n", name, p.path(name))
		fmt.Fprintf(&c, "[peers]\naddresses = [%q]\nkey = \"file:%s\"\n\n", address[Names[1-i]], p.path("peer.key"))
		fmt.Fprintf(&c, "[vip]\naddresses = [\"%s/15\"]\npriority = %d\n\n[tftp]\nroot = %q\n\n[director]\nenabled = false\n", VIP, 110-10*i, p.path(name, "boot"))
		if err := os.MkdirAll(p.path(name, "boot"), 0o755); err != nil {
			return nil, err
		}
		for path, text := range map[string][]byte{p.path(name, "boot", FileName): content, p.Config(name): []byte(c.String())} {
			if err := os.WriteFile(path, text, 0o644); err != nil {
				return nil, err
			}
		}
	}
	return p, nil
}

func (p *Pair) path(parts ...string) string {
	return filepath.Join(append([]string{p.Lab.Dir()}, parts...)...)
}

// Config returns the path of an appliance's configuration.
func (p *Pair) Config(name string) string { return p.path(name + ".toml") }

// Start starts an appliance.
func (p *Pair) Start(name string) {
	p.run[name] = p.Host[name].Start("everboot", p.binary, "appliance", "--config", p.Config(name))
}

// Stop stops an appliance as an operator does.
func (p *Pair) Stop(name string) error { return p.run[name].Stop(15 * time.Second) }

// Status asks an appliance for the site at a glance.
func (p *Pair) Status(name string) (s web.Status, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	out, err := p.Host[name].Run(ctx, p.binary, "status", "--json")
	if err != nil {
		return s, fmt.Errorf("%w: %s", err, out)
	}
	return s, json.Unmarshal([]byte(out), &s)
}

// AwaitTogether waits until the address has one owner, both know each other, and the owner serves.
func (p *Pair) AwaitTogether(timeout time.Duration) error {
	return lab.Eventually(timeout, "the appliances are a pair", func() error {
		for _, name := range Names {
			s, err := p.Status(name)
			switch {
			case err != nil:
				return err
			case len(s.Peers) != 1 || !s.Peers[0].Alive:
				return fmt.Errorf("%s does not hear its peer", name)
			case s.View.Boot.TFTP.Health != "up":
				return fmt.Errorf("%s: TFTP is %q: %s", name, s.View.Boot.TFTP.Health, s.View.Boot.TFTP.Reason)
			}
		}
		_, err := p.Owner()
		return err
	})
}

// Owner returns who has the floating address.
func (p *Pair) Owner() (string, error) {
	var owners []string
	for _, name := range Names {
		if p.Host[name].Has(VIP) {
			owners = append(owners, name)
		}
	}
	if len(owners) != 1 {
		return "", fmt.Errorf("the floating address has %d owners %v", len(owners), owners)
	}
	return owners[0], nil
}

// KillWorker sends SIGKILL to an appliance's worker, and leaves its guard, which starts another.
func (p *Pair) KillWorker(name string) error { return p.SignalWorker(name, syscall.SIGKILL) }

// SignalWorker sends a signal to an appliance's worker.
func (p *Pair) SignalWorker(name string, signal syscall.Signal) error {
	for _, pid := range p.Host[name].PIDs() {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err == nil && strings.Contains(string(text), "\x00--worker\x00") {
			return syscall.Kill(pid, signal)
		}
	}
	return fmt.Errorf("%s has no worker", name)
}

// Load reads the file with many clients at the floating address, and calls move once half of all bytes have come.
func (p *Pair) Load(o tftpload.Options, move func()) (tftpload.Result, error) {
	o.Server, o.From, o.File = netip.AddrPortFrom(netip.MustParseAddr(VIP), 69), p.From, FileName
	half, moved := int64(o.Clients)*int64(len(o.Want))/2, make(chan struct{})
	started := false
	o.Progress = func(bytes int64) {
		if !started && bytes >= half {
			started = true
			go func() { defer close(moved); move() }()
		}
	}
	var r tftpload.Result
	err := p.Client.Do(func() (err error) {
		r, err = tftpload.Run(o)
		return err
	})
	if started {
		<-moved
	}
	return r, err
}

// Firmware is half iPXE, half EDK2.
func Firmware(client int) tftpload.Firmware {
	if client%2 == 0 {
		return tftpload.IPXE
	}
	return tftpload.EDK2
}
