package tftp

import (
	"fmt"
	"net/netip"
	"net/url"
	"strings"

	"everboot/site"
)

// DefaultSANPort is iSCSI's (RFC 7143 §14).
const DefaultSANPort = 3260

// sanLUN is the disk: LUN 0 of tgt is the controller.
const sanLUN = 1

// waitSeconds is how soon a target that nobody can serve asks again. It boots that soon after the first streamer is up.
const waitSeconds = 3

// Asked is how a target reached us.
type Asked struct {
	Host    string // address or name, perhaps with a port, that the target asked; kernel and initrd come from there
	TLS     bool   // it asked over HTTPS: so come kernel and initrd
	SANPort uint16 // of the director; 0: DefaultSANPort
}

// url is where it asks next.
func (a Asked) url(path string, mac site.MAC) string {
	u := url.URL{Scheme: "http", Host: a.Host, Path: path, RawQuery: "mac=" + mac.String()}
	if a.TLS {
		u.Scheme = "https"
	}
	return u.String()
}

// Script returns the iPXE script of one target, and Offered; or a script that says why it cannot boot now, waits and asks again,
// and the reason.
//
// The SAN server is always the boot address: iPXE writes it into the iBFT, and the operating system goes back to it for ever. The
// address of one appliance would end with that appliance. LUN, target and initiator name are spelled out because nothing
// of it comes from DHCP.
//
// It tells the bootstrap which login servers there are now, so that a medium of any age that once had an answer finds those that came since.
//
// On any failure the script waits and returns to the bootstrap (or, fetched by something else, starts itself again): it never ends in
// the firmware's next boot device.
func Script(v *site.View, mac site.MAC, asked Asked) (string, site.Reason) {
	a, reason := site.Assign(v, mac)
	if reason == site.Offered {
		_, picked := site.Pick(v, a.Login())
		if picked != site.Picked {
			reason = picked
		}
	}
	if reason == site.Offered && !v.Boot.Address.IsValid() {
		reason = site.NoBootAddress
	}
	var b strings.Builder
	b.WriteString("#!ipxe\n")
	if !asked.TLS { // a medium that asks over HTTPS is not taken to HTTP
		b.WriteString(site.TellHosts(site.ToldServers(v, mac)))
	}
	if reason != site.Offered {
		writeWait(&b, mac, asked, reason)
		return b.String(), reason
	}
	writeBoot(&b, v, mac, a, asked)
	return b.String(), site.Offered
}

func writeWait(b *strings.Builder, mac site.MAC, asked Asked, reason site.Reason) {
	fmt.Fprintf(b, "# everboot: %s cannot boot: %s\n", mac, reason)
	fmt.Fprintf(b, "echo everboot: %s cannot boot now (%s):\n", mac, reason)
	fmt.Fprintf(b, "echo everboot: %s\n", plain(reason.Text()))
	fmt.Fprintf(b, "sleep %d\n", waitSeconds)
	writeAgain(b, mac, asked)
}

func writeBoot(b *strings.Builder, v *site.View, mac site.MAC, a site.Assignment, asked Asked) {
	name := a.Device.Name
	if name == "" {
		name = mac.String()
	}
	iqn := site.NameTarget(v.Site, a.VDisk.Name, a.Version.Number, a.Version.Digest).IQN()
	san := SANURI(v.Boot.Address, asked.SANPort, iqn)
	fmt.Fprintf(b, "# everboot: %s (%s)\n", plain(name), mac)
	fmt.Fprintf(b, "echo everboot: %s boots %s from %s\n", plain(name), plain(a.Describe()), v.Boot.Address)
	fmt.Fprintf(b, "set initiator-iqn %s\n", site.InitiatorName(mac))
	// What a failed try left behind: a drive that is still hooked makes the next hook fail, images pile up.
	b.WriteString("sanunhook --drive 0x80 ||\nimgfree ||\n")
	if a.VDisk.Kernel == "" {
		fmt.Fprintf(b, "sanboot --drive 0x80 %s || goto failed\n", san)
	} else {
		fmt.Fprintf(b, "sanhook --drive 0x80 %s || goto failed\n", san)
		// UEFI's kernel finds its initrd by the name on its command line; BIOS takes no harm from it.
		fmt.Fprintf(b, "kernel %s initrd=initrd.img %s || goto failed\n", fileURL(asked, a.VDisk.Kernel, mac), plain(a.VDisk.Cmdline))
		fmt.Fprintf(b, "initrd --name initrd.img %s || goto failed\n", fileURL(asked, a.VDisk.Initrd, mac))
		b.WriteString("boot || goto failed\n")
	}
	b.WriteString(scriptFailed)
	writeAgain(b, mac, asked)
}

// scriptFailed waits 1, 2, 4, 8, 8, … seconds. The setting outlives the script, so that the next one goes on doubling.
const scriptFailed = `:failed
isset ${sanwait} || set sanwait:int32 1
echo everboot: that failed, starting again in ${sanwait} s
sanunhook --drive 0x80 ||
sleep ${sanwait}
inc sanwait ${sanwait}
iseq ${sanwait} 16 && set sanwait:int32 8 ||
`

// writeAgain ends a script. chain --replace does not nest.
func writeAgain(b *strings.Builder, mac site.MAC, asked Asked) {
	fmt.Fprintf(b, `iseq ${everboot} 1 && exit 0 ||
:again
chain --autofree --replace %s ||
sleep %d
goto again
`, asked.url("/boot", mac), waitSeconds)
}

// SANURI returns iPXE's name for a disk: iscsi:SERVER::PORT:LUN:TARGET (RFC 4173 §5, with an empty protocol, which means TCP).
func SANURI(server netip.Addr, port uint16, iqn string) string {
	if port == 0 {
		port = DefaultSANPort
	}
	host := server.String()
	if server.Is6() {
		host = "[" + host + "]"
	}
	return fmt.Sprintf("iscsi:%s::%d:%d:%s", host, port, sanLUN, iqn)
}

// fileURL names a boot file. The MAC goes with it so that the fetch can be told of in the target's timeline; iPXE names the
// image after the path alone.
func fileURL(asked Asked, name string, mac site.MAC) string {
	return asked.url("/"+strings.TrimLeft(plain(name), "/"), mac)
}

// plain keeps an operator's text on one line of the script. iPXE's ${settings} in it work: that is a feature of the command line.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
}
