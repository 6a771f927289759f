package main

import (
	"context"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"everboot/appliance/web"
	"everboot/internal/lab"
	"everboot/site"
)

func TestMain(m *testing.M) { os.Exit(lab.TestMain(m)) }

// TestLabUdhcpc: a stock coredhcp gives udhcpc its address, and our plugin the boot file, as long as the appliance says that there is something
// to boot.
func TestLabUdhcpc(t *testing.T) {
	l := lab.ForTest(t)
	lan, a, c := l.Segment("lan"), l.Host("a"), l.Host("c")
	a.Join(lan, "198.18.0.2/24")
	cable := c.Join(lan)
	lan.Capture("lan")
	program := filepath.Join(l.Dir(), "coredhcp")
	build := exec.Command("go", "build", "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building: %v\n%s", err, out)
	}
	var down atomic.Bool
	serve(t, a, &down)
	write := func(name, text string) string {
		path := filepath.Join(l.Dir(), name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	leases := write("leases4", cable.MAC().String()+" 198.18.0.51\n")
	config := write("coredhcp.yml", `server4:
  listen: "%eth0"
  plugins:
    - lease_time: 3600s
    - server_id: 198.18.0.2
    - netmask: 255.255.255.0
    - router: 198.18.0.1
    - everboot: http://198.18.0.2:8667
    - file: `+leases+`
`)
	p := a.Start("coredhcp", program, config)
	if _, err := p.Expect(`.*Listen.*`, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	pxe := []string{"-V", "PXEClient:Arch:00007:UNDI:003016", "-x", "0x5d:0007"}
	ask := func(args ...string) lab.Lease {
		t.Helper()
		lease, err := lab.Udhcpc(c, "eth0", args...)
		if err != nil {
			t.Fatal(err)
		}
		return lease
	}
	if got := ask(pxe...); got["ip"] != "198.18.0.51" || got["siaddr"] != "198.18.0.10" || got["bootfile"] != "snponly.efi" || got["boot_file"] != "snponly.efi" || got["tftp"] != "198.18.0.10" {
		t.Errorf("firmware: %v", got)
	}
	if got := ask(); got["ip"] != "198.18.0.51" || got["bootfile"] != "" {
		t.Errorf("an operating system: %v", got)
	}
	down.Store(true)
	if got := ask(pxe...); got["ip"] != "198.18.0.51" || got["bootfile"] != "" || got["tftp"] != "" {
		t.Errorf("firmware, when nothing is to be booted: %v", got)
	}
	bad, err := lan.Decoded("dhcp.type == 2 && _ws.malformed")
	if err != nil || len(bad) > 0 {
		t.Errorf("tshark finds fault with %v, %v", bad, err)
	}
}

// appliance is what the plugin asks.
type appliance struct {
	web.Backend
	down *atomic.Bool
}

func (a appliance) Offer(site.BootRequest) web.BootOffer {
	if a.down.Load() {
		return web.BootOffer{Reason: site.NoHealthyStreamer}
	}
	return web.BootOffer{Offer: site.Offer{Server: netip.MustParseAddr("198.18.0.10"), File: site.FileX64}, Reason: site.Offered}
}

// serve runs an appliance's API on a host.
func serve(t *testing.T, h *lab.Host, down *atomic.Bool) {
	var s *web.Server
	if err := h.Do(func() (err error) {
		s, err = web.NewServer(web.Config{Listen: "198.18.0.2:8667"}, appliance{down: down}, slog.New(slog.DiscardHandler))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
