package dhcp

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"everboot/site"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

var (
	ownMAC   = site.MAC{0x52, 0x54, 0, 0, 0, 0xa}
	rivalMAC = site.MAC{0x52, 0x54, 0, 0, 0, 0xee}
	// berlin searches for the site of testView, from its other node.
	berlin = SearchConfig{Site: "berlin", Node: ip("198.18.0.3")}
)

// offerOf is an answer to a search, in a frame.
func offerOf(q *dhcpv4.DHCPv4, source string, change func(*dhcpv4.DHCPv4)) []byte {
	p, err := dhcpv4.NewReplyFromRequest(q, dhcpv4.WithMessageType(dhcpv4.MessageTypeOffer))
	if err != nil {
		panic(err)
	}
	p.YourIPAddr = netIP(ip("198.18.0.200"))
	p.UpdateOption(dhcpv4.OptServerIdentifier(netIP(ip(source))))
	change(p)
	return ethernet(rivalMAC, broadcastMAC, packetOf(ip(source), netip.AddrPortFrom(limitedBroadcast, dhcpv4.ClientPort), p.ToBytes()))
}

func same(*dhcpv4.DHCPv4) {}

func TestRivalOf(t *testing.T) {
	q := berlin.question(ownMAC, dhcpv4.TransactionID{1, 2, 3, 4}, 0)
	boots := func(p *dhcpv4.DHCPv4) { p.UpdateOption(dhcpv4.OptBootFileName("pxelinux.0")) }
	proxies := func(p *dhcpv4.DHCPv4) {
		p.YourIPAddr = netIP(netip.IPv4Unspecified())
		p.UpdateOption(dhcpv4.OptClassIdentifier("PXEClient"))
	}
	changed := func(i int, b byte) []byte {
		f := offerOf(q, "198.18.0.1", same)
		f[i] = b
		return f
	}
	for name, c := range map[string]struct {
		frame            []byte
		addresses, boots bool // neither: it is no rival
	}{
		"a DHCP server":        {offerOf(q, "198.18.0.1", func(p *dhcpv4.DHCPv4) { p.ServerIPAddr = netIP(ip("198.18.0.1")) }), true, false},
		"with a boot file":     {offerOf(q, "198.18.0.1", boots), true, true},
		"a proxy":              {offerOf(q, "198.18.0.1", proxies), false, true},
		"neither":              {offerOf(q, "198.18.0.1", func(p *dhcpv4.DHCPv4) { p.YourIPAddr = nil }), false, false},
		"an ACK":               {offerOf(q, "198.18.0.1", dhcpv4.WithMessageType(dhcpv4.MessageTypeAck)), false, false},
		"to somebody else":     {offerOf(q, "198.18.0.1", func(p *dhcpv4.DHCPv4) { p.TransactionID[0]++ }), false, false},
		"a fragment":           {changed(20, 0x20), false, false},
		"another port":         {changed(14+20+3, 67), false, false},
		"ARP":                  {changed(13, 6), false, false},
		"TCP":                  {changed(23, 6), false, false},
		"a header beyond it":   {offerOf(q, "198.18.0.1", same)[:36], false, false},
		"nothing":              {nil, false, false},
		"options that are bad": {offerOf(q, "198.18.0.1", same)[:14+28+100], false, false},
	} {
		r, ok := rivalOf(c.frame, q.TransactionID)
		if r.Addresses = r.Addresses && ok; ok != (c.addresses || c.boots) || r.Addresses != c.addresses || r.Boots && ok != c.boots {
			t.Errorf("%s: %+v %v", name, r, ok)
		}
		if ok && (r.Server != ip("198.18.0.1") || r.Source != r.Server || r.MAC != rivalMAC) {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

// TestNoServerOfOursAnswersASearch: neither a server nor a proxy, and no timeline has it. An everboot of another site is told whose we are, and so is one of
// this site that we do not know; neither is given an address.
func TestNoServerOfOursAnswersASearch(t *testing.T) {
	view := testView()
	view.Appliances = []site.Appliance{{Address: ip("198.18.0.2")}, {Address: ip("198.18.0.3")}}
	old := func(q *dhcpv4.DHCPv4) { // of a version that says no site
		q.UpdateOption(dhcpv4.OptClientIdentifier(append([]byte(searchID), ownMAC[:]...)))
	}
	relayed := func(q *dhcpv4.DHCPv4) { q.GatewayIPAddr = netIP(ip("203.0.113.1")) }
	inform := dhcpv4.WithMessageType(dhcpv4.MessageTypeInform)
	for name, c := range map[string]struct {
		who     SearchConfig
		change  func(*dhcpv4.DHCPv4)
		answers bool // a server; and a proxy, if the search is not relayed
	}{
		"our other node":        {berlin, same, false},
		"an older one":          {SearchConfig{Site: "paris", Node: ip("198.18.0.7")}, old, false},
		"another site":          {SearchConfig{Site: "paris", Node: ip("198.18.0.7")}, same, true},
		"another site, our own": {SearchConfig{Site: "paris", Node: ip("198.18.0.3")}, same, true},
		"another pair":          {SearchConfig{Site: "berlin", Node: ip("198.18.0.7")}, same, true},
		"an INFORM":             {SearchConfig{Site: "paris", Node: ip("198.18.0.7")}, inform, false},
		"of a foreign segment":  {SearchConfig{Site: "paris", Node: ip("198.18.0.7")}, relayed, false},
	} {
		q := c.who.question(known, dhcpv4.TransactionID{1}, waitedSecs)
		c.change(q)
		q, err := dhcpv4.FromBytes(q.ToBytes())
		if err != nil {
			t.Fatal(err)
		}
		s := NewState(alone())
		p, effects := Handle(epoch, view, q, s)
		if (p != nil) != c.answers || len(effects.Events)+len(effects.Save) > 0 || len(s.Leases(epoch)) > 0 || c.answers != (effects.Decision.Reason == Introduced) {
			t.Errorf("%s: %v, %+v", name, p, effects)
		}
		if name == "of a foreign segment" {
			continue
		}
		proxied, d := HandleProxy(epoch, view, q, dhcpv4.ServerPort, ip("198.18.0.2"))
		if (proxied != nil) != c.answers || c.answers != (d.Reason == Introduced) {
			t.Errorf("%s: the proxy: %v, %v", name, proxied, d)
		}
		if !c.answers {
			continue
		}
		for _, p := range []*dhcpv4.DHCPv4{p, proxied} {
			frame := ethernet(rivalMAC, broadcastMAC, packetOf(ip("198.18.0.2"), netip.AddrPortFrom(limitedBroadcast, dhcpv4.ClientPort), p.ToBytes()))
			r, ok := rivalOf(frame, q.TransactionID)
			if gives := p != proxied; !ok || r.Everboot != "berlin" || r.Addresses != gives || !r.Boots || r.Server != ip("198.18.0.2") || !p.IsBroadcast() || !p.YourIPAddr.IsUnspecified() {
				t.Errorf("%s: it is taken for %+v (%v):\n%s", name, r, ok, p.Summary())
			}
		}
	}
}

// TestASiteSearchesUnderOneName: servers that hold what they offer hold it for a client, and all appliances of a site are one.
func TestASiteSearchesUnderOneName(t *testing.T) {
	a := berlin.question(ownMAC, dhcpv4.TransactionID{1}, 0)
	b := SearchConfig{Site: "berlin", Node: ip("198.18.0.2")}.question(rivalMAC, dhcpv4.TransactionID{2}, 0)
	c := SearchConfig{Site: "paris"}.question(ownMAC, dhcpv4.TransactionID{3}, 0)
	id := func(q *dhcpv4.DHCPv4) string {
		return string(q.Options.Get(dhcpv4.OptionClientIdentifier)) + string(q.ClientHWAddr)
	}
	if id(a) != id(b) || id(a) == id(c) || a.ClientHWAddr[0] != 0x02 {
		t.Errorf("%q, %q, %q", id(a), id(b), id(c))
	}
}

// segment is other servers in memory.
type segment struct {
	answer func(q *dhcpv4.DHCPv4) [][]byte
	heard  func([]byte)
	asked  atomic.Int32
	opened atomic.Int32
}

func (s *segment) Own() site.MAC { return ownMAC }
func (s *segment) Ask(q *dhcpv4.DHCPv4) error {
	s.asked.Add(1)
	for _, frame := range s.answer(q) {
		s.heard(frame)
	}
	return nil
}
func (s *segment) Close() { s.opened.Add(-1) }

// TestASearchNamesOthers: at the start and every five minutes, while it is ours to search; each other server once, and for as long as it answers.
func TestASearchNamesOthers(t *testing.T) {
	for _, proxy := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			seg := &segment{}
			var active, there atomic.Bool
			active.Store(true)
			there.Store(true)
			seg.answer = func(q *dhcpv4.DHCPv4) [][]byte {
				list := [][]byte{offerOf(q, "198.18.0.3", same), offerOf(q, "198.18.0.10", same)} // our peer, of a version before this one
				if there.Load() && q.NumSeconds > 0 {
					list = append(list, offerOf(q, "198.18.0.1", same), offerOf(q, "198.18.0.1", same))
					list = append(list, offerOf(q, "198.18.0.4", func(p *dhcpv4.DHCPv4) { p.BootFileName = "x.0" }))
				}
				return list
			}
			var events []site.Event
			ours := []netip.Addr{ip("198.18.0.3"), ip("198.18.0.10")}
			s := NewSearch(SearchConfig{
				Interface: "eth0", Proxy: proxy, Ours: func(a netip.Addr) bool { return slices.Contains(ours, a) }, Active: active.Load,
			}, func(e site.Event) { events = append(events, e) }, slog.New(slog.DiscardHandler))
			s.open = func(_ string, heard func([]byte)) (ear, error) { seg.heard = heard; seg.opened.Add(1); return seg, nil }
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- s.Run(ctx) }()

			want := 2
			if proxy {
				want = 1
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			if got := s.Rivals(); len(got) != want || len(events) != want || seg.asked.Load() != 2 || s.Last().IsZero() {
				t.Fatalf("proxy %v: %v, events %v, asked %d times", proxy, got, events, seg.asked.Load())
			}
			if text := events[want-1].Detail; !strings.Contains(text, "198.18.0.4") || !strings.Contains(text, rivalMAC.String()) || !strings.Contains(text, "boot") {
				t.Errorf("it says %q", text)
			}
			time.Sleep(time.Hour)
			synctest.Wait()
			if seg.opened.Load() != 0 { // a search is under way
				time.Sleep(listenFor)
				synctest.Wait()
			}
			if n := seg.asked.Load(); n < 22 || n > 30 || len(events) != want || seg.opened.Load() != 0 {
				t.Errorf("asked %d times in an hour, %d events, %d sockets are open", n, len(events), seg.opened.Load())
			}
			there.Store(false)
			time.Sleep(12 * time.Minute)
			synctest.Wait()
			if got := s.Rivals(); len(got) != 0 {
				t.Errorf("still %v", got)
			}
			active.Store(false)
			time.Sleep(time.Minute) // a search that was under way has ended
			synctest.Wait()
			before := seg.asked.Load()
			time.Sleep(time.Hour)
			synctest.Wait()
			if seg.asked.Load() != before {
				t.Error("it searched while another appliance does")
			}
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

// TestAFloodOfServersIsBounded: anybody can answer under any address.
func TestAFloodOfServersIsBounded(t *testing.T) {
	var l rivalList
	for i := range 100 {
		l.note(epoch, Rival{Server: netip.AddrFrom4([4]byte{203, 0, 113, byte(i)})})
	}
	if len(l) != maxForeign {
		t.Errorf("%d are remembered", len(l))
	}
}

func FuzzRivalOf(f *testing.F) {
	q := berlin.question(ownMAC, dhcpv4.TransactionID{1}, 0)
	f.Add(offerOf(q, "198.18.0.1", same))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, ok := rivalOf(b, q.TransactionID); ok && (!r.Server.IsValid() || !r.Source.IsValid()) {
			t.Errorf("%+v", r)
		}
	})
}
