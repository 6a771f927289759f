package dhcp_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"everboot/dhcp"
	"everboot/internal/lab"
	"everboot/site"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestLabOneServer(t *testing.T) {
	n := newNetwork(t)
	n.device(n.client.MAC(), "")
	p := n.serve(n.a, "198.18.0.2", "198.18.0.3")
	lease := n.ask()
	if lease["serverid"] != "198.18.0.2" || lease["lease"] != "3600" || lease["mask"] != "24" || lease["router"] != "198.18.0.1" || lease["bootfile"] != "" {
		t.Errorf("lease %v", lease)
	}
	// It says that it is firmware: boot options, by way of the VIP, from our own address.
	boot := n.ask("-V", "PXEClient:Arch:00007:UNDI:003016", "-x", "0x5d:0007")
	if boot["siaddr"] != "198.18.0.10" || boot["boot_file"] != "snponly.efi" || boot["bootfile"] != "snponly.efi" || boot["tftp"] != "198.18.0.10" || boot.Addr() != lease.Addr() {
		t.Errorf("boot lease %v", boot)
	}
	if l := n.ask("-V", "PXEClient:Arch:00000:UNDI:002001", "-x", "0x5d:0000"); l["siaddr"] != "198.18.0.10" || l["boot_file"] != "undionly.kpxe" {
		t.Errorf("BIOS's lease %v", l)
	}
	// iPXE, with the user class as RFC 3004 has it.
	if l := n.ask("-V", "PXEClient:Arch:00007:UNDI:003010", "-x", "0x4d:0469505845"); l["boot_file"] != "bootstrap.ipxe" {
		t.Errorf("iPXE's lease %v", l)
	}
	// Broadcast flag; and a lease that outlives the server.
	if l := n.ask("-B"); l.Addr() != lease.Addr() {
		t.Errorf("with broadcast: %v", l)
	}
	p.Kill()
	n.serve(n.a, "198.18.0.2", "198.18.0.3")
	if l := n.ask(); l.Addr() != lease.Addr() {
		t.Errorf("after a restart: %v", l)
	}
	n.clean()
}

