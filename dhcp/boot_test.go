package dhcp

import (
	"net/netip"
	"strings"
	"testing"

	"everboot/site"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// TestBootOptions: what each kind of client is told.
func TestBootOptions(t *testing.T) {
	pxe := func(arch uint16, class string) []change { return []change{vendor(class), archIs(arch)} }
	for name, c := range map[string]struct {
		mac    site.MAC
		with   []change
		view   func(*site.View)
		boot   site.Reason
		file   string // option 67
		header string // file
		tftp   string // option 66
		class  string // option 60
		o43    string
		o175   string
	}{
		"BIOS ROM": {mac: known, with: pxe(0, "PXEClient:Arch:00000:UNDI:002001"), boot: site.Offered, file: site.FileBIOS, header: site.FileBIOS,
			tftp: "198.18.0.10", class: "PXEClient", o43: "\x06\x01\x08\xff"},
		"BIOS ROM without option 93": {mac: known, with: []change{vendor("PXEClient:Arch:00000:UNDI:002001")}, boot: site.Offered, file: site.FileBIOS, header: site.FileBIOS,
			tftp: "198.18.0.10", class: "PXEClient", o43: "\x06\x01\x08\xff"},
		"UEFI x64": {mac: known, with: pxe(7, "PXEClient:Arch:00007:UNDI:003016"), boot: site.Offered, file: site.FileX64, header: site.FileX64,
			tftp: "198.18.0.10", class: "PXEClient", o43: "\x06\x01\x08\xff"},
		"UEFI x64 that says so in the vendor class only": {mac: known, with: []change{vendor("PXEClient:Arch:00009:UNDI:003016")}, boot: site.Offered, file: site.FileX64,
			header: site.FileX64, tftp: "198.18.0.10", class: "PXEClient", o43: "\x06\x01\x08\xff"},
		"UEFI without a reservation": {mac: pooled, with: pxe(9, "PXEClient:Arch:00009:UNDI:003016"), boot: site.Offered, file: site.FileX64, header: site.FileX64,
			tftp: "198.18.0.10", class: "PXEClient", o43: "\x06\x01\x08\xff"},
		"UEFI HTTP": {mac: known, with: pxe(16, "HTTPClient:Arch:00016:UNDI:003001"), boot: site.Offered, file: "http://198.18.0.10/" + site.FileX64, class: "HTTPClient"},
		"iPXE on BIOS, bare user class": {mac: known, with: append(pxe(0, "PXEClient:Arch:00000:UNDI:002001"), userClass("iPXE")), boot: site.Offered,
			file: site.FileBootstrap, header: site.FileBootstrap, tftp: "198.18.0.10", o175: "\xb0\x01\x01"},
		"iPXE on UEFI, user class of RFC 3004": {mac: known, with: append(pxe(7, "PXEClient:Arch:00007:UNDI:003010"), userClass("\x03lab\x04iPXE")), boot: site.Offered,
			file: site.FileBootstrap, header: site.FileBootstrap, tftp: "198.18.0.10", o175: "\xb0\x01\x01"},
		"another user class":  {mac: known, with: append(pxe(64, "PXEClient:Arch:00064:UNDI:003010"), userClass("\x08iPXE-not")), boot: site.UnsupportedArch},
		"user class of zeros": {mac: known, with: append(pxe(64, "PXEClient"), userClass("\x00\x00")), boot: site.UnsupportedArch},
		"an operating system": {mac: known, with: []change{vendor("udhcp 1.35.0")}, boot: site.NotABootClient},
		"ARM64": {mac: known, with: pxe(11, "PXEClient:Arch:00011:UNDI:003000"), boot: site.Offered, file: site.FileARM64, header: site.FileARM64,
			tftp: "198.18.0.10", class: "PXEClient", o43: "\x06\x01\x08\xff"},
		"ARM64 over HTTP": {mac: known, with: pxe(19, "HTTPClient:Arch:00019:UNDI:003001"), boot: site.Offered, file: "http://198.18.0.10/" + site.FileARM64, class: "HTTPClient"},
		"IA32, which the appliance has no file for": {mac: known, with: pxe(6, "PXEClient:Arch:00006:UNDI:003016"), boot: site.NoBootFile,
			view: func(v *site.View) { v.Boot.Lacks = []string{site.FileIA32} }},
		"RISC-V":               {mac: known, with: pxe(27, "PXEClient:Arch:00027:UNDI:003000"), boot: site.UnsupportedArch},
		"nobody that we know":  {mac: stranger, with: pxe(7, "PXEClient:Arch:00007:UNDI:003016"), boot: site.UnknownDevice},
		"a device without one": {mac: diskless, with: pxe(7, "PXEClient:Arch:00007:UNDI:003016"), boot: site.NoVDisk},
		"TFTP is down": {mac: known, with: pxe(7, "PXEClient:Arch:00007:UNDI:003016"), boot: site.TFTPDown,
			view: func(v *site.View) { v.Boot.TFTP.Health = site.Down }},
		"no streamer": {mac: known, with: pxe(7, "PXEClient:Arch:00007:UNDI:003016"), boot: site.NoReplica,
			view: func(v *site.View) { v.Streamers = nil }},
		"no VIP": {mac: known, with: pxe(7, "PXEClient:Arch:00007:UNDI:003016"), boot: site.NoBootAddress,
			view: func(v *site.View) { v.Boot.Address = netip.Addr{} }},
	} {
		t.Run(name, func(t *testing.T) {
			view := testView()
			if c.view != nil {
				c.view(view)
			}
			q := message(c.mac, discover, append(c.with, option(97, "\x000123456789abcdef"))...)
			p, e := Handle(epoch, view, q, NewState(alone()))
			if p == nil || e.Decision.Boot != c.boot {
				t.Fatalf("boot %q, want %q", e.Decision.Boot, c.boot)
			}
			siaddr, uuid := "0.0.0.0", ""
			if c.boot == site.Offered {
				siaddr, uuid = "198.18.0.10", "\x000123456789abcdef"
			}
			for what, v := range map[string][2]string{
				"siaddr": {p.ServerIPAddr.String(), siaddr}, "file": {p.BootFileName, c.header},
				"option 67": {string(p.Options[67]), c.file}, "option 66": {string(p.Options[66]), c.tftp}, "option 60": {string(p.Options[60]), c.class},
				"option 43": {string(p.Options[43]), c.o43}, "option 97": {string(p.Options[97]), uuid}, "option 175": {string(p.Options[175]), c.o175},
			} {
				if v[0] != v[1] {
					t.Errorf("%s is %q, want %q", what, v[0], v[1])
				}
			}
		})
	}
}

// TestLongFile: a name that the header has no room for is in option 67 alone, and never cut.
func TestLongFile(t *testing.T) {
	for _, n := range []int{127, 128, 255, 300} {
		q := message(known, discover)
		r, _ := read(q)
		r.boot.Client = site.ClientPXE
		p := blank(r, dhcpv4.MessageTypeOffer, ip("198.18.0.2"))
		name := strings.Repeat("x", n)
		bootOptions(p, r, site.Offer{Server: ip("198.18.0.10"), File: name})
		back, err := dhcpv4.FromBytes(p.ToBytes())
		if err != nil {
			t.Fatal(err)
		}
		want := ""
		if n <= maxFile {
			want = name
		}
		if back.BootFileName != want || string(back.Options[67]) != name {
			t.Errorf("%d bytes: header %d, option %d", n, len(back.BootFileName), len(back.Options[67]))
		}
	}
}

// TestLeaseOptions: what every client is told.
func TestLeaseOptions(t *testing.T) {
	q := message(stranger, discover, clientID("\x00id"), option(82, "\x01\x04port"), giaddr("198.18.0.1"))
	p, _ := Handle(epoch, testView(), q, NewState(alone()))
	for code, want := range map[uint8]string{
		1: "\xff\xff\xff\x00", 3: "\xc6\x12\x00\x01", 6: "\xc6\x12\x00\x01\xc6\x12\x00\x04", 15: "berlin.example",
		51: "\x00\x00\x0e\x10", 58: "\x00\x00\x07\x08", 59: "\x00\x00\x0c\x4e", 54: "\xc6\x12\x00\x02",
		61: "\x00id", 82: "\x01\x04port", 53: "\x02",
	} {
		if got := string(p.Options[code]); got != want {
			t.Errorf("option %d is %q, want %q", code, got, want)
		}
	}
	if len(p.Options) != 11 || p.GatewayIPAddr.String() != "198.18.0.1" {
		t.Errorf("%v", p.Summary())
	}
	// An INFORM gets no lease, a NAK nothing at all; the relay agent broadcasts it.
	p, _ = Handle(epoch, testView(), message(stranger, inform, ciaddr("198.18.0.60")), NewState(alone()))
	for _, code := range []uint8{51, 58, 59} {
		if p.Options.Has(dhcpv4.GenericOptionCode(code)) {
			t.Errorf("an INFORM is answered with option %d", code)
		}
	}
	p, _ = Handle(epoch, testView(), message(stranger, ask, giaddr("198.18.0.1"), requested("10.0.0.1")), NewState(alone()))
	if p.MessageType() != dhcpv4.MessageTypeNak || !p.IsBroadcast() || len(p.Options) != 3 {
		t.Errorf("NAK: %v", p.Summary())
	}
}

func TestDestination(t *testing.T) {
	local := netip.MustParsePrefix("198.18.0.0/24")
	broadcastFlag := func(q *dhcpv4.DHCPv4) { q.SetBroadcast() }
	for name, c := range map[string]struct {
		with []change
		nak  bool
		addr string
		mac  site.MAC
	}{
		"no address yet":              {nil, false, "198.18.0.100:68", stranger},
		"asks for broadcast":          {[]change{broadcastFlag}, false, "255.255.255.255:68", broadcastMAC},
		"renews on our network":       {[]change{ciaddr("198.18.0.60")}, false, "198.18.0.60:68", stranger},
		"renews through a router":     {[]change{ciaddr("198.18.7.10"), broadcastFlag}, false, "198.18.7.10:68", site.MAC{}},
		"relayed":                     {[]change{giaddr("198.18.7.1"), ciaddr("198.18.7.10")}, true, "198.18.7.1:67", site.MAC{}},
		"refused":                     {nil, true, "255.255.255.255:68", broadcastMAC},
		"refused while it renews":     {[]change{ciaddr("198.18.0.60")}, true, "255.255.255.255:68", broadcastMAC},
		"informs, asks for broadcast": {[]change{ciaddr("198.18.0.60"), broadcastFlag}, false, "198.18.0.60:68", stranger},
	} {
		q := message(stranger, discover, c.with...)
		kind := dhcpv4.MessageTypeOffer
		if c.nak {
			kind = dhcpv4.MessageTypeNak
		}
		p := message(stranger, kind)
		p.YourIPAddr = ip("198.18.0.100").AsSlice()
		if d := destinationOf(q, p, local); d.addr.String() != c.addr || d.mac != c.mac {
			t.Errorf("%s: %v %v, want %s %v", name, d.addr, d.mac, c.addr, c.mac)
		}
	}
}
