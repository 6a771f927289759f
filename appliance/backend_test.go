package appliance

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"everboot/dhcp"
	"everboot/site"
)

// TestWarningOfAnotherReplicaSaysHowToPinIt: a digest that was adopted of a half-copied file stays; what helps needs the whole digest.
func TestWarningOfAnotherReplicaSaysHowToPinIt(t *testing.T) {
	half, whole := site.Digest(strings.Repeat("a", 64)), site.Digest(strings.Repeat("b", 64))
	announce := func(d site.Digest) *site.Content {
		return &site.Content{Streamers: []site.Streamer{{
			Name: "s1", Site: "berlin", Power: 1, State: site.Active, Replicas: []site.Replica{{VDisk: "debian", Version: 1, Digest: d}},
		}}}
	}
	v := site.Empty("berlin", "embedded")
	for _, d := range []site.Digest{half, whole} {
		v = site.Merge(v, announce(d), site.Registry{Reachable: true}, site.Observed{}, time.Time{})
	}
	text := strings.Join(warnings(v), "\n")
	if !strings.Contains(text, "everboot vdisk set debian --pin 1="+string(whole)) {
		t.Errorf("warnings: %s", text)
	}
}

// A collection that is full says so: strangers are turned away silently else.
func TestWarningOfACollectionThatIsFull(t *testing.T) {
	v := site.Empty("berlin", "embedded")
	v.Collections["lab"] = site.Collection{Name: "lab", AutoAdd: true}
	for i := range site.MaxWelcomed {
		if i == site.MaxWelcomed-1 && strings.Contains(strings.Join(warnings(v), "\n"), "takes no more") {
			t.Errorf("it warns with %d devices", i)
		}
		mac := site.MAC{2, 0, 0, 0, byte(i >> 8), byte(i)}
		v.Devices[mac] = site.Device{MAC: mac, Collection: "lab"}
	}
	if text := strings.Join(warnings(v), "\n"); !strings.Contains(text, "collection lab takes no more") {
		t.Errorf("warnings: %s", text)
	}
}

// TestExplainSaysDHCPsLastWord: why a machine gets no address stands among its last boots' events; the last of them that is DHCP's is what is asked for.
func TestExplainSaysDHCPsLastWord(t *testing.T) {
	w, mac, at := idleWorker(t), site.MAC{2, 0, 0, 0, 0, 1}, time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	w.timeline = newTimeline()
	if e := w.explain(w.builder.View(), mac); e.Last != "" {
		t.Errorf("of nothing: %+v", e)
	}
	for i, d := range []dhcp.Decision{
		{Message: "discover", Answer: "offer", Reason: dhcp.Pooled, Client: site.ClientPXE},
		{Message: "request", Answer: "nak", Reason: dhcp.NotIts},
		{Message: "v6-solicit", Answer: "v6-advertise", Reason: dhcp.Pooled},
	} {
		d.MAC, d.At = mac, at.Add(time.Duration(i)*time.Second)
		for _, e := range dhcp.Events(w.builder.View(), d) {
			w.timeline.Add(e)
		}
	}
	w.timeline.Add(site.Event{At: at.Add(3 * time.Second), MAC: mac, What: "http", Detail: "bootstrap.ipxe"})
	want := "request → nak: the address that it asks for is not, or not any more, its own"
	if e := w.explain(w.builder.View(), mac); e.Last != want || !e.LastAt.Equal(at.Add(time.Second)) {
		t.Errorf("%q at %s", e.Last, e.LastAt)
	}
}

// TestDHCPKnowsAllAddressesOfTheAppliance: those of further virtual routers, and all that the host has itself.
func TestDHCPKnowsAllAddressesOfTheAppliance(t *testing.T) {
	cfg := testConfig(t)
	cfg.VIP.Groups = []VIPGroup{{VRID: 52, Addresses: []netip.Prefix{netip.MustParsePrefix("198.18.0.11/24")}}}
	taken := cfg.dhcpConfig(netip.MustParseAddr("198.18.0.2")).Taken
	for _, a := range []string{"198.18.0.11", "127.0.0.1"} {
		if !slices.Contains(taken, netip.MustParseAddr(a)) {
			t.Errorf("%s is none of %v", a, taken)
		}
	}
}
