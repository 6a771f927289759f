package dhcp

import (
	"bytes"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"everboot/dhcp/leases"
	"everboot/site"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
)

// question is a message and the address that it was sent to; zero: that is not known.
type question struct {
	*dhcpv4.DHCPv4
	to netip.Addr
}

// request is what a message says, in the types that decisions are made with.
type request struct {
	msg        *dhcpv4.DHCPv4
	kind       dhcpv4.MessageType
	mac        site.MAC
	device     site.MAC // under which the site knows it: of its MAC, or of its client identifier
	client     leases.Client
	identifier []byte // option 61, if it sent one
	boot       site.BootRequest
	vendor     string     // option 60
	name       string     // option 12
	ciaddr     netip.Addr // zero if it has none, as the others
	giaddr     netip.Addr
	requested  netip.Addr // option 50
	server     netip.Addr // option 54
	link       netip.Addr // a relay agent's word on where the client is (RFC 3527)
	override   netip.Addr // what a relay agent wants the client to take for its server (RFC 5107)
}

// Limits of what a client may have us remember or echo. The identifier is echoed (RFC 6842) and has one length byte.
const (
	maxClientID = 255
	maxName     = 63
)

// read takes a message apart. The Reason is empty if it can be decided on.
func read(q *dhcpv4.DHCPv4) (request, Reason) {
	r := request{msg: q, kind: q.MessageType()}
	if q.OpCode != dhcpv4.OpcodeBootRequest {
		return r, Malformed
	}
	// Ethernet only: a group address, or all zeros, is no machine to answer to.
	if q.HWType != iana.HWTypeEthernet || len(q.ClientHWAddr) != len(r.mac) {
		return r, BadHardware
	}
	copy(r.mac[:], q.ClientHWAddr)
	r.device = r.mac
	if r.mac.IsZero() || r.mac[0]&1 != 0 {
		return r, BadHardware
	}
	id := q.Options.Get(dhcpv4.OptionClientIdentifier)
	if len(id) > maxClientID {
		return r, Malformed
	}
	r.identifier, r.client = id, leases.ClientOf(id, r.mac)
	var ok [4]bool
	r.ciaddr, ok[0] = headerAddr(q.ClientIPAddr)
	r.giaddr, ok[1] = headerAddr(q.GatewayIPAddr)
	r.requested, ok[2] = optionAddr(q, dhcpv4.OptionRequestedIPAddress)
	r.server, ok[3] = optionAddr(q, dhcpv4.OptionServerIdentifier)
	if slices.Contains(ok[:], false) {
		return r, Malformed
	}
	if r.giaddr.IsValid() { // a client may not speak for an agent
		r.readRelay(q.Options.Get(dhcpv4.OptionRelayAgentInformation))
	}
	if searches(id) {
		return r, Searching
	}
	r.name = cleanName(q.HostName())
	r.vendor = cleanText(q.ClassIdentifier())
	r.boot = site.BootRequest{MAC: r.mac, Client: client(q, r.vendor), Arch: arch(q, r.vendor)}
	return r, ""
}

// The sub-options of the relay agent information option, 82, that concern us.
const (
	relayLink     = 5  // RFC 3527: an address of the client's network, where giaddr is only where the agent is reached
	relayOverride = 11 // RFC 5107: the client sends its renewals there, to the agent, which sends them on with its information
)

// readRelay reads what a relay agent says. A sub-option that is not as it must be says nothing.
func (r *request) readRelay(b []byte) {
	for len(b) >= 2 && len(b) >= 2+int(b[1]) {
		code, value := b[0], b[2:2+int(b[1])]
		b = b[2+len(value):]
		if len(value) != 4 {
			continue
		}
		a, ok := usable(netip.AddrFrom4([4]byte(value)))
		switch {
		case !ok:
		case code == relayLink:
			r.link = a
		case code == relayOverride:
			r.override = a
		}
	}
}

