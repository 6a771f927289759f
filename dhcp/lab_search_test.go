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
)

// TestLabOtherServersAreNamed: dnsmasq that gives addresses, and a dnsmasq that is a boot server alone. As a DHCP server we name both, as a proxy the second;
// our other node, which serves the same segment, is not named, and nobody has a lease after.
func TestLabOtherServersAreNamed(t *testing.T) {
	t.Run("server", func(t *testing.T) { otherServersAreNamed(t, false) })
	t.Run("proxy", func(t *testing.T) { otherServersAreNamed(t, true) })
}

func otherServersAreNamed(t *testing.T, proxy bool) {
	n := newNetwork(t)
	if !proxy {
		n.serve(n.b, "198.18.0.3", "198.18.0.2")
	}
	gives, boots := n.lab.Host("gives"), n.lab.Host("boots")
	mac := []string{gives.Join(n.lan, "198.18.0.5/24").MAC().String(), boots.Join(n.lan, "198.18.0.6/24").MAC().String()}
	lab.Dnsmasq(gives, "--dhcp-range=198.18.0.200,198.18.0.210,255.255.255.0,1h")
	lab.Dnsmasq(boots, "--dhcp-range=198.18.0.0,proxy", "--pxe-service=X86-64_EFI,boot,x.efi")

	p := n.start(n.a, served{Config: n.config(n.a, "198.18.0.2", "198.18.0.3"), View: n.view, Proxy: proxy, Search: true})
	named := func(server, mac, does string) {
		line := "event " + mac + " other-server another DHCP server, " + server + " (from " + server + ", MAC " + mac + "), " + does
		if err := lab.Eventually(time.Minute, server+" is named", func() bool { return strings.Contains(p.Log(), line) }); err != nil {
			t.Errorf("%v\n%s", err, p.Log())
		}
	}
	if !proxy {
		named("198.18.0.5", mac[0], "gives addresses on")
	}
	named("198.18.0.6", mac[1], "says where to boot from on")
	out := p.Log()
	if strings.Contains(out, "other-server another DHCP server, 198.18.0.3") || proxy && strings.Contains(out, "other-server another DHCP server, 198.18.0.5") {
		t.Errorf("proxy %v: too many are named:\n%s", proxy, out)
	}
	text, err := os.ReadFile(filepath.Join(n.lab.Dir(), "gives-dnsmasq.leases"))
	if err != nil || strings.Contains(string(text), "198.18.0.2") {
		t.Errorf("it has leases: %q, %v", text, err)
	}
	if err := lab.Eventually(20*time.Second, "the question is repeated", func() error {
		asked, err := n.lan.Decoded("dhcp.option.dhcp == 1", "dhcp.secs")
		if err == nil && !slices.Equal(asked, []string{"0", "10"}) {
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
