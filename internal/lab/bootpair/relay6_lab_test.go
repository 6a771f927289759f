package bootpair_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"everboot/appliance/web"
	"everboot/internal/lab"
	"everboot/internal/lab/bootpair"
)

// TestRelayedIPv6: two appliances with a peer channel, and clients behind a relay agent that asks both. Both say the same; when one is dead the
// other gives a client the address that it had, and a new one its own. What was heard can be listed and explained.
func TestRelayedIPv6(t *testing.T) {
	l := lab.ForTest(t)
	lab.Need(t, "dhclient")
	bin, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	p, err := bootpair.New(l, bin, []byte("a boot file"))
	if err != nil {
		t.Fatal(err)
	}
	run := func(h *lab.Host, argv ...string) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		out, err := h.Run(ctx, argv...)
		if err != nil {
			t.Fatalf("%v: %v: %s", argv, err, out)
		}
		return out
	}
	far, agent, one, two := l.Segment("far"), l.Host("agent"), l.Host("one"), l.Host("two")
	agent.Join(far, "198.19.255.1/32", "2001:db8:7::1/64")
	agent.Join(p.LAN, "198.19.255.2/32", "2001:db8::1/64")
	run(agent, "sysctl", "-qw", "net.ipv6.conf.all.forwarding=1")
	address := map[string]string{"a": "2001:db8::2", "b": "2001:db8::3"}
	for _, name := range bootpair.Names {
		run(p.Host[name], "ip", "address", "add", address[name]+"/64", "dev", "eth0", "nodad")
		run(p.Host[name], "ip", "route", "add", "2001:db8:7::/64", "via", "2001:db8::1")
		f, err := os.OpenFile(p.Config(name), os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(f, "\n[dhcp]\nsearch = false\n[[dhcp.subnet]]\nnetwork = \"198.18.0.0/15\"\nrange = \"198.18.4.10-198.18.4.250\"\n"+
			"[[dhcp.subnet]]\nnetwork = \"2001:db8::/64\"\n[[dhcp.subnet]]\nnetwork = \"2001:db8:7::/64\"\nrange = \"2001:db8:7::1:0-2001:db8:7::ffff:ffff\"\n")
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		p.Start(name)
	}
	if err := p.AwaitTogether(time.Minute); err != nil {
		t.Fatal(err)
	}
	p.LAN.Capture("relayed")
	lab.Dnsmasq(agent, "--dhcp-relay=2001:db8:7::1,2001:db8::2", "--dhcp-relay=2001:db8:7::1,2001:db8::3")

	for _, h := range []*lab.Host{one, two} {
		h.Join(far)
	}
	try := 0
	ask := func(h *lab.Host, duid string) string {
		t.Helper()
		try++
		file := filepath.Join(l.Dir(), fmt.Sprintf("dhclient-%d.", try))
		// Without a lease file of before and with a DUID made of the MAC it is the same client each time.
		c := h.Start("dhclient", "dhclient", "-6", "-d", "-1", "-v", "-D", duid, "-sf", "/bin/true", "-lf", file+"leases", "-pf", file+"pid", "eth0")
		defer c.Kill()
		got, err := c.Expect(`IAADDR (2001:db8:7::[0-9a-f:]+)`, 40*time.Second)
		if err != nil {
			t.Fatalf("%v\n%s", err, c.Log())
		}
		if _, err := c.Expect(`Bound to lease|bound to|valid for|Lease`, 5*time.Second); err != nil {
			t.Log(err)
		}
		return regexp.MustCompile(`2001:db8:7::[0-9a-f:]+`).FindString(got[0])
	}
	mine := ask(one, "LL")
	if err := lab.Eventually(10*time.Second, "an appliance lists the address", func() error {
		for _, name := range bootpair.Names {
			var list []web.Lease
			if err := json.Unmarshal([]byte(run(p.Host[name], bin, "lease", "list", "--json")), &list); err != nil {
				return err
			}
			if len(list) == 1 && list[0].Address.String() == mine && list[0].Computed {
				return nil
			}
		}
		return fmt.Errorf("%s is not listed", mine)
	}); err != nil {
		t.Error(err)
	}
	for _, name := range bootpair.Names {
		out := run(p.Host[name], bin, "explain", one.Cables()[0].MAC().String())
		if !strings.Contains(out, "over IPv6 it gets ") || !strings.Contains(out, "no boot file: ") {
			t.Errorf("%s explains: %s", name, out)
		}
	}
	p.Host["a"].Die()
	if got := ask(one, "LL"); got != mine {
		t.Errorf("with one appliance dead it got %s, and had %s", got, mine)
	}
	if got := ask(two, "LL"); got == mine {
		t.Errorf("%s was given twice", got)
	}
	said, err := p.LAN.Decoded("udp.srcport == 547 && dhcpv6.iaaddr.ip && !icmpv6", "ipv6.src", "dhcpv6.iaaddr.ip")
	t.Logf("answers: %q", said)
	if err != nil || len(said) == 0 {
		t.Errorf("no answers in the capture: %v", err)
	}
	bad, err := p.LAN.Decoded("udp.port == 547 && dhcpv6 && !icmpv6 && (_ws.malformed || _ws.expert.severity >= 0x00600000)")
	if err != nil || len(bad) > 0 {
		t.Errorf("tshark finds fault with: %v\n%s", err, strings.Join(bad, "\n"))
	}
}