// BootRequestOf returns what a client's message asks of the boot decision, for DHCP servers that are not ours; ok is false if it asks for no boot file.
func BootRequestOf(q *dhcpv4.DHCPv4) (b site.BootRequest, ok bool) {
	r, reason := read(q)
	return r.boot, reason == "" && r.boot.Client != site.ClientOther
}

func headerAddr(ip net.IP) (netip.Addr, bool) {
	a, ok := netip.AddrFromSlice(ip)
	if !ok {
		return netip.Addr{}, ip == nil
	}
	return usable(a.Unmap())
}

// optionAddr reads an option with one address. Some clients send the option with zeros where they mean that they have none.
func optionAddr(q *dhcpv4.DHCPv4, code dhcpv4.OptionCode) (netip.Addr, bool) {
	if !q.Options.Has(code) {
		return netip.Addr{}, true
	}
	b := q.Options.Get(code)
	if len(b) != 4 {
		return netip.Addr{}, false
	}
	return usable(netip.AddrFrom4([4]byte(b)))
}

// usable makes 0.0.0.0 the zero address, and refuses what no host can have.
func usable(a netip.Addr) (netip.Addr, bool) {
	if a.IsUnspecified() {
		return netip.Addr{}, true
	}
	if !a.Is4() || a.IsMulticast() || a.IsLoopback() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return netip.Addr{}, false
	}
	return a, true
}

// client says what kind of program sent the message.
func client(q *dhcpv4.DHCPv4, vendor string) site.Client {
	switch {
	// iPXE calls itself PXEClient as well, since it stands in for a PXE ROM. Its user class tells: asked before the vendor class,
	// or it would be given iPXE again, for ever.
	case isIPXE(q.Options.Get(dhcpv4.OptionUserClassInformation)):
		return site.ClientIPXE
	case strings.HasPrefix(vendor, vendorPXE):
		return site.ClientPXE
	case strings.HasPrefix(vendor, vendorHTTP):
		return site.ClientHTTP
	}
	return site.ClientOther
}

// The vendor classes (option 60) of firmware, which it expects to see in the answer.
const (
	vendorPXE  = "PXEClient"
	vendorHTTP = "HTTPClient"
)

// isIPXE reads the user class (option 77). RFC 3004 §4 wants a list of strings with a length byte each; iPXE, like most, sends the bare
// word, unless a script sets it the other way.
func isIPXE(class []byte) bool {
	ipxe := []byte("iPXE")
	if bytes.Equal(class, ipxe) {
		return true
	}
	for len(class) > 0 {
		n := int(class[0])
		if n == 0 || n >= len(class) {
			return false
		}
		if bytes.Equal(class[1:1+n], ipxe) {
			return true
		}
		class = class[1+n:]
	}
	return false
}

// arch returns the client's architecture: the first that option 93 names (RFC 4578 §2.1; it may name several), else what the
// vendor class says (PXEClient:Arch:00007:UNDI:003000), which old ROMs send alone. BIOS, 0, is also what a ROM from before both means.
func arch(q *dhcpv4.DHCPv4, vendor string) site.Arch {
	if b := q.Options.Get(dhcpv4.OptionClientSystemArchitectureType); len(b) >= 2 {
		return site.Arch(uint16(b[0])<<8 | uint16(b[1]))
	}
	parts := strings.Split(vendor, ":")
	if len(parts) >= 3 && parts[1] == "Arch" {
		if n, err := strconv.ParseUint(parts[2], 10, 16); err == nil {
			return site.Arch(n)
		}
	}
	return site.ArchBIOS
}

// cleanName keeps a client's host name if it is one.
func cleanName(s string) string {
	if len(s) > maxName || strings.ContainsFunc(s, func(r rune) bool {
		return r != '-' && r != '.' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	}) {
		return ""
	}
	return s
}

// cleanText makes of a client's bytes what can stand in a log.
func cleanText(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, s)
}
