package bootpair_test

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"everboot/internal/lab"
	"everboot/internal/lab/bootpair"
)

// TestRelayToTheFloatingAddress: a relay agent that knows the floating address alone reaches one appliance. That one answers all clients at once, also those that are first the
// other's, and from the address that it was asked at.
func TestRelayToTheFloatingAddress(t *testing.T) {
	l := lab.ForTest(t)
	bin, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	p, err := bootpair.New(l, bin, []byte("a boot file"))
	if err != nil {
		t.Fatal(err)
	}
	far, agent, client := l.Segment("far"), l.Host("agent"), l.Host("client")
	agent.Join(far, "198.19.7.1/24")
	agent.Join(p.LAN, "198.18.0.41/15") // and Linux answers there for its address on the other side
	client.Join(far)
	for _, name := range bootpair.Names {
		f, err := os.OpenFile(p.Config(name), os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(f, "\n[dhcp]\nsearch = false\n[[dhcp.subnet]]\nnetwork = \"198.18.0.0/15\"\nrange = \"198.19.7.10-198.19.7.250\"\n")
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		p.Start(name)
	}
	if err := p.AwaitTogether(time.Minute); err != nil {
		t.Fatal(err)
	}
	p.LAN.Capture("relayed")
	lab.Dnsmasq(agent, "--dhcp-relay=198.19.7.1,"+bootpair.VIP)
	seen := map[string]int{}
	const clients = 8
	for i := range clients {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		out, err := client.Run(ctx, "ip", "link", "set", "eth0", "address", fmt.Sprintf("52:54:00:00:07:%02x", i))
		cancel()
		if err != nil {
			t.Fatal(err, out)
		}
		lease, err := lab.Udhcpc(client, "eth0", "-t", "10", "-T", "1")
		if err != nil {
			t.Fatal(err)
		}
		seen[lease["ip"]]++
		if lease["serverid"] != bootpair.VIP {
			t.Errorf("client %d: %v", i, lease)
		}
	}
	if len(seen) != clients {
		t.Errorf("%d addresses for %d clients: %v", len(seen), clients, seen)
	}
	asked, err := p.LAN.Decoded("dhcp.option.dhcp == 1 && !icmp")
	if err != nil {
		t.Fatal(err)
	}
	// The first may find the agent not ready, and a busy host has a client ask twice. Half of the clients would ask three times.
	if len(asked) > clients+4 {
		t.Errorf("%d DISCOVERs of %d clients: some are left to the appliance that does not hear them", len(asked), clients)
	}
	others, err := p.LAN.Decoded("dhcp.type == 2 && !icmp && ip.src != "+bootpair.VIP, "ip.src")
	if err != nil || len(others) > 0 {
		t.Errorf("answers from other addresses than the one that was asked: %v %v", others, err)
	}
}
