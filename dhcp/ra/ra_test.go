package ra

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/mdlayher/ndp"
)

var (
	epoch   = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	router  = netip.MustParseAddr("fe80::1")
	peer    = netip.MustParseAddr("fe80::2")
	target  = netip.MustParseAddr("fe80::5054:ff:fe00:1")
	genuine = &ndp.RouterAdvertisement{RouterLifetime: 30 * time.Minute}
)

// play runs a machine with what it hears at which time, and returns what it says.
func play(until time.Duration, heard map[time.Duration]func(*Machine, time.Time) []Send) (said []string) {
	m := New(epoch, netip.Prefix{})
	for at := time.Duration(0); at <= until; at += tickEach {
		now := epoch.Add(at)
		list := m.Tick(now)
		if f := heard[at]; f != nil {
			list = append(list, f(m, now)...)
		}
		for _, s := range list {
			said = append(said, fmt.Sprintf("%s %T %s", at, s.Message, s.To))
		}
	}
	return said
}

func hear(from netip.Addr, msg ndp.Message) func(*Machine, time.Time) []Send {
	return func(m *Machine, now time.Time) []Send { return m.Heard(now, from, msg) }
}

func expect(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("said\n%q\nwant\n%q", got, want)
	}
}

// TestItListensFirst: a router that is there has 3 s to show itself; who asked meanwhile is answered then, and later ones at once.
func TestItListensFirst(t *testing.T) {
	expect(t, play(20*time.Second, map[time.Duration]func(*Machine, time.Time) []Send{
		time.Second:             hear(target, &ndp.RouterSolicitation{}),
		5 * time.Second:         hear(target, &ndp.RouterSolicitation{}),
		5500 * time.Millisecond: hear(netip.IPv6Unspecified(), &ndp.RouterSolicitation{}),
		7 * time.Second:         hear(netip.IPv6Unspecified(), &ndp.RouterSolicitation{}),
		15 * time.Second:        hear(peer, &ndp.RouterAdvertisement{}),
	}),
		"0s *ndp.RouterSolicitation ff02::2", "1s *ndp.RouterSolicitation ff02::2", "2s *ndp.RouterSolicitation ff02::2",
		"3s *ndp.RouterAdvertisement ff02::1",
		"5s *ndp.RouterAdvertisement fe80::5054:ff:fe00:1",
		"6s *ndp.RouterAdvertisement ff02::1",
		"9s *ndp.RouterAdvertisement ff02::1",
	)
}

// TestNeverWhereAnotherRouterAdvertises: neither when it is there first nor when it comes later, until it has been silent for long.
func TestNeverWhereAnotherRouterAdvertises(t *testing.T) {
	ask := hear(target, &ndp.RouterSolicitation{})
	expect(t, play(29*time.Minute, map[time.Duration]func(*Machine, time.Time) []Send{
		500 * time.Millisecond: hear(router, genuine), 10 * time.Second: ask, 20 * time.Minute: ask,
	}), "0s *ndp.RouterSolicitation ff02::2")
	got := play(time.Hour, map[time.Duration]func(*Machine, time.Time) []Send{
		10 * time.Second: hear(router, &ndp.RouterAdvertisement{Options: []ndp.Option{&ndp.PrefixInformation{PrefixLength: 64, Prefix: netip.MustParseAddr("2001:db8::")}}}),
		20 * time.Second: ask, 29 * time.Minute: ask, 31 * time.Minute: ask,
	})
	if len(got) < 6 || got[3] != "3s *ndp.RouterAdvertisement ff02::1" || got[4] != "30m10s *ndp.RouterAdvertisement ff02::1" || got[5] != "31m0s *ndp.RouterAdvertisement fe80::5054:ff:fe00:1" {
		t.Errorf("said %q", got)
	}
	// Who is not on the link is no router of ours.
	m := New(epoch, netip.Prefix{})
	m.Heard(epoch, netip.MustParseAddr("2001:db8::1"), genuine)
	if a, ok := m.Router(epoch); ok {
		t.Errorf("router %s", a)
	}
}

// TestItSaysThatDHCPv6Serves: machines ask DHCPv6 (managed), take the network for on-link, and make up no addresses; another appliance that says the
// same is no router, and one that says more is.
func TestItSaysThatDHCPv6Serves(t *testing.T) {
	network := netip.MustParsePrefix("2001:db8::/64")
	m := New(epoch, network)
	now := epoch.Add(listenFor)
	list := m.Tick(now)
	if len(list) != 1 {
		t.Fatalf("said %v", list)
	}
	ad := list[0].Message.(*ndp.RouterAdvertisement)
	if !ad.ManagedConfiguration || ad.RouterLifetime != 0 || len(ad.Options) != 1 {
		t.Errorf("said %+v", ad)
	}
	p := ad.Options[0].(*ndp.PrefixInformation)
	if !p.OnLink || p.AutonomousAddressConfiguration || p.Prefix != network.Addr() || p.PrefixLength != 64 {
		t.Errorf("said %+v", p)
	}
	if _, err := ndp.MarshalMessage(ad); err != nil {
		t.Error(err)
	}
	m.Heard(now, peer, ad)
	m.Heard(now, peer, &ndp.RouterAdvertisement{}) // one that has no DHCPv6 configured yet
	if r, ok := m.Router(now); ok {
		t.Errorf("%s is taken for a router", r)
	}
	own := *p
	own.AutonomousAddressConfiguration = true
	m.Heard(now, router, &ndp.RouterAdvertisement{Options: []ndp.Option{&own}})
	if _, ok := m.Router(now); !ok {
		t.Error("a router is overlooked")
	}
}
