package dhcp

import (
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"everboot/dhcp/leases"
	"everboot/site"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// neighbours are machines whose addresses somebody typed in. They answer ARP after a while.
type neighbours struct {
	at    map[netip.Addr]site.MAC
	seen  func(netip.Addr, site.MAC)
	asked []netip.Addr
}

func (n *neighbours) Probe(a netip.Addr) error {
	n.asked = append(n.asked, a)
	if mac, ok := n.at[a]; ok {
		n.seen(a, mac) // within microseconds, before this returns
	}
	return nil
}

func (n *neighbours) Close() {}

// TestAnAddressInUseIsNotOffered: addresses that nobody ever had are asked for first, by ARP, and only those.
func TestAnAddressInUseIsNotOffered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, w, d, events := simulated(t, alone())
		squatter := site.MAC{0x52, 0x54, 0, 0, 0, 77}
		n := &neighbours{at: map[netip.Addr]site.MAC{ip("198.18.0.100"): squatter, ip("198.18.0.101"): squatter, ip("198.18.0.103"): pooled}}
		s.arp = func(_ string, seen func(netip.Addr, site.MAC)) (prober, error) { n.seen = seen; return n, nil }
		stop := run(t, s)
		last := func() *dhcpv4.DHCPv4 { a := w.answers(); return a[len(a)-1] }

		began := time.Now()
		hear(s, message(stranger, discover))
		for len(w.answers()) == 0 {
			time.Sleep(10 * time.Millisecond)
		}
		synctest.Wait()
		if a := last().YourIPAddr.String(); a != "198.18.0.102" || time.Since(began) > time.Second {
			t.Errorf("offered %s after %s", a, time.Since(began))
		}
		if !d.written[ip("198.18.0.100")] || !d.written[ip("198.18.0.101")] || s.Stats().Reasons[InUse] != 2 {
			t.Errorf("written %v, %v", d.written, s.Stats().Reasons)
		}
		if l, _ := s.LeaseAt(ip("198.18.0.100")); l.State != leases.Declined {
			t.Errorf("%+v", l)
		}
		if !slices.ContainsFunc(*events, func(e site.Event) bool { return e.What == string(InUse) && e.MAC == stranger }) {
			t.Errorf("events %v", *events)
		}
		// Neither what it was offered, nor a reservation, nor what came by a relay is asked for; and a machine may be at its own address.
		asked := len(n.asked)
		hear(s, message(stranger, discover))
		hear(s, message(known, discover))
		hear(s, message(site.MAC{2, 0, 0, 0, 0, 1}, discover, giaddr("198.18.7.1")))
		synctest.Wait()
		if len(w.answers()) != 4 || len(n.asked) != asked {
			t.Errorf("%d answers, asked %v", len(w.answers()), n.asked)
		}
		hear(s, message(pooled, discover))
		time.Sleep(time.Second)
		if a := last().YourIPAddr.String(); a != "198.18.0.103" {
			t.Errorf("offered %s", a)
		}
		stop()
	})
}

// TestWhoAnswersForAllAddressesEmptiesNoPool: a machine that answers every ARP costs a client its offer, and the pool three addresses.
func TestWhoAnswersForAllAddressesEmptiesNoPool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, w, d, _ := simulated(t, alone())
		n := &neighbours{at: make(map[netip.Addr]site.MAC)}
		for a := ip("198.18.0.100"); a.Less(ip("198.18.0.200")); a = a.Next() {
			n.at[a] = site.MAC{0x52, 0x54, 0, 0, 0, 77}
		}
		s.arp = func(_ string, seen func(netip.Addr, site.MAC)) (prober, error) { n.seen = seen; return n, nil }
		stop := run(t, s)
		hear(s, message(stranger, discover))
		time.Sleep(5 * time.Second)
		stop()
		if len(w.answers()) != 0 || len(d.written) != maxTaken {
			t.Errorf("%d answers, %d addresses gone", len(w.answers()), len(d.written))
		}
	})
}
