package v6

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"everboot/dhcp"
	"everboot/site"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"
)

var (
	epoch    = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	known1   = site.MAC{0x52, 0x54, 0, 0, 0, 1} // has a reservation, 2001:db8::51, and boots
	pooled1  = site.MAC{0x52, 0x54, 0, 0, 0, 2} // boots, without a reservation
	stranger = site.MAC{0x52, 0x54, 0, 0, 0, 9}
)

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

func testConfig() Config {
	return Config{
		Interface: "eth0", Site: "berlin", Addresses: []netip.Addr{ip("2001:db8::10"), ip("2001:db8::2")},
		Subnets: []Subnet{
			{
				Network: netip.MustParsePrefix("2001:db8::/64"), Ranges: [][2]netip.Addr{{ip("2001:db8::1:0"), ip("2001:db8::1:ffff")}},
				DNS: []netip.Addr{ip("2001:db8::53")},
			},
			{Network: netip.MustParsePrefix("2001:db8:7::/64"), Ranges: [][2]netip.Addr{{ip("2001:db8:7::1"), ip("2001:db8:7::ffff")}}, Lease: 10 * time.Minute},
			{Network: netip.MustParsePrefix("2001:db8:8::/64")},
		},
	}
}

func testView() *site.View {
	digest := site.Digest("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef")
	up := site.Check{Health: site.Up}
	return &site.View{
		Site: "berlin",
		Boot: site.BootService{Address: ip("198.18.0.10"), Address6: ip("2001:db8::10"), TFTP6: up, HTTP6: up},
		Devices: map[site.MAC]site.Device{
			known1:  {MAC: known1, Name: "t1", Address6: ip("2001:db8::51"), VDisk: "debian"},
			pooled1: {MAC: pooled1, Name: "t2", VDisk: "debian"},
		},
		VDisks: map[string]site.VDisk{"debian": {Name: "debian", Versions: []site.Version{{Number: 1, Digest: digest}}}},
		Streamers: map[string]site.Streamer{"s1": {
			Name: "s1", Site: "berlin", Addresses: []netip.AddrPort{netip.MustParseAddrPort("198.18.0.21:3260")}, State: site.Active,
			Replicas: []site.Replica{{VDisk: "debian", Version: 1, Digest: digest}}, Check: up,
		}},
	}
}

// linkLocal returns the address that firmware makes of its MAC.
func linkLocal(m site.MAC) netip.Addr {
	return netip.AddrFrom16([16]byte{0xfe, 0x80, 8: m[0] ^ 2, m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]})
}

// message makes what a client sends. An association stands for each list of addresses.
func message(mac site.MAC, kind dhcpv6.MessageType, changes ...func(*dhcpv6.Message)) Message {
	m := &dhcpv6.Message{MessageType: kind, TransactionID: dhcpv6.TransactionID{1, 2, 3}}
	m.AddOption(dhcpv6.OptClientID(&dhcpv6.DUIDLL{HWType: iana.HWTypeEthernet, LinkLayerAddr: net.HardwareAddr(mac[:])}))
	m.AddOption(dhcpv6.OptElapsedTime(0))
	for _, c := range changes {
		c(m)
	}
	return Message{Bytes: m.ToBytes(), From: linkLocal(mac)}
}

func iaOf(addrs ...string) func(*dhcpv6.Message) { return iaNumber(1, addrs...) }

func iaNumber(n byte, addrs ...string) func(*dhcpv6.Message) {
	return func(m *dhcpv6.Message) {
		ia := &dhcpv6.OptIANA{IaId: [4]byte{0, 0, 0, n}}
		for _, a := range addrs {
			ia.Options.Add(&dhcpv6.OptIAAddress{IPv6Addr: net.ParseIP(a)})
		}
		m.AddOption(ia)
	}
}

func wants(codes ...dhcpv6.OptionCode) func(*dhcpv6.Message) {
	return func(m *dhcpv6.Message) { m.AddOption(dhcpv6.OptRequestedOption(codes...)) }
}

func toServer(m *dhcpv6.Message) { m.AddOption(dhcpv6.OptServerID(serverID("berlin"))) }

func toOther(m *dhcpv6.Message) {
	m.AddOption(dhcpv6.OptServerID(&dhcpv6.DUIDEN{EnterpriseNumber: 9, EnterpriseIdentifier: []byte("x")}))
}

