package dhcp

import (
	"log/slog"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"everboot/site"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

func TestProxy(t *testing.T) {
	pxe := []change{vendor("PXEClient:Arch:00007:UNDI:003016"), archIs(7)}
	down := testView()
	down.Boot.TFTP.Health = site.Down
	for name, c := range map[string]struct {
		q      *dhcpv4.DHCPv4
		port   int
		view   *site.View
		answer string
		reason Reason
		file   string
		class  string
	}{
		"firmware":                   {message(known, discover, pxe...), 67, nil, "offer", Proxied, "snponly.efi", "PXEClient"},
		"old ROM":                    {message(known, discover, vendor("PXEClient:Arch:00000:UNDI:002001")), 67, nil, "offer", Proxied, "undionly.kpxe", "PXEClient"},
		"iPXE":                       {message(known, discover, append(pxe, userClass("iPXE"))...), 67, nil, "offer", Proxied, "bootstrap.ipxe", "PXEClient"},
		"HTTP boot":                  {message(known, discover, vendor("HTTPClient:Arch:00016"), archIs(16)), 67, nil, "offer", Proxied, "http://198.18.0.10/snponly.efi", "HTTPClient"},
		"it asks the boot server":    {message(known, ask, append(pxe, ciaddr("198.18.0.60"))...), 4011, nil, "ack", Proxied, "snponly.efi", "PXEClient"},
		"it takes another's address": {message(known, ask, append(pxe, serverID("198.18.0.1"))...), 67, nil, "", Unsupported, "", ""},
		"DISCOVER at 4011":           {message(known, discover, pxe...), 4011, nil, "", Unsupported, "", ""},
		"an operating system":        {message(known, discover), 67, nil, "", NoClient, "", ""},
		"no vDisk":                   {message(stranger, discover, pxe...), 67, nil, "", NotBooted, "", ""},
		"TFTP is down":               {message(known, discover, pxe...), 67, down, "", NotBooted, "", ""},
		"not an Ethernet machine":    {message(site.MAC{}, discover, pxe...), 67, nil, "", BadHardware, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			if c.view == nil {
				c.view = testView()
			}
			p, d := HandleProxy(epoch, c.view, c.q, c.port, ip("198.18.0.2"))
			if d.Answer != c.answer || d.Reason != c.reason || d.Reason.Text() == "" || (p == nil) != (c.answer == "") {
				t.Fatalf("%+v", d)
			}
			if p == nil {
				return
			}
			wellFormed(t, c.q, p, "198.18.0.2")
			if !p.YourIPAddr.IsUnspecified() || p.Options.Has(dhcpv4.OptionIPAddressLeaseTime) || p.Options.Has(dhcpv4.OptionSubnetMask) {
				t.Error("a proxy gives an address")
			}
			if p.BootFileNameOption() != c.file || p.ClassIdentifier() != c.class || p.ServerIPAddr.String() != "198.18.0.10" || p.IsBroadcast() != (c.port == 67) {
				t.Errorf("%v", p)
			}
		})
	}
}

