package v6

import (
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"everboot/dhcp"
	"everboot/site"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"
)

func ipxe(m *dhcpv6.Message) {
	firmware("PXEClient:Arch:00007:UNDI:003010", iana.EFI_X86_64)(m)
	m.AddOption(&dhcpv6.OptUserClass{UserClasses: [][]byte{[]byte("iPXE")}})
}

// TestBootOffer: what each kind of client is told to load, and that nothing is offered that would not work.
func TestBootOffer(t *testing.T) {
	pxe := firmware("PXEClient:Arch:00007:UNDI:003016", iana.EFI_X86_64)
	http := firmware("HTTPClient:Arch:00016:UNDI:003001", iana.EFI_X86_64_HTTP)
	for _, c := range []struct {
		name   string
		mac    site.MAC
		client func(*dhcpv6.Message)
		change func(*site.View)
		url    string
		class  string
		boot   site.Reason
	}{
		{"PXE", pooled1, pxe, nil, "tftp://[2001:db8::10]/snponly.efi", "", site.Offered},
		{"HTTP", pooled1, http, nil, "http://[2001:db8::10]/snponly.efi", "HTTPClient", site.Offered},
		{"HTTP at another port", pooled1, http, func(v *site.View) { v.Boot.HTTPPort = 8080 }, "http://[2001:db8::10]:8080/snponly.efi", "HTTPClient", site.Offered},
		{"iPXE", known1, ipxe, nil, "tftp://[2001:db8::10]/bootstrap.ipxe", "", site.Offered},
		{"an operating system", pooled1, wants(dhcpv6.OptionDNSRecursiveNameServer), nil, "", "", site.NotABootClient},
		{"a machine that nobody knows", stranger, pxe, nil, "", "", site.UnknownDevice},
		{"TFTP down", pooled1, pxe, func(v *site.View) { v.Boot.TFTP6.Health = site.Down }, "", "", site.TFTPDown},
		{"TFTP down, for HTTP", pooled1, http, func(v *site.View) { v.Boot.TFTP6.Health = site.Down }, "http://[2001:db8::10]/snponly.efi", "HTTPClient", site.Offered},
		{"HTTP down", pooled1, http, func(v *site.View) { v.Boot.HTTP6.Health = site.Down }, "", "", site.HTTPDown},
		{"no streamer", pooled1, pxe, func(v *site.View) { v.Streamers = nil }, "", "", site.NoReplica},
		{"no IPv6 address to boot from", pooled1, pxe, func(v *site.View) { v.Boot.Address6 = netip.Addr{} }, "", "", site.NoBootAddress},
		{"its file is not there", pooled1, pxe, func(v *site.View) { v.Boot.Lacks = []string{site.FileX64} }, "", "", site.NoBootFile},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := testView()
			if c.change != nil {
				c.change(v)
			}
			for _, kind := range []dhcpv6.MessageType{dhcpv6.MessageTypeSolicit, dhcpv6.MessageTypeInformationRequest} {
				m := message(c.mac, kind, c.client)
				b, d := Handle(epoch, v, m, NewState(testConfig()))
				p, err := dhcpv6.MessageFromBytes(b)
				if err != nil {
					t.Fatal(err)
				}
				class := ""
				if data := p.Options.VendorClass(intel); len(data) > 0 {
					class = string(data[0])
				}
				if p.Options.BootFileURL() != c.url || class != c.class || d.Boot != c.boot || d.File != c.url {
					t.Errorf("%s: %q, class %q, boot %q, decision %+v", kind, p.Options.BootFileURL(), class, d.Boot, d)
				}
			}
		})
	}
}

// TestAskedFor: DNS servers and a refresh time for who asks for them, and no boot file for who does not (RFC 5970 §3.1).
func TestAskedFor(t *testing.T) {
	p, _ := ask(t, NewState(testConfig()), epoch, message(stranger, dhcpv6.MessageTypeInformationRequest, wants(dhcpv6.OptionDNSRecursiveNameServer)))
	if !slices.EqualFunc(p.Options.DNS(), []net.IP{net.ParseIP("2001:db8::53")}, net.IP.Equal) || p.Options.InformationRefreshTime(0) != time.Hour {
		t.Errorf("%s", p.Summary())
	}
	if p, _ := ask(t, NewState(testConfig()), epoch, message(stranger, dhcpv6.MessageTypeInformationRequest)); p.Options.DNS() != nil {
		t.Errorf("%s", p.Summary())
	}
}