func rapid(m *dhcpv6.Message) {
	m.AddOption(&dhcpv6.OptionGeneric{OptionCode: dhcpv6.OptionRapidCommit})
}

func after(d time.Duration) func(*dhcpv6.Message) {
	return func(m *dhcpv6.Message) { m.UpdateOption(dhcpv6.OptElapsedTime(d)) }
}

// firmware makes a message that of a firmware.
func firmware(class string, arch iana.Arch) func(*dhcpv6.Message) {
	return func(m *dhcpv6.Message) {
		wants(dhcpv6.OptionBootfileURL, dhcpv6.OptionBootfileParam)(m)
		m.AddOption(dhcpv6.OptClientArchType(arch))
		m.AddOption(&dhcpv6.OptVendorClass{EnterpriseNumber: intel, Data: [][]byte{[]byte(class)}})
		m.UpdateOption(dhcpv6.OptClientID(&dhcpv6.DUIDUUID{UUID: [16]byte{7}}))
	}
}

// ask gives a message to a state and returns the answer; nil: silence.
func ask(t *testing.T, s *State, now time.Time, m Message) (*dhcpv6.Message, dhcp.Decision) {
	t.Helper()
	b, d := Handle(now, testView(), m, s)
	if d.Reason.Text() == "" {
		t.Errorf("no reason: %+v", d)
	}
	if b == nil {
		return nil, d
	}
	p, err := dhcpv6.FromBytes(b)
	if err != nil {
		t.Fatalf("the answer is malformed: %v", err)
	}
	q, err := p.GetInnerMessage()
	if err != nil {
		t.Fatal(err)
	}
	return q, d
}

// given returns the addresses of an answer as "address/valid seconds", and the status codes of associations.
func given(m *dhcpv6.Message) (list []string) {
	for _, ia := range m.Options.IANA() {
		for _, a := range ia.Options.Addresses() {
			if a.ValidLifetime == 0 {
				list = append(list, "not "+a.IPv6Addr.String())
				continue
			}
			list = append(list, a.IPv6Addr.String())
		}
		if s := ia.Options.Status(); s != nil {
			list = append(list, s.StatusCode.String())
		}
	}
	return list
}

// its returns the n-th address that a client of message may have.
func its(mac site.MAC, n int) string {
	duid := string((&dhcpv6.DUIDLL{HWType: iana.HWTypeEthernet, LinkLayerAddr: net.HardwareAddr(mac[:])}).ToBytes())
	return candidate("berlin", testConfig().Subnets[0], client{duid, [4]byte{0, 0, 0, 1}}, n).String()
}

