package tftp_test

import (
	"net/netip"
	"testing"

	"everboot/internal/golden"
	"everboot/site"
	"everboot/tftp"
)

var t1 = site.MAC{0x52, 0x54, 0, 0, 0, 1}

const digest = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// exampleView has one target, t1, whose vDisk one streamer holds.
func exampleView() *site.View {
	v := site.Empty("berlin", "embedded")
	v.Boot.Address = netip.MustParseAddr("198.18.0.10")
	v.Appliances = []site.Appliance{{Name: "a", Address: netip.MustParseAddr("198.18.0.2")}}
	v.Collections["lab"] = site.Collection{Name: "lab"}
	v.Devices[t1] = site.Device{MAC: t1, Name: "t1", VDisk: "debian"}
	v.VDisks["debian"] = site.VDisk{Name: "debian", Versions: []site.Version{{Number: 1, Digest: digest}}}
	v.Streamers["s1"] = site.Streamer{
		Name: "s1", Site: "berlin", Addresses: []netip.AddrPort{netip.MustParseAddrPort("198.18.0.21:3260")}, State: site.Active,
		Replicas: []site.Replica{{VDisk: "debian", Version: 1, Digest: digest, Size: 1 << 30}},
		Check:    site.Check{Health: site.Up}, Registered: true,
	}
	return v
}

func TestScript(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*site.View)
		asked  tftp.Asked
		reason site.Reason
	}{
		{"sanboot", func(*site.View) {}, tftp.Asked{Host: "198.18.0.2"}, site.Offered},
		{"kernel", func(v *site.View) {
			d := v.VDisks["debian"]
			d.Kernel, d.Initrd, d.Cmdline = "/debian/vmlinuz 6.1", "debian/initrd.img", "root=/dev/sda1 ro\necho injected"
			v.VDisks["debian"] = d
		}, tftp.Asked{Host: "198.18.0.2:8080", SANPort: 3261}, site.Offered},
		{"https", func(v *site.View) {
			d := v.VDisks["debian"]
			d.Kernel, d.Initrd = "debian/vmlinuz", "debian/initrd.img"
			v.VDisks["debian"] = d
		}, tftp.Asked{Host: "boot.example.net:8443", TLS: true}, site.Offered},
		{"no-streamer", func(v *site.View) { setStreamers(v, site.Down) }, tftp.Asked{Host: "198.18.0.2"}, site.NoHealthyStreamer},
		{"unknown-device", func(v *site.View) { delete(v.Devices, t1) }, tftp.Asked{Host: "198.18.0.2"}, site.UnknownDevice},
		{"no-address", func(v *site.View) { v.Boot.Address = netip.Addr{} }, tftp.Asked{Host: "198.18.0.2"}, site.NoBootAddress},
	} {
		v := exampleView()
		c.change(v)
		script, reason := tftp.Script(v, t1, c.asked)
		if reason != c.reason {
			t.Errorf("%s: %s, want %s", c.name, reason, c.reason)
		}
		golden.Compare(t, "script-"+c.name+".ipxe", script)
	}
}

func TestSANURI(t *testing.T) {
	for _, c := range []struct {
		server string
		port   uint16
		want   string
	}{
		{"198.18.0.10", 0, "iscsi:198.18.0.10::3260:1:iqn.x:y"},
		{"2001:db8::10", 3261, "iscsi:[2001:db8::10]::3261:1:iqn.x:y"},
	} {
		if got := tftp.SANURI(netip.MustParseAddr(c.server), c.port, "iqn.x:y"); got != c.want {
			t.Errorf("%s, want %s", got, c.want)
		}
	}
}
