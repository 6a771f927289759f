package dhcp

import (
	"net"
	"net/netip"
	"time"

	"everboot/site"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
)

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

// testConfig is appliance a of a and b, with a pool of 100 to 199.
func testConfig() Config {
	return Config{
		Interface: "eth0", ServerAddress: ip("198.18.0.2"), Peers: []netip.Addr{ip("198.18.0.3")}, LeaseFile: "leases.db",
		Taken: []netip.Addr{ip("198.18.0.11")},
		Subnets: []Subnet{
			{
				Network: netip.MustParsePrefix("198.18.0.0/24"), Range: [2]netip.Addr{ip("198.18.0.100"), ip("198.18.0.199")},
				Router: ip("198.18.0.1"), DNS: []netip.Addr{ip("198.18.0.1"), ip("198.18.0.4")}, Domain: "berlin.example",
			},
			{Network: netip.MustParsePrefix("198.18.7.0/24"), Range: [2]netip.Addr{ip("198.18.7.10"), ip("198.18.7.11")}, Lease: 10 * time.Minute},
			{Network: netip.MustParsePrefix("198.18.8.0/24")},
		},
	}
}

func alone() Config {
	c := testConfig()
	c.Peers = nil
	return c
}

var (
	known    = site.MAC{0x52, 0x54, 0, 0, 0, 1} // has a reservation, 198.18.0.51, and boots
	pooled   = site.MAC{0x52, 0x54, 0, 0, 0, 2} // boots, without a reservation
	diskless = site.MAC{0x52, 0x54, 0, 0, 0, 3} // has a reservation in the pool, 198.18.0.150, and no vDisk
	stranger = site.MAC{0x52, 0x54, 0, 0, 0, 9}
)

// testView is a healthy site with a vDisk, a streamer and three devices.
func testView() *site.View {
	digest := site.Digest("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef")
	up := site.Check{Health: site.Up}
	return &site.View{
		Site: "berlin",
		Boot: site.BootService{Address: ip("198.18.0.10"), TFTP: up, HTTP: up},
		Devices: map[site.MAC]site.Device{
			known:    {MAC: known, Name: "t1", Address: ip("198.18.0.51"), VDisk: "debian"},
			pooled:   {MAC: pooled, Name: "t2", VDisk: "debian"},
			diskless: {MAC: diskless, Name: "t3", Address: ip("198.18.0.150")},
		},
		VDisks: map[string]site.VDisk{"debian": {Name: "debian", Versions: []site.Version{{Number: 1, Digest: digest}}}},
		Streamers: map[string]site.Streamer{"s1": {
			Name: "s1", Site: "berlin", Addresses: []netip.AddrPort{netip.MustParseAddrPort("198.18.0.21:3260")}, State: site.Active,
			Replicas: []site.Replica{{VDisk: "debian", Version: 1, Digest: digest}}, Check: up,
		}},
	}
}

// change changes a message that is being made.
type change = dhcpv4.Modifier

// message makes what a client sends.
func message(mac site.MAC, kind dhcpv4.MessageType, changes ...change) *dhcpv4.DHCPv4 {
	q := &dhcpv4.DHCPv4{
		OpCode: dhcpv4.OpcodeBootRequest, HWType: iana.HWTypeEthernet, TransactionID: dhcpv4.TransactionID{1, 2, 3, 4},
		ClientIPAddr: net.IPv4zero, YourIPAddr: net.IPv4zero, ServerIPAddr: net.IPv4zero, GatewayIPAddr: net.IPv4zero,
		ClientHWAddr: mac[:], Options: dhcpv4.Options{},
	}
	q.UpdateOption(dhcpv4.OptMessageType(kind))
	for _, c := range changes {
		c(q)
	}
	return q
}

func option(code uint8, value string) change {
	return func(q *dhcpv4.DHCPv4) { q.Options[code] = []byte(value) }
}

func addrOption(code uint8, a string) change { return option(code, string(ip(a).AsSlice())) }

func requested(a string) change { return addrOption(50, a) }
func serverID(a string) change  { return addrOption(54, a) }
func clientID(id string) change { return option(61, id) }
func ciaddr(a string) change    { return func(q *dhcpv4.DHCPv4) { q.ClientIPAddr = ip(a).AsSlice() } }
func giaddr(a string) change    { return func(q *dhcpv4.DHCPv4) { q.GatewayIPAddr = ip(a).AsSlice() } }
func vendor(class string) change {
	return option(60, class)
}
func userClass(class string) change { return option(77, class) }
func archIs(a uint16) change        { return option(93, string([]byte{byte(a >> 8), byte(a)})) }
