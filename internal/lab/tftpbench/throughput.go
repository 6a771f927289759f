package main

import (
	"crypto/rand"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"everboot/internal/lab"
	"everboot/internal/lab/tftpload"
)

const (
	clientAddresses = 64
	// Pinned, the server has one processor and the clients have the other, as if they were two machines.
	serverCPU, clientCPU = 0, 1
)

// rounds of each measure; the servers take turns, so that a bad moment of the computer meets all. The median counts.
var rounds = 3

// row is one kind of load.
type row struct {
	name          string
	clients, each int
	block, window int
}

var table = []row{
	{"1 client", 1, 8, 1468, 0},
	{"100 clients", 100, 1, 1468, 0},
	{"1 client, windowsize 16", 1, 16, 1468, 16},
	{"100 clients, windowsize 16", 100, 1, 1468, 16},
	{"1,000 clients", 1000, 1, 1468, 0},
}

// bed is a server's host and the clients'.
type bed struct {
	pinned         bool
	lab            *lab.Lab
	server, client *lab.Host
	from           []netip.Addr
	root           string
	want           []byte
}

func newBed(l *lab.Lab, size int) (*bed, error) {
	b := &bed{lab: l, server: l.Host("server"), client: l.Host("client"), root: filepath.Join(l.Dir(), "root"), want: make([]byte, size)}
	lan := l.Segment("lan")
	b.server.Join(lan, serverAddress+"/15")
	var prefixes []string
	for i := range clientAddresses {
		a := netip.AddrFrom4([4]byte{198, 18, 1, byte(i + 1)})
		b.from, prefixes = append(b.from, a), append(prefixes, a.String()+"/15")
	}
	b.client.Join(lan, prefixes...)
	rand.Read(b.want)
	if err := os.Mkdir(b.root, 0o755); err != nil {
		return nil, err
	}
	return b, os.WriteFile(filepath.Join(b.root, "file"), b.want, 0o644)
}

// pin keeps the calling thread on the clients' processor, or lets it be on either.
func (b *bed) pin() error {
	var set unix.CPUSet
	set.Set(clientCPU)
	if !b.pinned {
		set.Set(serverCPU)
	}
	return unix.SchedSetaffinity(0, &set)
}

func (b *bed) load(r row, timeout time.Duration) (res tftpload.Result, err error) {
	err = b.client.Do(func() error {
		if err := b.pin(); err != nil {
			return err
		}
		res, err = tftpload.Run(tftpload.Options{
			Server: netip.AddrPortFrom(netip.MustParseAddr(serverAddress), 69), From: b.from, Clients: r.clients, Each: r.each, File: "file", Want: b.want,
			Block: r.block, Window: r.window, Firmware: func(int) tftpload.Firmware { return tftpload.EDK2 }, Timeout: timeout,
		})
		return err
	})
	return res, err
}

// measure is one load of one server. It returns the processor time that the server took, too.
func (b *bed) measure(peer string, r row, timeout time.Duration, ready func()) (res tftpload.Result, used time.Duration, err error) {
	p, err := start(b.server, peer, b.root, b.pinned)
	if err != nil {
		return res, 0, err
	}
	if err := b.client.Do(func() error { return await(peer, b.want) }); err != nil {
		return res, 0, err
	}
	ready()
	before := b.cpu()
	res, err = b.load(r, timeout)
	used = b.cpu() - before
	p.Kill()
	b.server.KillAll() // children of a server that forks
	return res, used, err
}

// cpu returns the processor time of all processes of the server's host, and of their children that have ended.
func (b *bed) cpu() (sum time.Duration) {
	for _, pid := range b.server.PIDs() {
		sum += cpu(pid)
	}
	return sum
}

// figures are what the rounds of one server gave.
type figures struct {
	speed, cost []float64 // MB/s, seconds of processor for 1 GB
	failed      int
}

func median(list []float64) float64 {
	slices.Sort(list)
	return list[len(list)/2]
}

// throughput measures the rows of the table that match, with server and clients on processors of their own, or where the kernel puts them.
func throughput(list []string, which *regexp.Regexp, pinned bool) error {
	return inLab(func(l *lab.Lab) error {
		b, err := newBed(l, fileSize)
		if err != nil {
			return err
		}
		b.pinned = pinned
		where := "the server on one processor, the clients on the other"
		if !pinned {
			where = "server and clients on both processors"
		}
		fmt.Printf("\nA file of %d MiB in blocks of 1468 bytes; %s; median of %d rounds\n%-28s", fileSize>>20, where, rounds, "")
		for _, peer := range list {
			fmt.Printf("  %22s", peer)
		}
		fmt.Println()
		for _, r := range table {
			if !which.MatchString(r.name) {
				continue
			}
			if err := b.row(list, r); err != nil {
				return err
			}
		}
		return nil
	})
}

// row measures one kind of load and prints what came of it.
func (b *bed) row(list []string, r row) error {
	got := make(map[string]*figures)
	for range rounds {
		for _, peer := range list {
			res, used, err := b.measure(peer, r, 240*time.Second, func() {})
			if err != nil {
				return fmt.Errorf("%s, %s: %w", r.name, peer, err)
			}
			f := got[peer]
			if f == nil {
				f = new(figures)
				got[peer] = f
			}
			f.speed = append(f.speed, float64(res.Bytes)/1e6/res.Elapsed.Seconds())
			f.cost = append(f.cost, used.Seconds()/float64(max(res.Bytes, 1))*1e9)
			f.failed += res.Failed
		}
	}
	fmt.Printf("%-28s", r.name)
	for _, peer := range list {
		f := got[peer]
		cell := fmt.Sprintf("%.0f MB/s %.1f s/GB", median(f.speed), median(f.cost))
		if f.failed > 0 {
			cell = fmt.Sprintf("%d failed", f.failed)
		}
		fmt.Printf("  %22s", cell)
	}
	fmt.Println()
	return nil
}

// loss loses packets by chance, both ways.
func loss(list []string) error {
	return inLab(func(l *lab.Lab) error {
		b, err := newBed(l, fileSize)
		if err != nil {
			return err
		}
		fmt.Printf("\nOne client with EDK2's timers reads %d MiB, and 2 %% of all packets are lost, both ways\n", fileSize>>20)
		for _, peer := range list {
			res, _, err := b.measure(peer, row{clients: 1, each: 1, block: 1468}, 60*time.Second, func() { b.server.Cables()[0].Lose(2) })
			b.server.Cables()[0].Lose(0)
			if err != nil {
				return fmt.Errorf("%s: %w", peer, err)
			}
			fmt.Printf("  %-10s %v\n", peer, res)
		}
		return nil
	})
}
