package dhcp_test

import (
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"everboot/dhcp/v6"
	"everboot/internal/lab"
	"everboot/site"
)

// newNetwork6 is a network in which servers give IPv6 addresses, too.
func newNetwork6(t *testing.T) *network {
	n := newNetwork(t)
	n.six = &v6.Config{
		Interface: "eth0", Site: "lab", Addresses: []netip.Addr{ip("2001:db8::10")},
		Subnets: []v6.Subnet{{
			Network: netip.MustParsePrefix("2001:db8::/64"), Ranges: [][2]netip.Addr{{ip("2001:db8::1:0"), ip("2001:db8::1:ffff")}},
			DNS: []netip.Addr{ip("2001:db8::53")},
		}},
	}
	return n
}

// TestLabClients6: the DHCPv6 clients of operating systems take an address of two servers that know nothing of each other, both of which
// answer: the same one. tshark finds no fault with any answer.
func TestLabClients6(t *testing.T) {
	n := newNetwork6(t)
	lab.Need(t, "dhclient", "dhcpcd", "perfdhcp")
	n.serve(n.a, "198.18.0.2", "198.18.0.3")
	n.serve(n.b, "198.18.0.3", "198.18.0.2")
	dir := n.lab.Dir()
	conf := filepath.Join(dir, "dhcpcd.conf")
	if err := os.WriteFile(conf, []byte("noipv6rs\ninterface eth0\nipv6only\nia_na\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		argv []string
		want string
	}{
		"dhclient": {[]string{"dhclient", "-6", "-d", "-1", "-v", "-sf", "/bin/true", "-lf", filepath.Join(dir, "dhclient6.leases"), "-pf", filepath.Join(dir, "dhclient6.pid"), "eth0"}, `IAADDR (2001:db8::1:[0-9a-f]+)`},
		"dhcpcd":   {dhcpcd("-6", "-1", "-B", "-d", "-f", conf, "-c", "/bin/true", "-t", "15", "eth0"), `adding address (2001:db8::1:[0-9a-f]+)/`},
	} {
		h := n.lab.Host(name) // each its own: they leave helpers behind that keep the port
		h.Join(n.lan)
		p := h.Start(name, c.argv...)
		if _, err := p.Expect(c.want, 20*time.Second); err != nil {
			t.Errorf("%s: %v\n%s", name, err, p.Log())
		}
		p.Kill()
	}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	// Solicit, request, renew and release of 50 clients, and information-requests.
	out, err := n.c.Run(ctx, "perfdhcp", "-6", "-r", "100", "-f", "20", "-F", "20", "-R", "50", "-p", "3", "-W", "5000000", "-l", "eth0", "ff02::1:2")
	drops := regexp.MustCompile(`drops: (\d+)`).FindAllStringSubmatch(out, -1)
	if len(drops) < 2 {
		t.Fatalf("perfdhcp: %v: %s", err, out)
	}
	for _, d := range drops {
		if d[1] != "0" {
			t.Errorf("perfdhcp lost answers: %s", out)
			break
		}
	}
	n.clean6()
}

// clean6 fails the test if tshark finds anything wrong in what DHCPv6 servers sent, or two of them said different things.
func (n *network) clean6() {
	n.t.Helper()
	bad, err := n.lan.Decoded("udp.srcport == 547 && dhcpv6 && !icmpv6 && (_ws.malformed || _ws.expert.severity >= 0x00600000)")
	if err != nil || len(bad) > 0 {
		n.t.Errorf("tshark finds fault with: %v\n%s", err, strings.Join(bad, "\n"))
	}
	said, err := n.lan.Decoded("udp.srcport == 547 && dhcpv6.iaaddr.ip && !icmpv6", "dhcpv6.duid.bytes", "dhcpv6.iaaddr.ip", "ipv6.src")
	if err != nil || len(said) == 0 {
		n.t.Fatalf("no answers in the capture: %v", err)
	}
	given, servers := make(map[string]string), make(map[string]bool)
	for _, line := range said {
		f := strings.Split(line, "\t")
		if had, ok := given[f[0]]; ok && had != f[1] {
			n.t.Errorf("client and server %s: %s of one, %s of another", f[0], had, f[1])
		}
		given[f[0]], servers[f[2]] = f[1], true
	}
	if len(servers) != 2 {
		n.t.Errorf("answers came from %v", servers)
	}
}

// TestLabMachine6: OVMF takes an IPv6 address and a URL to boot from by PXE from DHCPv6, with our own router advertisements, and iPXE the same, up
// to the bootstrap. Over IPv4 nothing is offered.
func TestLabMachine6(t *testing.T) {
	n := newNetwork6(t)
	n.ra = true
	up := site.Check{Health: site.Up}
	n.view.Boot = site.BootService{Address6: ip("2001:db8::10"), TFTP6: up, HTTP6: up}
	n.b.Join(n.lan, "2001:db8::10/64")
	root := bootRoot(t)
	lab.Dnsmasq(n.b, "--enable-tftp", "--tftp-root="+root, "--tftp-single-port")
	n.b.Start("httpd", "busybox", "httpd", "-f", "-p", "[2001:db8::10]:80", "-h", root)
	mac := net.HardwareAddr{0x52, 0x54, 0, 0, 0, 1}
	d := site.Device{MAC: site.MAC(mac), VDisk: "debian", Address6: ip("2001:db8::51")}
	n.view.Devices[d.MAC] = d
	n.serve(n.a, "198.18.0.2", "198.18.0.3")
	m, err := n.lab.Machine(lab.MachineConfig{
		Name: "t1", Segment: n.lan, MAC: mac.String(), Firmware: lab.UEFI, Extra: without("IPv4PXESupport"),
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`NBP filename is snponly\.efi`, `tftp://\[2001:db8::10\]/bootstrap\.ipxe\.\.\. ok`, "BOOTSTRAP"} {
		if _, err := m.Expect(want, 4*time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	seen, err := n.lan.Decoded("udp.srcport == 547 && dhcpv6.iaaddr.ip", "dhcpv6.iaaddr.ip")
	if err != nil || len(seen) == 0 || seen[0] != "2001:db8::51" {
		t.Errorf("given: %q %v", seen, err)
	}
}