// TestExchanges: each message of RFC 8415 §18.3 by itself, to a server that remembers nothing.
func TestExchanges(t *testing.T) {
	first, second := its(stranger, 0), its(stranger, 1)
	for _, c := range []struct {
		name   string
		m      Message
		answer string // with what it gives
		reason dhcp.Reason
	}{
		{"solicit", message(stranger, dhcpv6.MessageTypeSolicit, iaOf()), "ADVERTISE " + first, dhcp.Pooled},
		{"solicit, an address of its own is kept", message(stranger, dhcpv6.MessageTypeSolicit, iaOf(second)), "ADVERTISE " + second, dhcp.Pooled},
		{"solicit, another's address is not", message(stranger, dhcpv6.MessageTypeSolicit, iaOf("2001:db8::1:77")), "ADVERTISE " + first, dhcp.Pooled},
		{"solicit, rapid commit", message(stranger, dhcpv6.MessageTypeSolicit, iaOf(), rapid), "REPLY " + first, dhcp.Pooled},
		{"solicit, no association", message(stranger, dhcpv6.MessageTypeSolicit), "ADVERTISE", dhcp.Informed},
		{"solicit with a server identifier", message(stranger, dhcpv6.MessageTypeSolicit, iaOf(), toServer), "", dhcp.Malformed},
		{"solicit of a device with a reservation", message(known1, dhcpv6.MessageTypeSolicit, iaOf()), "ADVERTISE 2001:db8::51", dhcp.Reserved},
		{"a second association gets another address", message(known1, dhcpv6.MessageTypeSolicit, iaNumber(9), iaOf()), "ADVERTISE 2001:db8::51 " + its(known1, 0), dhcp.Reserved},
		{"request", message(stranger, dhcpv6.MessageTypeRequest, iaOf(first), toServer), "REPLY " + first, dhcp.Pooled},
		{"request without a server identifier", message(stranger, dhcpv6.MessageTypeRequest, iaOf(first)), "", dhcp.Malformed},
		{"request to another server", message(stranger, dhcpv6.MessageTypeRequest, iaOf(first), toOther), "", dhcp.OtherServer},
		{"renew", message(stranger, dhcpv6.MessageTypeRenew, iaOf(second), toServer), "REPLY " + second, dhcp.Renewed},
		{"renew of what it may not have", message(stranger, dhcpv6.MessageTypeRenew, iaOf("2001:db8::1:77"), toServer), "REPLY " + first + " not 2001:db8::1:77", dhcp.Pooled},
		{"renew of what was its own before its reservation", message(known1, dhcpv6.MessageTypeRenew, iaOf(its(known1, 0)), toServer), "REPLY 2001:db8::51 not " + its(known1, 0), dhcp.Reserved},
		{"rebind", message(stranger, dhcpv6.MessageTypeRebind, iaOf(first)), "REPLY " + first, dhcp.Renewed},
		{"rebind of another server's", message(stranger, dhcpv6.MessageTypeRebind, iaOf("2001:db8::9:9")), "", dhcp.NoRecord},
		{"rebind in another network", message(stranger, dhcpv6.MessageTypeRebind, iaOf("2001:db8:7::9")), "REPLY " + first + " not 2001:db8:7::9", dhcp.Pooled},
		{"confirm", message(stranger, dhcpv6.MessageTypeConfirm, iaOf(first)), "REPLY Success", dhcp.Renewed},
		{"request for another network's address", message(stranger, dhcpv6.MessageTypeRequest, iaOf("2001:db8:7::9"), toServer), "REPLY NotOnLink", dhcp.WrongNetwork},
		{"confirm in another network", message(stranger, dhcpv6.MessageTypeConfirm, iaOf("2001:db8:7::9")), "REPLY NotOnLink", dhcp.WrongNetwork},
		{"confirm of nothing", message(stranger, dhcpv6.MessageTypeConfirm, iaOf()), "", dhcp.Malformed},
		{"release", message(stranger, dhcpv6.MessageTypeRelease, iaOf(first), toServer), "REPLY Success", dhcp.Freed},
		{"release of another's", message(stranger, dhcpv6.MessageTypeRelease, iaOf("2001:db8::1:77"), toServer), "REPLY Success NoBinding", dhcp.NotALease},
		{"decline", message(stranger, dhcpv6.MessageTypeDecline, iaOf(first), toServer), "REPLY Success", dhcp.Isolated},
		{"information-request", message(stranger, dhcpv6.MessageTypeInformationRequest), "REPLY", dhcp.Informed},
		{"information-request with an association", message(stranger, dhcpv6.MessageTypeInformationRequest, iaOf()), "", dhcp.Malformed},
		{"what servers send", message(stranger, dhcpv6.MessageTypeReply, toServer), "", dhcp.Malformed},
		{"garbage", Message{Bytes: []byte{1, 2, 3}, From: linkLocal(stranger)}, "", dhcp.Malformed},
		{"nothing", Message{From: linkLocal(stranger)}, "", dhcp.Malformed},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, d := ask(t, NewState(testConfig()), epoch, c.m)
			got := ""
			if p != nil {
				got = p.MessageType.String()
				if s := p.Options.Status(); s != nil {
					got += " " + s.StatusCode.String()
				}
				got = strings.Join(append([]string{got}, given(p)...), " ")
				if !serverID("berlin").Equal(p.Options.ServerID()) || p.TransactionID != (dhcpv6.TransactionID{1, 2, 3}) || p.Options.ClientID() == nil {
					t.Errorf("the answer is not marked as one: %s", p.Summary())
				}
			}
			if got != c.answer || d.Reason != c.reason {
				t.Errorf("%q (%s), want %q (%s)", got, d.Reason, c.answer, c.reason)
			}
		})
	}
}

