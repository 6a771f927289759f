package dhcp_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"everboot/internal/lab"
	"everboot/site"
)

// TestLabOtherServersAreNamed: dnsmasq that gives addresses, a dnsmasq that is a boot server alone, and Kea that gives addresses with a boot file. As a DHCP
// server we name all, as a proxy those that say where to boot from; our other node, which serves the same segment, is not named, and nobody has a lease after.
func TestLabOtherServersAreNamed(t *testing.T) {
	t.Run("server", func(t *testing.T) { otherServersAreNamed(t, false) })
	t.Run("proxy", func(t *testing.T) { otherServersAreNamed(t, true) })
}

func otherServersAreNamed(t *testing.T, proxy bool) {
	n := newNetwork(t)
	if !proxy {
		n.serve(n.b, "198.18.0.3", "198.18.0.2")
	}
	gives, boots, kea := n.lab.Host("gives"), n.lab.Host("boots"), n.lab.Host("kea")
	var mac []string
	for i, h := range []*lab.Host{gives, boots, kea} {
		mac = append(mac, h.Join(n.lan, fmt.Sprintf("198.18.0.%d/24", 5+i)).MAC().String())
	}
	lab.Dnsmasq(gives, "--dhcp-range=198.18.0.200,198.18.0.210,255.255.255.0,1h")
	lab.Dnsmasq(boots, "--dhcp-range=198.18.0.0,proxy", "--pxe-service=X86-64_EFI,boot,x.efi")
	lab.Kea(kea, `{"subnet": "198.18.0.0/24", "pools": [{"pool": "198.18.0.220-198.18.0.230"}], "next-server": "198.18.0.7", "boot-file-name": "x.efi"}`)

	p := n.start(n.a, served{Config: n.config(n.a, "198.18.0.2", "198.18.0.3"), View: n.view, Proxy: proxy, Search: true})
	if !proxy {
		named(t, p, "198.18.0.5", mac[0], "gives addresses on")
	}
	named(t, p, "198.18.0.6", mac[1], "says where to boot from on")
	named(t, p, "198.18.0.7", mac[2], "gives addresses and says where to boot from on")
	out := p.Log()
	if strings.Contains(out, "other-server another DHCP server, 198.18.0.3") || proxy && strings.Contains(out, "other-server another DHCP server, 198.18.0.5") {
		t.Errorf("proxy %v: too many are named:\n%s", proxy, out)
	}
	text, err := os.ReadFile(filepath.Join(n.lab.Dir(), "gives-dnsmasq.leases"))
	if err != nil || strings.Contains(string(text), "198.18.0.2") {
		t.Errorf("it has leases: %q, %v", text, err)
	}
	if text, err := os.ReadFile(filepath.Join(n.lab.Dir(), "kea-kea", "leases.csv")); err != nil || strings.Contains(string(text), "198.18.0.2") {
		t.Errorf("Kea has leases: %q, %v", text, err)
	}
	if err := lab.Eventually(20*time.Second, "the question is repeated", func() error {
		asked, err := n.lan.Decoded("dhcp.option.dhcp == 1", "dhcp.secs")
		if err == nil && !slices.Equal(asked[:min(len(asked), 2)], []string{"0", "10"}) { // the next search may have begun
			err = fmt.Errorf("asked %q", asked)
		}
		return err
	}); err != nil {
		t.Error(err)
	}
	if bad, err := n.lan.Decoded("dhcp.type == 1 && (_ws.malformed || _ws.expert.severity >= 0x00600000)"); err != nil || len(bad) > 0 {
		t.Errorf("tshark finds fault with the question: %q, %v", bad, err)
	}
	if requests, err := n.lan.Decoded("dhcp.option.dhcp == 3", "ip.src"); err != nil || len(requests) > 0 {
		t.Errorf("something was asked for: %q, %v", requests, err)
	}
}

// named waits until a search has named a server.
func named(t *testing.T, p *lab.Process, server, mac, does string) {
	t.Helper()
	line := "event " + mac + " other-server another DHCP server, " + server + " (from " + server + ", MAC " + mac + "), " + does
	if err := lab.Eventually(time.Minute, server+" is named", func() bool { return strings.Contains(p.Log(), line) }); err != nil {
		t.Errorf("%v\n%s", err, p.Log())
	}
}

// TestLabTwoSitesOnOneSegment: a forgotten everboot, whether it gives addresses or is a proxy, and of whichever site, is named with its site; our other node is
// not. Nobody is given an address for it, and dnsmasq, that both nodes of a site ask, offers one to both.
func TestLabTwoSitesOnOneSegment(t *testing.T) {
	n := newNetwork(t)
	server, proxy, pair, gives := n.lab.Host("server"), n.lab.Host("proxy"), n.lab.Host("pair"), n.lab.Host("gives")
	var mac []string
	for i, h := range []*lab.Host{server, proxy, pair, gives} {
		mac = append(mac, h.Join(n.lan, fmt.Sprintf("198.18.0.%d/24", 5+i)).MAC().String())
	}
	lab.Dnsmasq(gives, "--dhcp-range=198.18.0.200,198.18.0.250,255.255.255.0,1h")
	forgotten := func(h *lab.Host, name, address string, proxy bool) {
		cfg, v := n.config(h, address, "198.18.0.99"), *n.view
		cfg.Peers = nil
		v.Site, v.Appliances = name, []site.Appliance{{Address: ip(address)}}
		if _, err := n.start(h, served{Config: cfg, View: &v, Proxy: proxy}).Expect("ready", 10*time.Second); err != nil {
			t.Fatal(err)
		}
	}
	forgotten(server, "old", "198.18.0.5", false)
	forgotten(proxy, "attic", "198.18.0.6", true)
	forgotten(pair, n.view.Site, "198.18.0.7", false)
	both := []*lab.Process{
		n.start(n.a, served{Config: n.config(n.a, "198.18.0.2", "198.18.0.3"), View: n.view, Search: true}),
		n.start(n.b, served{Config: n.config(n.b, "198.18.0.3", "198.18.0.2"), View: n.view, Search: true}),
	}
	for _, p := range both {
		named(t, p, "198.18.0.5", mac[0], `an everboot of site "old", gives addresses and says where to boot from`)
		named(t, p, "198.18.0.6", mac[1], `an everboot of site "attic", says where to boot from`)
		named(t, p, "198.18.0.7", mac[2], `an everboot of site "lab", gives addresses and says where to boot from`)
		named(t, p, "198.18.0.8", mac[3], "gives addresses on")
		if out := p.Log(); strings.Contains(out, "other-server another DHCP server, 198.18.0.2") || strings.Contains(out, "other-server another DHCP server, 198.18.0.3") {
			t.Errorf("a node of its own is named:\n%s", out)
		}
	}
	offers, err := n.lan.Decoded("dhcp.option.dhcp == 2 && ip.src == 198.18.0.8", "dhcp.ip.your")
	if slices.Sort(offers); err != nil || len(slices.Compact(offers)) != 1 {
		t.Errorf("dnsmasq offers %q, %v", offers, err)
	}
	if given, err := n.lan.Decoded("dhcp.option.dhcp == 2 && ip.src != 198.18.0.8 && dhcp.ip.your != 0.0.0.0"); err != nil || len(given) > 0 {
		t.Errorf("an everboot offers an address: %q, %v", given, err)
	}
	n.wellFormed()
}
