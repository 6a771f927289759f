package vip_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"everboot/internal/lab"
	"everboot/vip"
	"everboot/vip/vrrp"
)

const (
	floating6  = "2001:db8::10"
	linkLocal6 = "fe80::200:5eff:fe00:233" // that of VRID 51
)

func newSite6(t *testing.T) *site {
	s := newSite(t)
	s.run(s.a, "ip", "address", "add", "2001:db8::2/64", "dev", "eth0")
	s.run(s.b, "ip", "address", "add", "2001:db8::3/64", "dev", "eth0")
	s.run(s.c, "ip", "address", "add", "2001:db8::4/64", "dev", "eth0")
	return s
}

func config6(priority int) vip.Config {
	cfg := config(priority)
	cfg.Addresses = []netip.Prefix{netip.MustParsePrefix(floating6 + "/64")}
	return cfg
}

func has6(h *lab.Host) func() bool {
	return func() bool { return h.Has(floating6) && h.Has(linkLocal6) }
}

// TestLabIPv6 lets two routers of ours change places; tshark finds nothing wrong with what they send, and the client follows.
func TestLabIPv6(t *testing.T) {
	s := newSite6(t)
	s.seg.Capture("vrrp")
	first := s.start(s.a, "worker", config6(100))
	s.expect(first, "state active")
	s.expect(s.start(s.b, "worker", config6(90)), "state backup")
	knows := func(c *lab.Cable) func() bool {
		return func() bool {
			return strings.Contains(s.run(s.c, "ip", "-6", "neigh", "show", floating6), c.MAC().String())
		}
	}
	conn, err := s.c.Dial(t.Context(), "udp", "["+floating6+"]:9")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	s.within(0, "the client has asked", knows(s.cableA))
	s.cableA.Silence(true)
	s.within(vrrp.DownInterval(90, interval), "b has the address of a silent a", has6(s.b))
	s.within(0, "the client was told", knows(s.cableB)) // by the unsolicited advertisement: it is not made to ask
	s.cableA.Silence(false)
	s.within(interval, "b has let go", func() bool { return !s.b.Has(floating6) && !s.b.Has(linkLocal6) })
	if err := first.Stop(patience); err != nil {
		t.Error(err)
	}
	s.within(interval, "b has the address of a stopped a", has6(s.b))

	fields := []string{"ipv6.dst", "ipv6.hlim", "vrrp.version", "vrrp.virt_rtr_id", "vrrp.short_adver_int", "vrrp.ipv6_addr", "vrrp.checksum.status", "_ws.expert.message"}
	frames, err := s.seg.Decoded("vrrp", fields...)
	if err != nil {
		t.Fatal(err)
	}
	want := "ff02::12\t255\t3\t51\t10\t" + linkLocal6 + "," + floating6 + "\t1\t"
	for _, f := range frames {
		if f != want {
			t.Fatalf("got %q, want %q", f, want)
		}
	}
	frames, err = s.seg.Decoded("icmpv6.type == 136 && icmpv6.nd.na.flag.s == 0 && icmpv6.nd.na.target_address == "+floating6,
		"eth.dst", "ipv6.src", "ipv6.dst", "ipv6.hlim", "icmpv6.nd.na.flag.o", "icmpv6.checksum.status", "_ws.expert.message")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range frames {
		if want := "33:33:00:00:00:01\t" + floating6 + "\tff02::1\t255\t1\t1\t"; f != want {
			t.Errorf("got %q, want %q", f, want)
		}
	}
	if len(frames) < 3 {
		t.Errorf("%d neighbour advertisements", len(frames))
	}
}

const keepalivedConf6 = `vrrp_instance x {
  version 3
  state BACKUP
  interface eth0
  virtual_router_id 51
  priority %d
  advert_int 0.1
  virtual_ipaddress {
    ` + linkLocal6 + `/64
    ` + floating6 + `/64
  }
}
`