// TestNodesAgree: two appliances give each client the same address, whatever each of them was asked before, and no address twice.
func TestNodesAgree(t *testing.T) {
	a, b := NewState(testConfig()), NewState(testConfig())
	holders := make(map[string]uint32)
	for i := range uint32(2000) {
		mac := site.MAC{2}
		binary.BigEndian.PutUint32(mac[2:], i)
		p, _ := ask(t, a, epoch, message(mac, dhcpv6.MessageTypeSolicit, iaOf()))
		q, _ := ask(t, b, epoch, message(mac, dhcpv6.MessageTypeSolicit, iaOf()))
		if !slices.Equal(given(p), given(q)) {
			t.Fatalf("client %d: %v of the one, %v of the other", i, given(p), given(q))
		}
		request := message(mac, dhcpv6.MessageTypeRequest, iaOf(given(p)...), toServer)
		request.Ours = func(string) bool { return i%2 == 0 } // the other only hears it
		p, _ = ask(t, a, epoch, request)
		request.Ours = func(string) bool { return i%2 == 1 }
		q, _ = ask(t, b, epoch, request)
		if (p == nil) == (q == nil) {
			t.Fatalf("client %d: answered by both, or by none", i)
		}
		if p == nil {
			p = q
		}
		address := given(p)[0]
		if other, taken := holders[address]; taken {
			t.Fatalf("%s is given to %d and to %d", address, other, i)
		}
		holders[address] = i
	}
}

// TestNothingNeedsToBeRemembered: what one run of a server gave, the next renews; a client that found its address in use gets the next one, and the
// one who uses it goes on with it.
func TestNothingNeedsToBeRemembered(t *testing.T) {
	c := testConfig()
	c.Subnets = c.Subnets[:1]
	c.Subnets[0].Ranges = [][2]netip.Addr{{ip("2001:db8::1:0"), ip("2001:db8::1:3")}}
	// Two clients with the same first address.
	var macs []site.MAC
	first := make(map[string]site.MAC)
	for i := byte(0); macs == nil; i++ {
		mac := site.MAC{2, 0, 0, 0, 0, i}
		p, _ := ask(t, NewState(c), epoch, message(mac, dhcpv6.MessageTypeSolicit, iaOf()))
		if other, ok := first[given(p)[0]]; ok {
			macs = []site.MAC{other, mac}
		}
		first[given(p)[0]] = mac
	}
	s := NewState(c) // it started anew: the first client has the address already
	p, _ := ask(t, s, epoch, message(macs[1], dhcpv6.MessageTypeSolicit, iaOf()))
	address := given(p)[0]
	ask(t, s, epoch, message(macs[1], dhcpv6.MessageTypeRequest, iaOf(address), toServer))
	ask(t, s, epoch, message(macs[1], dhcpv6.MessageTypeDecline, iaOf(address), toServer))
	p, _ = ask(t, s, epoch, message(macs[1], dhcpv6.MessageTypeSolicit, iaOf(address)))
	if next := given(p)[0]; next == address {
		t.Errorf("after its DECLINE it gets %s again", next)
	}
	p, d := ask(t, s, epoch, message(macs[0], dhcpv6.MessageTypeRenew, iaOf(address), toServer))
	if !slices.Equal(given(p), []string{address}) || d.Reason != dhcp.Renewed {
		t.Errorf("who has %s is told %v (%s)", address, given(p), d.Reason)
	}
	p, _ = ask(t, s, epoch.Add(time.Minute), message(macs[1], dhcpv6.MessageTypeSolicit, iaOf()))
	if given(p)[0] == address {
		t.Error("it is given to a second one all the same")
	}
}

// TestDeviceKeepsItsReservation: firmware, iPXE and the operating system of one machine have different identifiers and one card.
func TestDeviceKeepsItsReservation(t *testing.T) {
	s := NewState(testConfig())
	for _, m := range []Message{
		message(known1, dhcpv6.MessageTypeSolicit, iaOf(), rapid, firmware("PXEClient:Arch:00007:UNDI:003016", iana.EFI_X86_64)),
		message(known1, dhcpv6.MessageTypeSolicit, iaNumber(9), rapid),
	} {
		if p, d := ask(t, s, epoch, m); !slices.Equal(given(p), []string{"2001:db8::51"}) || d.MAC != known1 {
			t.Errorf("%v for %s", given(p), d.MAC)
		}
	}
	// An operating system with an address that says nothing of its MAC.
	m := message(known1, dhcpv6.MessageTypeSolicit, iaOf())
	m.From = ip("fe80::1234:5678:9abc:def0")
	if p, _ := ask(t, s, epoch, m); !slices.Equal(given(p), []string{"2001:db8::51"}) {
		t.Errorf("%v", given(p))
	}
}

