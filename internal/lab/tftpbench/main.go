// Command tftpbench measures everboot's TFTP beside other servers, with the same clients and the same file, in the lab.
package main

import (
	"crypto/rand"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"everboot/internal/lab"
	"everboot/internal/lab/tftpload"
)

const (
	serverAddress = "198.18.0.2"
	fileSize      = 4 << 20
	clientHosts   = 64
)

func main() {
	if what := os.Getenv(envServe); what != "" {
		if err := serve(what); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(lab.Main(run))
}

func run() int {
	only := flag.String("peers", strings.Join(peers, ","), "servers to measure")
	rows := flag.String("rows", "", "rows to measure; empty: all")
	flag.Parse()
	if err := bench(strings.Split(*only, ","), *rows); err != nil {
		fmt.Fprintln(os.Stderr, "tftpbench:", err)
		return 1
	}
	return 0
}

// row is one kind of load.
type row struct {
	name          string
	clients, each int
	block, window int
}

var table = []row{
	{"1 client", 1, 12, 1468, 0},
	{"100 clients", 100, 1, 1468, 0},
	{"1 client, windowsize 16", 1, 24, 1468, 16},
	{"100 clients, windowsize 16", 100, 2, 1468, 16},
}

func bench(list []string, rows string) error {
	dir, err := os.MkdirTemp("", "ebt-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	l, err := lab.Open(lab.Options{Dir: dir})
	if err != nil {
		return err
	}
	defer l.Close()
	lan := l.Segment("lan")
	server, client := l.Host("server"), l.Host("client")
	server.Join(lan, serverAddress+"/15")
	var from []netip.Addr
	var prefixes []string
	for i := range clientHosts {
		a := netip.AddrFrom4([4]byte{198, 18, 1, byte(i + 1)})
		from, prefixes = append(from, a), append(prefixes, a.String()+"/15")
	}
	client.Join(lan, prefixes...)
	root := filepath.Join(dir, "root")
	want := make([]byte, fileSize)
	rand.Read(want)
	if err := os.Mkdir(root, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(root, "file"), want, 0o644); err != nil {
		return err
	}
	for _, r := range table {
		if rows != "" && !strings.Contains(rows, r.name) {
			continue
		}
		fmt.Println(r.name)
		for _, peer := range list {
			p, err := start(server, peer, root)
			if err != nil {
				return err
			}
			load := func(clients, each int) (res tftpload.Result, err error) {
				err = client.Do(func() error {
					var set unix.CPUSet
					set.Set(1)
					if err := unix.SchedSetaffinity(0, &set); err != nil {
						return err
					}
					res, err = tftpload.Run(tftpload.Options{
						Server: netip.AddrPortFrom(netip.MustParseAddr(serverAddress), 69), From: from, Clients: clients, Each: each, File: "file", Want: want,
						Block: r.block, Window: r.window, Firmware: func(int) tftpload.Firmware { return tftpload.EDK2 }, Timeout: 60 * time.Second,
					})
					return err
				})
				return res, err
			}
			err = lab.Eventually(10*time.Second, peer+" serves", func() error {
				res, err := load(1, 1)
				if err == nil && res.Complete != 1 {
					err = fmt.Errorf("%v", res)
				}
				return err
			})
			if err != nil {
				return err
			}
			before := cpu(p.PID())
			res, err := load(r.clients, r.each)
			used := cpu(p.PID()) - before
			fmt.Printf("  %-10s %v, CPU %.2f s/GB\n", peer, res, used.Seconds()/float64(res.Bytes)*1e9)
			if err != nil {
				return err
			}
			if err := p.Stop(5 * time.Second); err != nil && peer == "everboot" {
				return err
			}
			if os.Getenv("V") != "" {
				fmt.Println(p.Log())
			}
		}
	}
	return nil
}