// TestAProxyTellsWhoBoots: also of a machine that gets nothing: it may be a stranger that a collection takes in.
func TestAProxyTellsWhoBoots(t *testing.T) {
	var events []site.Event
	p, err := NewProxy(Config{Interface: "lo", ServerAddress: ip("198.18.0.2")}, testView, func(e site.Event) { events = append(events, e) }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	pxe := []change{vendor("PXEClient:Arch:00007:UNDI:003016"), archIs(7)}
	sent := 0
	answer := func(*dhcpv4.DHCPv4) error { sent++; return nil }
	p.handle(asking{message(stranger, discover, pxe...), 67, answer})
	p.handle(asking{message(known, discover, pxe...), 67, answer})
	p.handle(asking{message(known, ask, append(pxe, ciaddr("198.18.0.60"))...), 4011, answer})
	p.handle(asking{message(stranger, discover), 67, answer}) // an operating system
	if len(events) != 3 || !events[0].Begins || events[0].MAC != stranger || !events[1].Begins || events[2].Begins || sent != 2 {
		t.Errorf("%d answers, events %+v", sent, events)
	}
}

// TestAProxyAnswersTheRelay and not its own link, where the client is not.
func TestAProxyAnswersTheRelay(t *testing.T) {
	for relay, want := range map[string]destination{
		"0.0.0.0":    {addr: netip.MustParseAddrPort("255.255.255.255:68"), mac: broadcastMAC},
		"198.18.7.1": {addr: netip.MustParseAddrPort("198.18.7.1:67")},
	} {
		q := message(known, discover, vendor("PXEClient:Arch:00007:UNDI:003016"), archIs(7), giaddr(relay))
		p, _ := HandleProxy(epoch, testView(), q, 67, ip("198.18.0.2"))
		if got := proxyDestination(p); got != want || p.GatewayIPAddr.String() != relay {
			t.Errorf("relay %s: to %+v, giaddr %v", relay, got, p.GatewayIPAddr)
		}
	}
}

func TestWhoIgnoresAProxy(t *testing.T) {
	var takers takers
	at := func(after time.Duration, client site.Client, port int, reason Reason) bool {
		return takers.ignored(Decision{At: epoch.Add(after), MAC: known, Client: client, Reason: reason}, port)
	}
	const m = time.Minute
	for i, c := range []struct {
		after  time.Duration
		client site.Client
		port   int
		want   bool
	}{
		{0, site.ClientPXE, 67, false},
		{8 * time.Second, site.ClientPXE, 67, false}, // it repeats itself
		{10 * time.Second, site.ClientIPXE, 67, false},
		{5 * m, site.ClientPXE, 67, false}, // it took the offer, and boots once more
		{10 * m, site.ClientPXE, 67, true},
		{11 * m, site.ClientPXE, 4011, false},
		{15 * m, site.ClientPXE, 67, false},
	} {
		if got := at(c.after, c.client, c.port, Proxied); got != c.want {
			t.Errorf("step %d: %v", i, got)
		}
	}
	if at(30*m, site.ClientPXE, 67, NotBooted) {
		t.Error("there was nothing to ignore")
	}
}

// FuzzProxy gives the proxy whatever parses as DHCP.
func FuzzProxy(f *testing.F) {
	for _, b := range captured(f) {
		f.Add(b, true)
		f.Add(b, false)
	}
	view := testView()
	f.Fuzz(func(t *testing.T, b []byte, boot bool) {
		q, err := dhcpv4.FromBytes(b)
		if err != nil {
			return
		}
		port := 67
		if boot {
			port = ProxyPort
		}
		p, d := HandleProxy(epoch, view, q, port, ip("198.18.0.2"))
		if d.Reason.Text() == "" {
			t.Errorf("no reason: %+v", d)
		}
		if p != nil {
			wellFormed(t, q, p, "198.18.0.2")
		}
	})
}

// TestAProxyAnswersAMachineSoOften: as the server does, a client that asks without an end is answered no more than perSecond times.
func TestAProxyAnswersAMachineSoOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, err := NewProxy(Config{Interface: "lo", ServerAddress: ip("198.18.0.2")}, testView, nil, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		sent := 0
		answer := func(*dhcpv4.DHCPv4) error { sent++; return nil }
		ask := func(mac site.MAC) {
			p.handle(asking{message(mac, discover, vendor("PXEClient:Arch:00007:UNDI:003016"), archIs(7)), dhcpv4.ServerPort, answer})
		}
		for range 3 * perSecond {
			ask(known)
		}
		if n := p.Stats().Reasons[TooMany]; sent != perSecond || n != 2*perSecond {
			t.Errorf("%d answers, %d dropped", sent, n)
		}
		if ask(pooled); sent != perSecond+1 {
			t.Error("another machine waits for it")
		}
		time.Sleep(time.Second)
		if ask(known); sent != perSecond+2 {
			t.Error("it is not answered a second later")
		}
	})
}