// TestLabRenewAndRelease runs udhcpc as a machine does: it configures the address, renews it by unicast when told, and
// gives it back when it ends.
func TestLabRenewAndRelease(t *testing.T) {
	n := newNetwork(t)
	p := n.serve(n.a, "198.18.0.2", "198.18.0.3")
	script := filepath.Join(n.lab.Dir(), "udhcpc.sh")
	text := "#!/bin/sh\necho $1 $ip\n[ -z \"$ip\" ] || busybox ip addr replace $ip/24 dev $interface\n"
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	c := n.c.Start("udhcpc", "busybox", "udhcpc", "-f", "-R", "-i", "eth0", "-s", script)
	expect(t, c, `bound 198\.18\.0\..*`)
	expect(t, p, `event \S+ ack .*an address of our part of the pool.*`)
	if err := c.Signal(syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	expect(t, c, `renew 198\.18\.0\..*`)
	expect(t, p, `event \S+ ack .*goes on with the lease.*`)
	if err := c.Stop(5 * time.Second); err != nil {
		t.Log(err) // udhcpc ends with a code of its own
	}
	expect(t, p, `event \S+ release .*`)
	renewals, err := n.lan.Decoded("dhcp.option.dhcp == 5 && dhcp.ip.client != 0.0.0.0", "ip.src", "ip.dst", "dhcp.ip.client", "dhcp.ip.your")
	if err != nil || len(renewals) != 1 {
		t.Fatalf("answers to the renewal: %v %v", renewals, err)
	}
	f := strings.Fields(renewals[0])
	if f[0] != "198.18.0.2" || f[1] != f[2] || f[2] != f[3] {
		t.Errorf("answer to the renewal: %v", f)
	}
	n.clean()
}

func expect(t *testing.T, p *lab.Process, pattern string) {
	t.Helper()
	if _, err := p.Expect(pattern, 10*time.Second); err != nil {
		t.Fatal(err)
	}
}

// TestLabAnAddressInUse: a machine whose address somebody typed in keeps it.
func TestLabAnAddressInUse(t *testing.T) {
	n := newNetwork(t)
	if _, err := n.b.Run(t.Context(), "ip", "addr", "add", "198.18.0.100/24", "dev", "eth0"); err != nil {
		t.Fatal(err)
	}
	cfg := n.config(n.a, "198.18.0.2", "198.18.0.3")
	cfg.Peers = nil
	p := n.launch(n.a, cfg)
	expect(t, p, "ready")
	if l := n.ask(); l["ip"] != "198.18.0.101" {
		t.Errorf("lease %v", l)
	}
	expect(t, p, `event \S+ in-use 198\.18\.0\.100 .*`)
	n.clean()
}

// TestLabTwoServers, without a word between them: both offer, the one that is chosen acknowledges, and any one of them is enough.
func TestLabTwoServers(t *testing.T) {
	n := newNetwork(t)
	first, second := n.serve(n.a, "198.18.0.2", "198.18.0.3"), n.serve(n.b, "198.18.0.3", "198.18.0.2")
	seen := make(map[netip.Addr]string)
	for i := range 8 {
		mac := fmt.Sprintf("52:54:00:00:07:%02x", i)
		if _, err := n.c.Run(t.Context(), "ip", "link", "set", "eth0", "address", mac); err != nil {
			t.Fatal(err)
		}
		l := n.ask()
		if other, ok := seen[l.Addr()]; ok {
			t.Errorf("%s was given to %s and %s", l.Addr(), other, mac)
		}
		seen[l.Addr()] = mac
	}
	// A client that is not answered in time asks again, and is answered again: what counts is who answers whom, not how often.
	n.offered(16)
	took, err := n.lan.Decoded("dhcp.option.dhcp == 3", "dhcp.hw.mac_addr", "dhcp.option.dhcp_server_id")
	if err != nil {
		t.Fatal(err)
	}
	acks, err := n.lan.Decoded("dhcp.option.dhcp == 5", "dhcp.hw.mac_addr", "ip.src")
	if err != nil {
		t.Fatal(err)
	}
	clients := make(map[string]bool)
	for _, ack := range acks {
		mac, server, _ := strings.Cut(ack, "\t")
		if clients[mac] = true; !slices.Contains(took, ack) {
			t.Errorf("%s acknowledges what %s did not take of it", server, mac)
		}
	}
	if len(clients) != 8 {
		t.Errorf("%d of 8 clients have an ACK", len(clients))
	}
	first.Kill()
	if l := n.ask(); l["serverid"] != "198.18.0.3" {
		t.Errorf("the survivor: %v", l)
	}
	if err := second.Stop(5 * time.Second); err != nil {
		t.Error(err)
	}
	n.clean()
}

// TestLabInterfaceMadeAnew: an interface that is deleted and made again under the same name is served again.
func TestLabInterfaceMadeAnew(t *testing.T) {
	n := newNetwork(t)
	run := func(argv ...string) {
		t.Helper()
		if _, err := n.a.Run(t.Context(), append([]string{"ip"}, argv...)...); err != nil {
			t.Fatal(err)
		}
	}
	create := func() {
		t.Helper()
		run("link", "add", "lan0", "link", "eth0", "type", "macvlan", "mode", "bridge")
		run("addr", "add", "198.18.0.4/24", "dev", "lan0")
		run("link", "set", "lan0", "up")
	}
	create()
	cfg := n.config(n.a, "198.18.0.4", "198.18.0.3")
	cfg.Interface = "lan0"
	p := n.launch(n.a, cfg)
	expect(t, p, "ready")
	lease := n.ask()
	run("link", "del", "lan0")
	expect(t, p, ".*DHCP lost its sockets.*")
	expect(t, p, ".*there is no interface lan0.*")
	create()
	expect(t, p, ".*DHCP serves again.*")
	if l := n.ask(); l.Addr() != lease.Addr() {
		t.Errorf("before %v, after %v", lease, l)
	}
}

// TestLabEveryKindOfMessageArrives, DECLINE among them, which few frames deliver.
func TestLabEveryKindOfMessageArrives(t *testing.T) {
	n := newNetwork(t)
	p := n.serve(n.a, "198.18.0.2", "198.18.0.3")
	conn, err := n.b.Dial(t.Context(), "udp4", "198.18.0.2:67")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	mac := net.HardwareAddr{0x52, 0x54, 0, 0, 0, 7}
	for _, kind := range []dhcpv4.MessageType{dhcpv4.MessageTypeDecline, dhcpv4.MessageTypeInform, dhcpv4.MessageTypeRelease} {
		q, err := dhcpv4.New(dhcpv4.WithHwAddr(mac), dhcpv4.WithMessageType(kind), dhcpv4.WithClientIP(net.IP{198, 18, 0, 3}))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write(q.ToBytes()); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		expect(t, p, `event \S+ (ack|release|decline) .*`)
	}
}

// TestLabRelay: a client behind a relay agent gets an address of its own network, renews it through the router, and is refused
// an address of another network.
func TestLabRelay(t *testing.T) {
	n := newNetwork(t)
	far, r, d := n.lab.Segment("far"), n.lab.Host("r"), n.lab.Host("d")
	r.Join(far, "198.18.7.1/24")
	r.Join(n.lan, "198.18.0.1/24")
	d.Join(far)
	run := func(h *lab.Host, argv ...string) {
		t.Helper()
		if _, err := h.Run(t.Context(), argv...); err != nil {
			t.Fatal(err)
		}
	}
	run(r, "sysctl", "-qw", "net.ipv4.ip_forward=1")
	run(n.a, "ip", "route", "add", "198.18.7.0/24", "via", "198.18.0.1")
	cfg := n.config(n.a, "198.18.0.2", "198.18.0.3")
	cfg.Peers = nil
	cfg.Subnets = append(cfg.Subnets, dhcp.Subnet{
		Network: netip.MustParsePrefix("198.18.7.0/24"), Range: [2]netip.Addr{ip("198.18.7.10"), ip("198.18.7.20")}, Router: ip("198.18.7.1"),
	})
	p := n.launch(n.a, cfg)
	expect(t, p, "ready")
	lab.Dnsmasq(r, "--dhcp-relay=198.18.7.1,198.18.0.2,eth1")
	if err := lab.Eventually(20*time.Second, "a lease through the relay", func() error {
		l, err := lab.Udhcpc(d, "eth0")
		if err == nil && (l["ip"] != "198.18.7.10" || l["router"] != "198.18.7.1" || l["serverid"] != "198.18.0.2") {
			t.Errorf("lease %v", l)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	run(d, "ip", "addr", "add", "198.18.7.10/24", "dev", "eth0")
	run(d, "ip", "route", "add", "default", "via", "198.18.7.1")
	conn, err := d.ListenPacket("udp4", "198.18.7.10:68")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	q, err := dhcpv4.New(dhcpv4.WithHwAddr(d.Cables()[0].MAC()), dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest), dhcpv4.WithClientIP(net.IP{198, 18, 7, 10}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.WriteTo(q.ToBytes(), &net.UDPAddr{IP: net.IP{198, 18, 0, 2}, Port: 67}); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1500)
	if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	size, from, err := conn.ReadFrom(b)
	if err != nil || from.String() != "198.18.0.2:67" {
		t.Fatalf("answer to the renewal: from %v, %v", from, err)
	}
	if a, err := dhcpv4.FromBytes(b[:size]); err != nil || a.MessageType() != dhcpv4.MessageTypeAck || a.YourIPAddr.String() != "198.18.7.10" {
		t.Errorf("answer to the renewal: %v %v", a, err)
	}
	n.clean()
}

// TestLabReservation: both give a known machine the same address.
func TestLabReservation(t *testing.T) {
	n := newNetwork(t)
	n.device(n.client.MAC(), "198.18.0.51")
	for _, s := range []struct {
		h          *lab.Host
		self, peer string
	}{{n.a, "198.18.0.2", "198.18.0.3"}, {n.b, "198.18.0.3", "198.18.0.2"}} {
		p := n.serve(s.h, s.self, s.peer)
		if l := n.ask("-x", "0x3d:00deadbeef"); l["ip"] != "198.18.0.51" || l["serverid"] != s.self {
			t.Errorf("%s: %v", s.self, l)
		}
		p.Kill()
	}
	n.clean()
}

// TestLabPortTaken: a second server is refused, with the name of the first; and on another interface it does no harm.
func TestLabPortTaken(t *testing.T) {
	n := newNetwork(t)
	p := n.serve(n.a, "198.18.0.2", "198.18.0.3")
	cfg := n.config(n.a, "198.18.0.2", "198.18.0.3")
	cfg.LeaseFile += ".second"
	second := n.launch(n.a, cfg)
	want := fmt.Sprintf(`dhcp: UDP port 67 is taken by dhcp\.test \(pid %d\): stop it, .*`, p.PID())
	expect(t, second, want)
	if err := second.Wait(5 * time.Second); err == nil {
		t.Error("it ended well")
	}
	if errs := check(n.a, cfg); len(errs) != 1 || !strings.Contains(errs[0].Error(), "is taken by dhcp.test") {
		t.Errorf("check: %v", errs)
	}
	p.Kill()
	if errs := check(n.a, cfg); len(errs) != 0 {
		t.Errorf("check, when it is gone: %v", errs)
	}
	if err := n.a.Do(func() error { return bindElsewhere(t) }); err != nil {
		t.Fatal(err)
	}
	want = "" // a socket that is bound to another interface does no harm, if the kernel tells to which
	if err := n.a.Do(func() error { _, err := netlink.SocketDiagUDP(unix.AF_INET); return err }); err != nil {
		want = "is taken by dhcp.test"
	}
	if errs := check(n.a, cfg); (len(errs) != 0) != (want != "") || want != "" && !strings.Contains(errs[0].Error(), want) {
		t.Errorf("check beside a socket of another interface: %v, want %q", errs, want)
	}
	cfg.ServerAddress, cfg.Peers = ip("198.18.0.77"), nil
	if errs := check(n.b, cfg); len(errs) != 1 || !strings.Contains(errs[0].Error(), "eth0 does not have the server address 198.18.0.77; it has 198.18.0.3/24") {
		t.Errorf("check of another address: %v", errs)
	}
	if errs := check(n.c, cfg); len(errs) != 1 || !strings.Contains(errs[0].Error(), "eth0 has no IPv4 address: give it 198.18.0.77") {
		t.Errorf("check without an address: %v", errs)
	}
}

func check(h *lab.Host, cfg dhcp.Config) (errs []error) {
	if err := h.Do(func() error { errs = dhcp.Check(cfg, nil); return nil }); err != nil {
		errs = append(errs, err)
	}
	return errs
}

func bindElsewhere(t *testing.T) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.BindToDevice(fd, "lo"); err != nil {
		return err
	}
	return unix.Bind(fd, &unix.SockaddrInet4{Port: 67})
}

// TestLabInOneProcess: several servers in one process, each with sockets in the namespace where it was opened.
func TestLabInOneProcess(t *testing.T) {
	n := newNetwork(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 2)
	for _, s := range []struct {
		h          *lab.Host
		self, peer string
	}{{n.a, "198.18.0.2", "198.18.0.3"}, {n.b, "198.18.0.3", "198.18.0.2"}} {
		d, err := dhcp.New(n.config(s.h, s.self, s.peer), func() *site.View { return n.view }, nil, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.h.Do(d.Open); err != nil {
			t.Fatal(err)
		}
		go func() { done <- d.Run(ctx) }()
	}
	if l := n.ask(); !l.Addr().IsValid() {
		t.Errorf("lease %v", l)
	}
	n.offered(2)
	cancel()
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	n.clean()
}
