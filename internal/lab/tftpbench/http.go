package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"everboot/internal/lab"
)

// httpSize is that of an initrd.
const httpSize = 200 << 20

// httpRows compares HTTP with nginx: curl reads a large file once, and a hundred at once read a small one again and again.
func httpRows() error {
	return inLab(func(l *lab.Lab) error {
		b, err := newBed(l, httpSize)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(b.root, "small"), b.want[:fileSize], 0o644); err != nil {
			return err
		}
		fmt.Printf("\nHTTP: %d MiB by one curl, and %d MiB by each of 100 at once; median of %d rounds\n", httpSize>>20, fileSize>>20, rounds)
		servers := []string{"everboot", "nginx"}
		one, many := map[string][]float64{}, map[string][]float64{}
		for range rounds {
			for _, name := range servers {
				if _, err := b.startHTTP(name); err != nil {
					return err
				}
				if err := lab.Eventually(15*time.Second, name+" serves", func() error { return b.curl(1, "small") }); err != nil {
					return err
				}
				for where, c := range map[*map[string][]float64]struct {
					clients int
					file    string
					bytes   float64
				}{&one: {1, "file", httpSize}, &many: {100, "small", 100 * fileSize}} {
					began := time.Now()
					if err := b.curl(c.clients, c.file); err != nil {
						return fmt.Errorf("%s: %w", name, err)
					}
					(*where)[name] = append((*where)[name], c.bytes/1e6/time.Since(began).Seconds())
				}
				b.server.KillAll()
			}
		}
		for _, name := range servers {
			fmt.Printf("  %-10s 1 client %.0f MB/s, 100 clients %.0f MB/s\n", name, median(one[name]), median(many[name]))
		}
		return nil
	})
}

func (b *bed) startHTTP(name string) (*lab.Process, error) {
	if name == "everboot" {
		return start(b.server, name, b.root, false)
	}
	conf := filepath.Join(b.lab.Dir(), "nginx.conf")
	text := fmt.Sprintf("daemon off; worker_processes 2; user root; error_log /dev/null; pid %[1]s/nginx.pid;\nevents { worker_connections 1024; }\n"+
		"http { access_log off; sendfile on; tcp_nopush on; server { listen 80; root %[2]s; } }\n", b.lab.Dir(), b.root)
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		return nil, err
	}
	return b.server.Start(name, "nginx", "-c", conf), nil
}

// curl has one curl read a file with so many connections at once.
func (b *bed) curl(clients int, file string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	url := "http://" + serverAddress + "/" + file
	argv := []string{"curl", "-sSf", "--parallel", "--parallel-immediate", "--parallel-max", fmt.Sprint(clients)}
	for range clients {
		argv = append(argv, "-o", "/dev/null", url)
	}
	if out, err := b.client.Run(ctx, argv...); err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(out))
	}
	return nil
}