// relayed puts a message into the envelopes of two agents, of which the one next to the client says where it is.
func relayed(t *testing.T, m Message, link string) Message {
	t.Helper()
	inner, err := dhcpv6.MessageFromBytes(m.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	near, err := dhcpv6.EncapsulateRelay(inner, dhcpv6.MessageTypeRelayForward, net.ParseIP(link), m.From.AsSlice())
	if err != nil {
		t.Fatal(err)
	}
	near.AddOption(dhcpv6.OptInterfaceID([]byte("port 7")))
	far, err := dhcpv6.EncapsulateRelay(near, dhcpv6.MessageTypeRelayForward, net.IPv6zero, net.ParseIP("2001:db8:7::1"))
	if err != nil {
		t.Fatal(err)
	}
	return Message{Bytes: far.ToBytes(), From: ip("2001:db8::1"), Unicast: true}
}

// TestRelay: the subnet is that of the agent next to the client; the answer goes back through both agents, by the ways that they named.
func TestRelay(t *testing.T) {
	s := NewState(testConfig())
	b, d := Handle(epoch, testView(), relayed(t, message(stranger, dhcpv6.MessageTypeSolicit, iaOf(), rapid), "2001:db8:7::1"), s)
	if d.Reason != dhcp.Pooled || d.MAC != stranger || !testConfig().Subnets[1].Network.Contains(d.Address) {
		t.Errorf("%+v", d)
	}
	far, err := dhcpv6.RelayMessageFromBytes(b)
	if err != nil {
		t.Fatal(err)
	}
	near, ok := far.Options.RelayMessage().(*dhcpv6.RelayMessage)
	if !ok || far.MessageType != dhcpv6.MessageTypeRelayReply || near.MessageType != dhcpv6.MessageTypeRelayReply {
		t.Fatalf("%s", far.Summary())
	}
	if far.HopCount != 1 || near.HopCount != 0 || string(near.Options.InterfaceID()) != "port 7" || !near.PeerAddr.Equal(linkLocal(stranger).AsSlice()) {
		t.Errorf("%s", far.Summary())
	}
	m, err := far.GetInnerMessage()
	if err != nil || m.MessageType != dhcpv6.MessageTypeReply || m.Options.OneIANA().T1 != 5*time.Minute {
		t.Errorf("%v %v", m, err)
	}
	for link, want := range map[string]dhcp.Reason{"2001:db8:9::1": dhcp.NoSubnet, "::": dhcp.NoSubnet, "2001:db8:8::1": dhcp.NoPool} {
		if _, d := Handle(epoch, testView(), relayed(t, message(stranger, dhcpv6.MessageTypeSolicit, iaOf()), link), s); d.Reason != want {
			t.Errorf("at %s: %s, want %s", link, d.Reason, want)
		}
	}
}

// FuzzHandle gives the handler anything. It must not panic; what it answers must be well formed, bear our identifier, and go to who asked.
func FuzzHandle(f *testing.F) {
	f.Add(message(known1, dhcpv6.MessageTypeSolicit, iaOf(), ipxe).Bytes)
	f.Add(message(stranger, dhcpv6.MessageTypeRequest, iaOf(its(stranger, 0)), toServer, wants(dhcpv6.OptionDNSRecursiveNameServer)).Bytes)
	f.Add(message(stranger, dhcpv6.MessageTypeRebind, iaOf(its(stranger, 0), "2001:db8:7::1"), iaNumber(2)).Bytes)
	f.Add(message(stranger, dhcpv6.MessageTypeDecline, iaOf(its(stranger, 0)), toServer).Bytes)
	f.Add(message(stranger, dhcpv6.MessageTypeConfirm, iaOf(its(stranger, 0))).Bytes)
	inner, _ := dhcpv6.MessageFromBytes(message(pooled1, dhcpv6.MessageTypeSolicit, iaOf(), rapid).Bytes)
	relay, _ := dhcpv6.EncapsulateRelay(inner, dhcpv6.MessageTypeRelayForward, net.ParseIP("2001:db8:7::1"), linkLocal(pooled1).AsSlice())
	f.Add(relay.ToBytes())
	view, state := testView(), NewState(testConfig())
	f.Fuzz(func(t *testing.T, b []byte) {
		reply, d := Handle(epoch, view, Message{Bytes: b, From: linkLocal(stranger)}, state)
		if d.Reason.Text() == "" {
			t.Errorf("no reason: %+v", d)
		}
		if reply == nil {
			return
		}
		p, err := dhcpv6.FromBytes(reply)
		if err != nil {
			t.Fatalf("the answer is malformed: %v", err)
		}
		q, _ := dhcpv6.FromBytes(b)
		if p.IsRelay() != q.IsRelay() {
			t.Error("the answer is in another envelope than the question")
		}
		m, err := p.GetInnerMessage()
		if err != nil || !serverID("berlin").Equal(m.Options.ServerID()) {
			t.Errorf("%v: %v", err, m)
		}
		if m.MessageType != dhcpv6.MessageTypeReply && m.MessageType != dhcpv6.MessageTypeAdvertise {
			t.Errorf("a server says %s", m.MessageType)
		}
	})
}