// TestFullPool: who finds no address is told so, and it is free again after a RELEASE.
func TestFullPool(t *testing.T) {
	c := testConfig()
	c.Subnets = c.Subnets[:1]
	c.Subnets[0].Ranges = [][2]netip.Addr{{ip("2001:db8::1:1"), ip("2001:db8::1:1")}}
	s := NewState(c)
	ask(t, s, epoch, message(stranger, dhcpv6.MessageTypeSolicit, iaOf(), rapid))
	p, d := ask(t, s, epoch, message(pooled1, dhcpv6.MessageTypeSolicit, iaOf()))
	if d.Reason != dhcp.PoolEmpty || !slices.Equal(given(p), []string{"NoAddrsAvail"}) {
		t.Errorf("%v (%s)", given(p), d.Reason)
	}
	ask(t, s, epoch, message(stranger, dhcpv6.MessageTypeRelease, iaOf("2001:db8::1:1"), toServer))
	if p, _ = ask(t, s, epoch, message(pooled1, dhcpv6.MessageTypeSolicit, iaOf())); !slices.Equal(given(p), []string{"2001:db8::1:1"}) {
		t.Errorf("%v", given(p))
	}
	if p, d = ask(t, s, epoch.Add(DefaultLease), message(stranger, dhcpv6.MessageTypeSolicit, iaOf())); d.Reason != dhcp.Pooled {
		t.Errorf("%v (%s)", given(p), d.Reason)
	}
}

// TestWhoAnswers: the node whose client it is; any node, once the client asks again.
func TestWhoAnswers(t *testing.T) {
	s := NewState(testConfig())
	m := message(stranger, dhcpv6.MessageTypeSolicit, iaOf())
	m.Ours = func(string) bool { return false }
	if p, d := ask(t, s, epoch, m); p != nil || d.Reason != dhcp.OtherNode {
		t.Errorf("%v (%s)", p, d.Reason)
	}
	m.Bytes = message(stranger, dhcpv6.MessageTypeSolicit, iaOf(), after(900*time.Millisecond)).Bytes
	if p, _ := ask(t, s, epoch, m); p == nil {
		t.Error("asked again it gets no answer")
	}
}

// TestUnicast: nobody is allowed to leave the group address out (RFC 8415 §18.4).
func TestUnicast(t *testing.T) {
	m := message(stranger, dhcpv6.MessageTypeRenew, iaOf(its(stranger, 0)), toServer)
	m.Unicast = true
	p, _ := ask(t, NewState(testConfig()), epoch, m)
	if p == nil || p.Options.Status() == nil || p.Options.Status().StatusCode != iana.StatusUseMulticast || len(p.Options.IANA()) > 0 {
		t.Errorf("%v", p)
	}
	m = message(stranger, dhcpv6.MessageTypeSolicit, iaOf())
	m.Unicast = true
	if p, _ := ask(t, NewState(testConfig()), epoch, m); p != nil {
		t.Errorf("%v", p)
	}
}

// TestOthersAreRefused: temporary addresses and prefixes (RFC 8415 §18.3.9).
func TestOthersAreRefused(t *testing.T) {
	m := message(stranger, dhcpv6.MessageTypeSolicit, iaOf(), func(m *dhcpv6.Message) {
		m.AddOption(&dhcpv6.OptIATA{IaId: [4]byte{2}})
		m.AddOption(&dhcpv6.OptIAPD{IaId: [4]byte{3}})
	})
	p, _ := ask(t, NewState(testConfig()), epoch, m)
	if s := p.Options.OneIATA().Options.Status(); s.StatusCode != iana.StatusNoAddrsAvail {
		t.Errorf("%v", s)
	}
	if s := p.Options.OneIAPD().Options.Status(); s.StatusCode != iana.StatusNoPrefixAvail {
		t.Errorf("%v", s)
	}
}
