package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"everboot/internal/lab"
	"everboot/internal/lab/bootpair"
	"everboot/internal/lab/tftpload"
)

// moveClients read the file at once while the address moves.
const moveClients = 500

// moves measures what clients see when the address moves: of everboot, and of peers whose address somebody else moves.
func moves(binary string, list []string) error {
	want := make([]byte, fileSize)
	rand.Read(want)
	fmt.Printf("\n%d transfers of %d MiB in lockstep, half with iPXE's timers and half with EDK2's; in the middle the address moves\n", moveClients, fileSize>>20)
	for _, peer := range list {
		var err error
		if peer == "everboot" {
			err = moveOurs(binary, want)
		} else {
			err = movePeer(peer, want)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", peer, err)
		}
	}
	return nil
}

func inLab(f func(*lab.Lab) error) error {
	dir, err := os.MkdirTemp("", "ebm-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	l, err := lab.Open(lab.Options{Dir: dir})
	if err != nil {
		return err
	}
	defer l.Close()
	return f(l)
}

func moveOurs(binary string, want []byte) error {
	return inLab(func(l *lab.Lab) error {
		p, err := bootpair.New(l, binary, want)
		if err != nil {
			return err
		}
		for _, name := range bootpair.Names {
			p.Start(name)
		}
		for _, m := range []struct {
			name        string
			move, after func(owner string) error
		}{
			{"worker SIGKILLed", p.KillWorker, nil},
			{"cable cut", func(owner string) error { p.Host[owner].Cables()[0].Cut(); return nil }, func(owner string) error { p.Host[owner].Cables()[0].Mend(); return nil }},
			{"guard and worker SIGKILLed", func(owner string) error { p.Host[owner].KillAll(); return nil }, func(owner string) error { p.Start(owner); return nil }},
			{"stopped by its operator", p.Stop, func(owner string) error { p.Start(owner); return nil }},
		} {
			if err := moveOnce(p, m.name, want, m.move, m.after); err != nil {
				return err
			}
		}
		return nil
	})
}

func moveOnce(p *bootpair.Pair, name string, want []byte, move, after func(string) error) error {
	if err := p.AwaitTogether(60 * time.Second); err != nil {
		return err
	}
	owner, err := p.Owner()
	if err != nil {
		return err
	}
	gap := watch(p.Client)
	var moveErr error
	r, err := p.Load(tftpload.Options{Clients: moveClients, Want: want, Block: 1432, Firmware: bootpair.Firmware, Timeout: 120 * time.Second}, func() { moveErr = move(owner) })
	fmt.Printf("  %-10s %-27s %v; the address was silent for %v\n", "everboot", name, r, gap().Round(time.Millisecond))
	if err != nil || moveErr != nil {
		return fmt.Errorf("%w, %w", err, moveErr)
	}
	if after != nil {
		return after(owner)
	}
	return nil
}

// watch pings the floating address every few milliseconds; what it returns ends that and tells the longest time without an answer.
func watch(h *lab.Host) (stop func() time.Duration) {
	ctx, cancel := context.WithCancel(context.Background())
	longest := make(chan time.Duration, 1)
	go func() {
		var most time.Duration
		_ = h.Do(func() error {
			most = ping(ctx, netip.MustParseAddr(bootpair.VIP))
			return nil
		})
		longest <- most
	}()
	return func() time.Duration { cancel(); return <-longest }
}

// ping returns the longest time without an answer to an echo request (RFC 792).
func ping(ctx context.Context, to netip.Addr) (most time.Duration) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
	if err != nil {
		return 0
	}
	defer unix.Close(fd)
	wait := unix.Timeval{Usec: 5000}
	if unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait) != nil {
		return 0
	}
	request := []byte{8, 0, 0xf7, 0xff, 0, 0, 0, 0} // echo request, number 0
	buf, heard := make([]byte, 256), time.Time{}
	for next := time.Now(); ctx.Err() == nil; {
		if now := time.Now(); now.After(next) {
			_ = unix.Sendto(fd, request, 0, &unix.SockaddrInet4{Addr: to.As4()}) // lost, if not
			next = now.Add(5 * time.Millisecond)
		}
		n, from, err := unix.Recvfrom(fd, buf, 0)
		a, ok := from.(*unix.SockaddrInet4)
		if err != nil || !ok || n < 28 || buf[20] != 0 || netip.AddrFrom4(a.Addr) != to {
			continue
		}
		now := time.Now()
		if !heard.IsZero() {
			most = max(most, now.Sub(heard))
		}
		heard = now
	}
	return most
}

// movePeer gives a peer what our appliances give themselves: two hosts, of which the second has the address at once when the first is gone.
func movePeer(peer string, want []byte) error {
	return inLab(func(l *lab.Lab) error {
		lan, client := l.Segment("lan"), l.Host("clients")
		client.Join(lan, "198.18.1.1/15")
		root := filepath.Join(l.Dir(), "root")
		if err := os.Mkdir(root, 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(root, "file"), want, 0o644); err != nil {
			return err
		}
		var hosts []*lab.Host
		for i := range 2 {
			h := l.Host(fmt.Sprintf("server%d", i+1))
			h.Join(lan, fmt.Sprintf("198.18.0.%d/15", i+4))
			hosts = append(hosts, h)
		}
		run := func(h *lab.Host, argv ...string) {
			if out, err := h.Run(context.Background(), argv...); err != nil {
				fmt.Println(out, err)
			}
		}
		run(hosts[0], "ip", "address", "add", serverAddress+"/15", "dev", "eth0")
		for _, h := range hosts {
			h.Sysctl("ipv4/ip_nonlocal_bind", "1")
			if _, err := start(h, peer, root, false); err != nil {
				return err
			}
		}
		half, started := int64(moveClients)*fileSize/2, false
		var r tftpload.Result
		err := client.Do(func() (err error) {
			if err := await(peer, want); err != nil {
				return err
			}
			r, err = tftpload.Run(tftpload.Options{
				Server: netip.AddrPortFrom(netip.MustParseAddr(serverAddress), 69), Clients: moveClients, File: "file", Want: want, Block: 1432,
				Firmware: bootpair.Firmware, Timeout: 120 * time.Second,
				Progress: func(bytes int64) {
					if started || bytes < half {
						return
					}
					started = true
					hosts[0].Cables()[0].Cut()
					run(hosts[1], "ip", "address", "add", serverAddress+"/15", "dev", "eth0")
					run(client, "ip", "neighbour", "flush", "all")
				},
			})
			return err
		})
		fmt.Printf("  %-10s %-27s %v\n", peer, "cable cut", r)
		return err
	})
}

// await waits until a server serves, from the calling thread's host.
func await(peer string, want []byte) error {
	return lab.Eventually(30*time.Second, peer+" serves", func() error {
		r, err := tftpload.Run(tftpload.Options{
			Server: netip.AddrPortFrom(netip.MustParseAddr(serverAddress), 69), Clients: 1, File: "file", Want: want, Block: 1468,
			Firmware: func(int) tftpload.Firmware { return tftpload.IPXE }, Timeout: 20 * time.Second,
		})
		if err == nil && r.Complete != 1 {
			err = fmt.Errorf("%v", r)
		}
		return err
	})
}
