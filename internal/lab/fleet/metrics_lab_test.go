package fleet_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"everboot/internal/lab"
)

const metricsConfig = `node = "%[1]s"
site = "berlin"
interface = "eth0"
state = "%[2]s/%[1]s"
[peers]
addresses = ["%[3]s"]
key = "file:%[2]s/peer.key"
[vip]
addresses = ["198.18.0.10/24"]
priority = %[4]d
[director]
enabled = false
[[dhcp.subnet]]
network = "198.18.0.0/24"
range = "198.18.0.100-198.18.0.199"
`

// TestMetricsInLife: what two appliances say of the floating address, of each other, of a lease and of a DHCP server that is not theirs is what is so, and
// changes with it.
func TestMetricsInLife(t *testing.T) {
	l := lab.ForTest(t)
	program, err := binary()
	must(t, err)
	lan, client, other := l.Segment("lan"), l.Host("client"), l.Host("other")
	hosts := map[string]*lab.Host{"a": l.Host("a"), "b": l.Host("b")}
	hosts["a"].Join(lan, "198.18.0.2/24")
	hosts["b"].Join(lan, "198.18.0.3/24")
	clientMAC, otherMAC := client.Join(lan).MAC(), other.Join(lan, "198.18.0.5/24").MAC()
	lab.Dnsmasq(other, "--dhcp-range=198.18.0.200,198.18.0.210,255.255.255.0,1h", "--dhcp-host="+clientMAC.String()+",ignore")
	must(t, os.WriteFile(filepath.Join(l.Dir(), "peer.key"), []byte("a-peer-key-for-the-lab-only\n"), 0o600))
	start := func(name, peer string, priority int) {
		path := filepath.Join(l.Dir(), name+".toml")
		must(t, os.WriteFile(path, fmt.Appendf(nil, metricsConfig, name, l.Dir(), peer, priority), 0o644))
		hosts[name].Start("everboot", program, "appliance", "--config", path)
	}
	// says waits until an appliance says a value that is right, of a metric with its labels; one that is not there has none.
	says := func(name, metric, what string, right func(v float64, there bool) bool) {
		t.Helper()
		must(t, lab.Eventually(nodeTime, what, func() error {
			v, there, err := metricOf(hosts[name], metric)
			if err == nil && !right(v, there) {
				err = fmt.Errorf("%s of %s is %v (%v)", metric, name, v, there)
			}
			return err
		}))
	}
	is := func(want float64) func(float64, bool) bool {
		return func(v float64, there bool) bool { return there && v == want }
	}
	more := func(v float64, there bool) bool { return there && v > 0 }
	lately := func(v float64, there bool) bool { return there && time.Since(time.Unix(int64(v), 0)) < time.Minute }

	start("a", "198.18.0.3", 110)
	says("a", `everboot_vip_active{vrid="51"}`, "a has the address", is(1))
	start("b", "198.18.0.2", 100)
	says("a", `everboot_peer_up{peer="198.18.0.3"}`, "a knows b", is(1))
	says("b", `everboot_peer_up{peer="198.18.0.2"}`, "b knows a", is(1))
	says("a", `everboot_dhcp_peer_in_touch{peer="198.18.0.3"}`, "they share leases", is(1))
	says("a", `everboot_vip_priority{vrid="51"}`, "a is well", is(110))
	says("a", `everboot_vip_advertisements_sent_total{vrid="51"}`, "a advertises", more)
	says("b", `everboot_vip_active{vrid="51"}`, "b has not the address", is(0))
	says("b", `everboot_vip_advertisements_sent_total{vrid="51"}`, "b does not advertise", is(0))
	says("a", `everboot_boot_service_up{service="tftp"}`, "its probe of TFTP", is(1))
	says("a", `everboot_boot_service_up{service="http"}`, "its probe of HTTP", is(1))

	lease, err := lab.Udhcpc(client, "eth0")
	must(t, err)
	acks := 0.0
	for name := range hosts {
		v, _, err := metricOf(hosts[name], `everboot_dhcp_answers_total{answer="ack"}`)
		must(t, err)
		acks += v
		says(name, `everboot_dhcp_messages_total{message="discover"}`, "both heard the client", more)
	}
	if acks != 1 {
		t.Errorf("%v ACKs for the one lease %v", acks, lease)
	}
	says("a", fmt.Sprintf(`everboot_dhcp_other_server_last_seconds{addresses="true",boots="false",everboot="",mac="%s",server="198.18.0.5",source="198.18.0.5"}`, otherMAC), "a's search found dnsmasq", lately)
	says("a", "everboot_dhcp_search_last_seconds", "a has searched", lately)
	says("b", "everboot_dhcp_search_last_seconds", "b leaves it to a", func(_ float64, there bool) bool { return !there })

	hosts["a"].Die() // without a word: a guard that outlives its worker for a moment says that it resigns
	says("b", `everboot_vip_active{vrid="51"}`, "b takes the address", is(1))
	says("b", `everboot_vip_advertisements_sent_total{vrid="51"}`, "b advertises", more)
	says("b", `everboot_peer_up{peer="198.18.0.2"}`, "b misses a", is(0))
	says("b", `everboot_dhcp_peer_in_touch{peer="198.18.0.2"}`, "b shares leases with nobody", is(0))
	says("b", `everboot_vip_transitions_total{cause="silence",vrid="51"}`, "it heard nothing of a any more", is(1))
}

// metricOf asks an appliance for one of its metrics.
func metricOf(h *lab.Host, metric string) (v float64, there bool, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	text, err := h.Run(ctx, "curl", "-sSf", "http://127.0.0.1:8667/metrics")
	if err != nil {
		return 0, false, fmt.Errorf("%w: %s", err, text)
	}
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), metric+" "); ok {
			v, err = strconv.ParseFloat(value, 64)
			return v, err == nil, err
		}
	}
	return 0, false, nil
}
