package appliance

import (
	"context"
	"encoding/json"
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

// anything is a registry that takes whatever it is given.
type anything struct{ registry }

func (anything) Put(context.Context, site.Kind, string, []byte) error { return nil }

// TestWhoWritesADeviceIsToldOfItsAddress: what is refused in the configuration file, or by its check, is no better by the API, by which imports come.
func TestWhoWritesADeviceIsToldOfItsAddress(t *testing.T) {
	cfg, ip := testConfig(t), netip.MustParseAddr
	cfg.DHCP = DHCPConfig{Mode: "server", Subnets: []SubnetConfig{{Network: netip.MustParsePrefix("198.18.0.0/24"), Router: ip("198.18.0.1")}}}
	cfg.VIP.Addresses = []netip.Prefix{netip.MustParsePrefix("198.18.0.10/24")}
	cfg.VIP.Groups = []VIPGroup{{VRID: 52, Addresses: []netip.Prefix{netip.MustParsePrefix("198.18.0.11/24")}}}
	cfg.Peers.Addresses = []netip.Addr{ip("198.18.0.3")}
	known, fresh := site.MAC{2, 0, 0, 0, 0, 1}, site.MAC{2, 0, 0, 0, 0, 2}
	v := site.Empty("berlin", "consul")
	v.Devices[known] = site.Device{MAC: known, Name: "t1", Address: ip("203.0.113.9")} // from before
	own := ip("198.18.0.2")
	for _, c := range []struct {
		device site.Device
		says   string // nothing: it is taken
	}{
		{site.Device{MAC: fresh, Address: ip("198.18.0.51")}, ""},
		{site.Device{MAC: fresh}, ""},
		{site.Device{MAC: fresh, Address: ip("198.18.0.10")}, "its address 198.18.0.10 is the VIP; use another"},
		{site.Device{MAC: fresh, Address: ip("198.18.0.11")}, "is the VIP"},
		{site.Device{MAC: fresh, Address: ip("198.18.0.2")}, "reserved address 198.18.0.2 belongs to a router, a DNS server, an appliance"},
		{site.Device{MAC: fresh, Address: ip("198.18.0.3")}, "an appliance"},
		{site.Device{MAC: fresh, Address: ip("198.18.0.1")}, "a router"},
		{site.Device{MAC: fresh, Address: ip("198.18.0.255")}, "its broadcast address"},
		{site.Device{MAC: fresh, Address: ip("203.0.113.9")}, "its address 203.0.113.9 is in no [[dhcp.subnet]]; use an address in one"},
		{site.Device{MAC: fresh, Address6: ip("2001:db8::9")}, "is in no [[dhcp.subnet]]"},
		{site.Device{MAC: known, Name: "t9", Address: ip("203.0.113.9")}, ""},
	} {
		value, err := json.Marshal(c.device)
		if err != nil {
			t.Fatal(err)
		}
		err = cfg.checkNewAddress(v, own, value)
		if (err == nil) != (c.says == "") || err != nil && (!strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "device "+c.device.MAC.String())) {
			t.Errorf("%+v: %v, want %q", c.device, err, c.says)
		}
	}
	b, err := newBuilder(cfg, observed(), quiet, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	w := &worker{cfg: cfg, log: quiet, builder: b, own: own, registry: anything{}}
	for address, want := range map[string]bool{"198.18.0.51": true, "198.18.0.10": false} {
		value := []byte(`{"mac":"02:00:00:00:00:02","address":"` + address + `"}`)
		if err := w.Put(t.Context(), site.KindDevice, fresh.String(), value); (err == nil) != want {
			t.Errorf("%s: %v", address, err)
		}
	}
}