func TestLabIPv6WithKeepalived(t *testing.T) {
	lab.Need(t, "keepalived")
	s := newSite6(t)
	peer := lab.Keepalived(s.b, fmt.Sprintf(keepalivedConf6, 200))
	s.within(patience, "keepalived has the address", has6(s.b))
	ours := s.start(s.a, "worker", config6(100))
	s.expect(ours, "state backup")
	time.Sleep(time.Second)
	if s.a.Has(floating6) {
		t.Fatal("we did not hear keepalived")
	}
	if err := peer.Stop(patience); err != nil {
		t.Error(err)
	}
	s.within(vrrp.SkewTime(100, interval), "we have the address of a stopped keepalived", has6(s.a))
	peer = lab.Keepalived(s.b, fmt.Sprintf(keepalivedConf6, 90))
	s.expect(peer, ".*Entering BACKUP STATE")
	if err := ours.Stop(patience); err != nil {
		t.Error(err)
	}
	s.within(interval, "keepalived has the address of our stopped router", has6(s.b))
	if s.a.Has(floating6) || s.a.Has(linkLocal6) {
		t.Error("we have stopped and still have an address")
	}
}

// TestLabUnicastPeers: routers on a network without multicast find each other, and a stranger counts for nothing.
func TestLabUnicastPeers(t *testing.T) {
	s := newSite(t)
	unicast := func(priority int, peer string) vip.Config {
		cfg := config(priority)
		cfg.Peers = []netip.Addr{netip.MustParseAddr(peer)}
		return cfg
	}
	first := s.start(s.a, "worker", unicast(100, "198.18.0.3"))
	s.expect(first, "state active")
	second := s.start(s.b, "worker", unicast(90, "198.18.0.2"))
	s.expect(second, "state backup")
	s.expectOneOwner(s.a, s.b)
	stranger := config(200)
	stranger.Addresses = []netip.Prefix{netip.MustParsePrefix("198.18.0.11/24")}
	stranger.Peers = []netip.Addr{netip.MustParseAddr("198.18.0.2")}
	s.expect(s.start(s.c, "worker", stranger), "state active")
	s.expectOneOwner(s.a, s.b)
	if err := first.Stop(patience); err != nil {
		t.Error(err)
	}
	if status := s.expect(first, "status (.*)")[1]; !strings.Contains(status, `"peer":`) {
		t.Errorf("the stranger was not counted: %s", status)
	}
	s.within(interval, "b has the address of a stopped a", has(s.b))
}

// TestLabAuthentication: two routers that share a key elect an owner; keepalived, which has none, cannot take the address from them.
func TestLabAuthentication(t *testing.T) {
	lab.Need(t, "keepalived")
	s := newSite(t)
	keyed := func(priority int) vip.Config {
		cfg := config(priority)
		cfg.Key = []byte("0123456789abcdef0123456789abcdef")
		return cfg
	}
	first := s.start(s.a, "worker", keyed(100))
	s.expect(first, "state active")
	s.expect(s.start(s.b, "worker", keyed(90)), "state backup")
	s.expectOneOwner(s.a, s.b)
	lab.Keepalived(s.c, strings.ReplaceAll(fmt.Sprintf(keepalivedConf, 254), floating, "198.18.0.11"))
	s.within(patience, "the stranger is active", func() bool { return s.c.Has("198.18.0.11") })
	s.expectOneOwner(s.a, s.b)
	if err := first.Stop(patience); err != nil {
		t.Error(err)
	}
	if status := s.expect(first, "status (.*)")[1]; !strings.Contains(status, `"auth":`) {
		t.Errorf("the stranger was not counted: %s", status)
	}
	s.within(interval, "b has the address of a stopped a", has(s.b))
}

// TestLabIPv6InUse: a router that starts asks who has the address, and leaves it to a host that knows nothing of VRRP as long as that one
// answers.
func TestLabIPv6InUse(t *testing.T) {
	s := newSite6(t)
	s.run(s.c, "ip", "address", "add", floating6+"/64", "dev", "eth0", "nodad")
	p := s.start(s.a, "worker", config6(100))
	s.expect(p, "another host has a floating address")
	if s.a.Has(floating6) {
		t.Error("the address has two owners")
	}
	s.run(s.c, "ip", "address", "del", floating6+"/64", "dev", "eth0")
	s.within(patience, "a has the address that is free", has6(s.a))
}
