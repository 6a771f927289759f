package v6

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"everboot/dhcp"
	"everboot/site"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"
)

// request is what a message says, in the types that decisions are made with.
type request struct {
	msg    *dhcpv6.Message
	relays []*dhcpv6.RelayMessage // the outermost first
	duid   string
	mac    site.MAC   // zero: nobody says
	link   netip.Addr // where its relay agent says that it is; zero: on our own link
	boot   site.BootRequest
	vendor string // option 16
	wants  dhcpv6.OptionCodes
	again  bool // it has asked before
}

const (
	maxHops = 8 // HOP_COUNT_LIMIT, RFC 8415 §7.6
	// maxDUID is RFC 8415 §11.1's.
	maxDUID = 130
	// maxIAs is how many associations of a message are answered: one for each interface of a machine is what clients send, and each costs a hash.
	maxIAs = 8
	// againAfter: a client sends its message again after 1 s or more (RFC 8415 §7.6), and says for how long it has tried.
	againAfter = 500 * time.Millisecond
	// intel is the enterprise number of PXE and of UEFI HTTP boot (PXE 2.1 for IPv6: UEFI 2.10 §24.3).
	intel      = 343
	vendorPXE  = "PXEClient"
	vendorHTTP = "HTTPClient"
)

// read takes a message apart. The Reason is empty if it can be decided on.
func read(b []byte, from netip.Addr) (r request, reason dhcp.Reason) {
	packet, err := dhcpv6.FromBytes(b)
	if err != nil {
		return r, dhcp.Malformed
	}
	var agentsWord site.MAC
	for packet.IsRelay() {
		relay := packet.(*dhcpv6.RelayMessage)
		if relay.MessageType != dhcpv6.MessageTypeRelayForward || len(r.relays) > maxHops {
			return r, dhcp.Malformed
		}
		r.relays = append(r.relays, relay)
		// The agent next to the client knows where it is; one that has no say leaves zeros (RFC 8415 §13.1).
		if link, ok := netip.AddrFromSlice(relay.LinkAddr); ok && !link.IsUnspecified() && !link.IsLinkLocalUnicast() {
			r.link = link
		}
		from, _ = netip.AddrFromSlice(relay.PeerAddr)
		if kind, lla := relay.Options.ClientLinkLayerAddress(); kind == iana.HWTypeEthernet && len(lla) == len(agentsWord) {
			agentsWord = site.MAC(lla) // RFC 6939
		}
		if packet, err = dhcpv6.DecapsulateRelay(relay); err != nil {
			return r, dhcp.Malformed
		}
	}
	r.msg = packet.(*dhcpv6.Message)
	if len(r.relays) > 0 && !r.link.IsValid() {
		return r, dhcp.NoSubnet // an agent that does not say where the client is
	}
	if duid := r.msg.Options.ClientID(); duid != nil {
		r.duid = string(duid.ToBytes())
		if len(r.duid) > maxDUID {
			return r, dhcp.Malformed
		}
	}
	if len(r.msg.Options.IANA()) > maxIAs {
		return r, dhcp.Malformed
	}
	r.mac = macOf(agentsWord, from, r.msg.Options.ClientID())
	r.wants = r.msg.Options.RequestedOptions()
	r.again = r.msg.Options.ElapsedTime() >= againAfter
	r.vendor = vendor(r.msg)
	r.boot = site.BootRequest{MAC: r.mac, Client: kind(r.msg, r.vendor), Arch: arch(r.msg), Six: true}
	if !slices.Contains(r.wants, dhcpv6.OptionBootfileURL) {
		r.boot.Client = site.ClientOther
	}
	return r, ""
}

// macOf returns the MAC of the card that a client asks with: what its relay agent says, else what its link-local address is made of, else what
// its DUID is made of. Firmware has a DUID without a MAC (UEFI and iPXE: that of the machine's UUID), and an address that is made of it; operating
// systems the other way round.
func macOf(agentsWord site.MAC, from netip.Addr, duid dhcpv6.DUID) site.MAC {
	b := from.As16()
	switch {
	case !agentsWord.IsZero():
		return agentsWord
	case from.IsLinkLocalUnicast() && b[11] == 0xff && b[12] == 0xfe: // RFC 4291, appendix A
		return site.MAC{b[8] ^ 2, b[9], b[10], b[13], b[14], b[15]}
	}
	var hardware net.HardwareAddr
	switch d := duid.(type) {
	case *dhcpv6.DUIDLL:
		hardware = d.LinkLayerAddr
	case *dhcpv6.DUIDLLT:
		hardware = d.LinkLayerAddr
	}
	if len(hardware) == len(site.MAC{}) && hardware[0]&1 == 0 {
		return site.MAC(hardware)
	}
	return site.MAC{}
}

// vendor returns the first vendor class that firmware knows, as what can stand in a log.
func vendor(m *dhcpv6.Message) string {
	for _, class := range m.Options.VendorClass(intel) {
		text := strings.Map(func(r rune) rune {
			if r < ' ' || r > '~' {
				return -1
			}
			return r
		}, string(class))
		if strings.HasPrefix(text, vendorPXE) || strings.HasPrefix(text, vendorHTTP) {
			return text
		}
	}
	return ""
}

// kind says what kind of program sent the message. iPXE calls itself PXEClient as well: its user class is asked for first.
func kind(m *dhcpv6.Message, vendor string) site.Client {
	for _, class := range m.Options.UserClasses() {
		if string(class) == "iPXE" {
			return site.ClientIPXE
		}
	}
	switch {
	case strings.HasPrefix(vendor, vendorPXE):
		return site.ClientPXE
	case strings.HasPrefix(vendor, vendorHTTP):
		return site.ClientHTTP
	}
	return site.ClientOther
}

// arch returns the client's architecture (RFC 5970 §3.3): the first that it names. Who names none is a BIOS.
func arch(m *dhcpv6.Message) site.Arch {
	if list := m.Options.ArchTypes(); len(list) > 0 {
		return site.Arch(list[0])
	}
	return site.ArchBIOS
}

// client returns the name of an association of the client.
func (r request) client(iaid [4]byte) client { return client{r.duid, iaid} }

// hints returns the addresses that an association names.
func hints(ia *dhcpv6.OptIANA) (list []netip.Addr) {
	for _, o := range ia.Options.Addresses() {
		if a, ok := netip.AddrFromSlice(o.IPv6Addr); ok && len(list) < tries {
			list = append(list, a)
		}
	}
	return list
}
