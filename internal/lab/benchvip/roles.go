package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"everboot/internal/lab"
	"everboot/site"
	"everboot/vip"
)

// The bench starts itself again as routers, for what needs more than the appliance's configuration says.
const (
	envRole        = "BENCHVIP_ROLE" // a JSON list of vip.Config
	envConnections = "BENCHVIP_CONNECTIONS"
)

// play runs routers until SIGTERM.
func play(role string) int {
	var configs []vip.Config
	if err := json.Unmarshal([]byte(role), &configs); err != nil {
		fmt.Println(err)
		return 2
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	if path := os.Getenv(envConnections); path != "" {
		for i := range configs {
			configs[i].Connections = func() []site.Connection { return readConnections(path) }
		}
	}
	routers, err := vip.NewAll(configs, slog.New(slog.DiscardHandler))
	if err != nil {
		fmt.Println(err)
		return 1
	}
	var all sync.WaitGroup
	for _, r := range routers {
		all.Go(func() {
			if err := r.Run(ctx); err != nil {
				fmt.Println(err)
			}
		})
	}
	all.Wait()
	return 0
}

func readConnections(path string) []site.Connection {
	var list []site.Connection
	if text, err := os.ReadFile(path); err == nil {
		_ = json.Unmarshal(text, &list) // half written: none
	}
	return list
}

func startRouters(h *lab.Host, connections string, configs ...vip.Config) error {
	role, err := json.Marshal(configs)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	h.StartWith(lab.Settings{Env: []string{envRole + "=" + string(role), envConnections + "=" + connections}}, "routers", self)
	return nil
}

// tcpReset measures how long a client whose request was acknowledged waits until it knows that the host is dead and is connected
// again, with 100 ms advertisements.
func tcpReset(runs int) error {
	var took []time.Duration
	for range runs {
		r, err := newRig()
		if err != nil {
			return err
		}
		d, err := r.tcpReset()
		if closeErr := r.close(); err == nil {
			err = closeErr
		}
		if err != nil {
			return fmt.Errorf("TCP through a silent host's death: %w", err)
		}
		took = append(took, d)
	}
	slices.Sort(took)
	fmt.Printf("TCP connection through a silent host's death, 100 ms advertisements, with tickle: connected again after %s; without (keepalived): its own time-out\n", spread(took))
	return nil
}

func (r *rig) tcpReset() (time.Duration, error) {
	list := r.dir + "/connections"
	cfg := vip.Config{Interface: "eth0", Addresses: []netip.Prefix{netip.MustParsePrefix(floating + "/24")}, VRID: 51, Priority: 200}
	if err := startRouters(r.a, list, cfg); err != nil {
		return 0, err
	}
	if err := lab.Eventually(patience, "a owns the address", func() bool { return r.a.Has(floating) }); err != nil {
		return 0, err
	}
	cfg.Priority = 100
	if err := startRouters(r.b, list, cfg); err != nil {
		return 0, err
	}
	for _, h := range []*lab.Host{r.a, r.b} {
		if err := h.Do(func() error {
			return os.WriteFile("/proc/sys/net/ipv4/ip_nonlocal_bind", []byte("1"), 0o644)
		}); err != nil {
			return 0, err
		}
		l, err := h.Listen("tcp", fmt.Sprintf("%s:%d", floating, port))
		if err != nil {
			return 0, err
		}
		defer l.Close()
	}
	time.Sleep(1500 * time.Millisecond) // b knows of a
	address := fmt.Sprintf("%s:%d", floating, port)
	c, err := r.c.Dial(context.Background(), "tcp", address)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	text, err := json.Marshal([]site.Connection{{Local: netip.MustParseAddrPort(address), Remote: netip.MustParseAddrPort(c.LocalAddr().String())}})
	if err != nil {
		return 0, err
	}
	if err := os.WriteFile(list, text, 0o600); err != nil {
		return 0, err
	}
	r.cable.Silence(true)
	began := time.Now()
	if err := c.SetReadDeadline(began.Add(patience)); err != nil {
		return 0, err
	}
	if _, err := c.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "reset") {
		return 0, fmt.Errorf("the client's read returned %v, want a reset", err)
	}
	again, err := r.c.Dial(context.Background(), "tcp", address)
	if err != nil {
		return 0, err
	}
	return time.Since(began), again.Close()
}

// manyRouters measures the processor time of 255 virtual routers on one interface with 1 s advertisements, as the active ones and
// as the backups.
func manyRouters(int) error {
	const span = 10 * time.Second
	var configs []vip.Config
	var conf strings.Builder
	for id := 1; id <= 255; id++ {
		address := fmt.Sprintf("198.18.1.%d/16", id)
		configs = append(configs, vip.Config{Interface: "eth0", Addresses: []netip.Prefix{netip.MustParsePrefix(address)}, VRID: id, AdvertInterval: time.Second})
		fmt.Fprintf(&conf, "vrrp_instance v%d {\n version 3\n nopreempt\n state BACKUP\n interface eth0\n virtual_router_id %d\n priority 100\n advert_int 1\n virtual_ipaddress { %s }\n}\n", id, id, address)
	}
	for _, p := range []struct {
		name  string
		start func(h *lab.Host) error
	}{
		{"keepalived", func(h *lab.Host) error { lab.Keepalived(h, conf.String()); return nil }},
		{"everboot", func(h *lab.Host) error { return startRouters(h, "", configs...) }},
	} {
		active, backup, err := idle(p.start, span)
		if err != nil {
			return fmt.Errorf("255 virtual routers, %s: %w", p.name, err)
		}
		fmt.Printf("255 virtual routers, 1 s advertisements: %-12s %4.1f %% of a core active, %4.1f %% backup\n", p.name, active, backup)
	}
	return nil
}

func idle(start func(h *lab.Host) error, span time.Duration) (active, backup float64, err error) {
	dir, err := os.MkdirTemp("", "benchvip-")
	if err != nil {
		return 0, 0, err
	}
	defer os.RemoveAll(dir)
	l, err := lab.Open(lab.Options{Dir: dir})
	if err != nil {
		return 0, 0, err
	}
	defer l.Close()
	seg := l.Segment("lan")
	a, b := l.Host("a"), l.Host("b")
	a.Join(seg, "198.18.0.2/16")
	b.Join(seg, "198.18.0.3/16")
	if err := start(a); err != nil {
		return 0, 0, err
	}
	if err := lab.Eventually(60*time.Second, "a owns all addresses", func() bool { return len(a.Addresses()) >= 256 }); err != nil {
		return 0, 0, err
	}
	if err := start(b); err != nil {
		return 0, 0, err
	}
	time.Sleep(10 * time.Second) // the announcements are over
	if n := len(b.Addresses()); n > 2 {
		return 0, 0, fmt.Errorf("b has %d addresses", n)
	}
	share := func(h *lab.Host) (func() (float64, error), error) {
		before, err := processorTime(h)
		return func() (float64, error) {
			after, err := processorTime(h)
			return 100 * float64(after-before) / float64(span), err
		}, err
	}
	endA, err := share(a)
	if err != nil {
		return 0, 0, err
	}
	endB, err := share(b)
	if err != nil {
		return 0, 0, err
	}
	time.Sleep(span)
	if active, err = endA(); err != nil {
		return 0, 0, err
	}
	backup, err = endB()
	return active, backup, err
}
