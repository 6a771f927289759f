package dhcp_test

import (
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"everboot/internal/lab"
)

// TestLabClients: the DHCP clients that operating systems have take a lease, and the same address each time they ask.
func TestLabClients(t *testing.T) {
	n := newNetwork(t)
	lab.Need(t, "dhclient", "dhcpcd", "udhcpc")
	n.serve(n.a, "198.18.0.2", "198.18.0.3")
	lease := n.ask() // udhcpc
	dir := n.lab.Dir()
	for name, argv := range map[string][]string{
		"dhclient": {"dhclient", "-4", "-d", "-1", "-v", "-sf", "/bin/true", "-lf", filepath.Join(dir, "dhclient.leases"), "-pf", filepath.Join(dir, "dhclient.pid"), "eth0"},
		"dhcpcd":   {"dhcpcd", "-4", "-1", "-B", "-A", "-d", "-f", "/dev/null", "-c", "/bin/true", "-t", "15", "eth0"},
	} {
		p := n.c.Start(name, argv...)
		want := `(bound to|leased) 198\.18\.0\.\d+`
		if _, err := p.Expect(want, 20*time.Second); err != nil {
			t.Errorf("%s: %v\n%s", name, err, p.Log())
		}
		p.Kill()
	}
	if l := n.ask(); l.Addr() != lease.Addr() {
		t.Errorf("udhcpc had %v, has %v", lease.Addr(), l.Addr())
	}
	n.clean()
}

// TestLabProxy: UEFI, and the iPXE that it loads, take their address from dnsmasq and where to boot from from our proxy.
func TestLabProxy(t *testing.T) {
	n := newNetwork(t)
	n.b.Join(n.lan, "198.18.0.10/24")
	lab.RouterAdvertiser(n.b)
	root := bootRoot(t)
	lab.Dnsmasq(n.b, "--enable-tftp", "--tftp-root="+root, "--tftp-single-port", "--dhcp-range=198.18.0.100,198.18.0.150,255.255.255.0,1h")
	n.b.Start("httpd", "busybox", "httpd", "-f", "-p", "198.18.0.10:80", "-h", root)
	mac := net.HardwareAddr{0x52, 0x54, 0, 0, 0, 1}
	n.device(mac, "")
	p := n.launchProxy(n.a, n.config(n.a, "198.18.0.2", "198.18.0.3"))
	if _, err := p.Expect("ready", 10*time.Second); err != nil {
		t.Fatal(err)
	}
	m, err := n.lab.Machine(lab.MachineConfig{Name: "t1", Segment: n.lan, MAC: mac.String(), Firmware: lab.UEFI})
	if err != nil {
		t.Fatal(err)
	}
	// Where the script itself came from, not ${next-server}: with two answers that is the one of the settings which changed last, and
	// one more router advertisement makes it the other server's own siaddr.
	for _, want := range []string{`tftp://198\.18\.0\.10/bootstrap\.ipxe\.\.\. ok`, `BOOTSTRAP at 198\.18\.0\.1[0-5]\d`} {
		if _, err := m.Expect(want, 3*time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	bad, err := n.lan.Decoded("dhcp.type == 2 && ip.src == 198.18.0.2 && (_ws.malformed || _ws.expert.severity >= 0x00600000)")
	if err != nil || len(bad) > 0 {
		t.Errorf("tshark finds fault with %s: %v", strings.Join(bad, "\n"), err)
	}
}
