// Command dhcpbench measures the DHCP service of two appliances beside Kea and dnsmasq, all in one run on one machine: rate, delay and
// memory by perfdhcp, and what clients see of a node's death and of two nodes that lose sight of each other, by a whole capture.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"everboot/internal/lab"
)

func main() { os.Exit(lab.Main(run)) }

func run() int {
	parts := flag.String("parts", "rates,memory,death,partition", "what to measure")
	only := flag.String("only", "", "rates of this server only: dnsmasq, kea-dhcp4 or everboot")
	seconds := flag.Int("seconds", 4, "length of each run of perfdhcp")
	rate := flag.Int("rate", 0, "offer this many exchanges a second only")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	b := &bench{seconds: *seconds, only: *only, rate: *rate, table: tabwriter.NewWriter(os.Stdout, 0, 4, 2, ' ', 0)}
	var errs []error
	for _, part := range strings.Split(*parts, ",") {
		f, ok := map[string]func(context.Context) error{"rates": b.rates, "memory": b.memory, "death": b.death, "partition": b.partition}[part]
		if !ok {
			fmt.Fprintf(os.Stderr, "dhcpbench: there is no part %q\n", part)
			return 2
		}
		if err := f(ctx); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", part, err))
		}
		b.table.Flush()
	}
	if err := errors.Join(errs...); err != nil {
		fmt.Fprintln(os.Stderr, "dhcpbench:", err)
		return 1
	}
	return 0
}

// bench is one run.
type bench struct {
	seconds int
	table   *tabwriter.Writer
	only    string
	rate    int
}

func (b *bench) row(cells ...any) {
	for _, c := range cells {
		fmt.Fprintf(b.table, "%v\t", c)
	}
	fmt.Fprintln(b.table)
}

// site is a segment with a subject on one or two hosts, and a host that asks.
type site struct {
	*lab.Lab
	lan     *lab.Segment
	a, b, c *lab.Host
	runs    int // of perfdhcp
}

const (
	clientAddress = "198.18.255.254"
	pool          = "198.18.4.0-198.19.255.253"
)

// with opens a site for the time of f.
func with(f func(*site) error) (err error) {
	dir, err := os.MkdirTemp("", "everboot-dhcpbench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	log, err := os.Create(filepath.Join(dir, "lab.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	l, err := lab.Open(lab.Options{Dir: dir, Log: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	s := &site{Lab: l, lan: l.Segment("lan"), a: l.Host("a"), b: l.Host("b"), c: l.Host("c")}
	s.a.Join(s.lan, "198.18.0.2/15")
	s.b.Join(s.lan, "198.18.0.3/15")
	s.c.Join(s.lan, clientAddress+"/15")
	return f(s)
}

// write puts a file into the site's folder and returns its path.
func (s *site) write(name, text string) (string, error) {
	path := filepath.Join(s.Dir(), name)
	return path, os.WriteFile(path, []byte(text), 0o600)
}

// subject is a DHCP service to measure.
type subject struct {
	name  string
	start func(*site) error
	rates []int
}

var subjects = []subject{
	{"dnsmasq", startDnsmasq, []int{200, 400}},
	{"kea-dhcp4, one, leases not flushed", startKea, []int{2000, 3000, 4000, 5000, 6000, 7000, 8000}},
	{"kea-dhcp4, pair, leases not flushed", startKeaLazyPair, []int{500, 1000, 1500, 2000, 3000, 4000}},
	{"kea-dhcp4, pair, leases written through", startKeaPair, []int{500, 1000, 1500, 2000, 3000, 4000}},
	{"everboot, pair, leases flushed", func(s *site) error { _, err := s.appliances(); return err }, []int{2000, 4000, 5000, 6000, 7000, 8000, 9000, 10000}},
}

func startDnsmasq(s *site) error {
	lab.Dnsmasq(s.a, "--dhcp-range=198.18.4.0,198.19.255.253,255.254.0.0,1h", "--dhcp-lease-max=150000", "--quiet-dhcp")
	return nil
}

// pairOfAppliances are the processes on a and b.
type pairOfAppliances [2]*lab.Process

const applianceFile = `
node = "%[1]s"
site = "bench"
interface = "eth0"
state = "%[2]s/%[1]s"
[peers]
addresses = ["%[3]s"]
key = "file:%[2]s/peer.key"
[vip]
addresses = ["198.18.0.10/15"]
priority = %[4]d
[dhcp]
[[dhcp.subnet]]
network = "198.18.0.0/15"
range = "%[5]s"
lease = "1h"
[tftp]
enabled = false
[http]
enabled = false
[director]
enabled = false
`

// appliances starts two appliances and returns when they are one service.
func (s *site) appliances() (p pairOfAppliances, err error) {
	binary, err := filepath.Abs("bin/everboot")
	if err != nil {
		return p, err
	}
	if _, err := s.write("peer.key", "only of this benchmark, which nobody else hears"); err != nil {
		return p, err
	}
	for i, h := range []*lab.Host{s.a, s.b} {
		peer := []string{"198.18.0.3", "198.18.0.2"}[i]
		conf, err := s.write(h.Name()+".toml", fmt.Sprintf(applianceFile, h.Name(), s.Dir(), peer, 150-50*i, pool))
		if err != nil {
			return p, err
		}
		p[i] = h.Start("everboot", binary, "appliance", "--config", conf)
	}
	for _, q := range p {
		if _, err := q.Expect(`DHCP peer.* is="in touch"`, 20*time.Second); err != nil {
			return p, err
		}
	}
	return p, lab.Eventually(20*time.Second, "the appliances answer", func() error {
		_, err := lab.Udhcpc(s.c, "eth0")
		return err
	})
}
