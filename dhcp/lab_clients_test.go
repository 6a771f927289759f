package dhcp_test

import (
	"path/filepath"
	"testing"
	"time"

	"everboot/internal/lab"
)

// TestLabClients: the DHCP clients that operating systems have take a lease, and the same address each time they ask.
func TestLabClients(t *testing.T) {
	n := newNetwork(t)
	lab.Need(t, "dhclient", "dhcpcd", "udhcpc")
	n.serve(n.a, "198.18.0.2", "198.18.0.3")
	n.clients(`198\.18\.0\.1\d\d`)
	n.clean()
}

// TestLabProxyClients: beside somebody else's server we leave alone who does not boot, also a device of the site.
func TestLabProxyClients(t *testing.T) {
	n := newNetwork(t)
	lab.Need(t, "dhclient", "dhcpcd", "udhcpc")
	lab.Dnsmasq(n.b, "--dhcp-range=198.18.0.100,198.18.0.150,255.255.255.0,1h")
	n.device(n.client.MAC(), "")
	p := n.launchProxy(n.a, n.config(n.a, "198.18.0.2", "198.18.0.3"))
	expect(t, p, "ready")
	n.clients(`198\.18\.0\.1[0-5]\d`)
	ours := "dhcp.type == 2 && ip.src == 198.18.0.2"
	if said, err := n.lan.Decoded(ours); err != nil || len(said) > 0 {
		t.Errorf("the proxy answered clients that do not boot: %v %v", said, err)
	}
}

// dhcpcd is a command with folders of its own for what it would leave on the host: a run that is killed leaves a file that keeps the next from starting.
func dhcpcd(args ...string) []string {
	const own = `mount -t tmpfs none /run; mount -t tmpfs none /var/lib; mkdir /run/dhcpcd /var/lib/dhcpcd; exec dhcpcd "$@"`
	return append([]string{"unshare", "-m", "sh", "-ec", own, "dhcpcd"}, args...)
}

// clients has each client on c take a lease that fits a pattern; udhcpc, dhclient and dhcpcd.
func (n *network) clients(pattern string) {
	t := n.t
	t.Helper()
	lease := n.ask() // udhcpc
	dir := n.lab.Dir()
	for name, argv := range map[string][]string{
		"dhclient": {"dhclient", "-4", "-d", "-1", "-v", "-sf", "/bin/true", "-lf", filepath.Join(dir, "dhclient.leases"), "-pf", filepath.Join(dir, "dhclient.pid"), "eth0"},
		"dhcpcd":   dhcpcd("-4", "-1", "-B", "-A", "-d", "-f", "/dev/null", "-c", "/bin/true", "-t", "15", "eth0"),
	} {
		p := n.c.Start(name, argv...)
		want := `(bound to|leased) ` + pattern
		if _, err := p.Expect(want, 20*time.Second); err != nil {
			t.Errorf("%s: %v\n%s", name, err, p.Log())
		}
		p.Kill()
	}
	if l := n.ask(); l.Addr() != lease.Addr() {
		t.Errorf("udhcpc had %v, has %v", lease.Addr(), l.Addr())
	}
}
