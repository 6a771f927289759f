package dhcp

import (
	"bytes"
	"crypto/sha256"
	"net/netip"
	"slices"
	"strings"

	"everboot/site"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// A search says whose it is. Nodes of the same service are silent to it. Another everboot says which site it is of, without an address: it would hold
// that one for nobody, and whoever looks after it is looked for by its name.

const (
	// searchID begins the client identifier (type 0: not a hardware address) of who searches; the tag of its site follows. No everboot gives it an address.
	searchID = "\x00everboot search "
	tagBytes = 8
	// introduced begins the message (option 56) of an everboot that answers; its site follows, and givesWord if it gives addresses.
	introduced = "everboot "
	givesWord  = "gives"
)

// tagOf tells sites apart.
func tagOf(name string) [tagBytes]byte {
	sum := sha256.Sum256([]byte(name))
	return [tagBytes]byte(sum[:])
}

// searcherMAC is the hardware address in the questions of a site, whichever of its appliances asks, and the client identifier is the site's, too. A server
// that holds what it offers, for a minute or two, so holds one address for the site, and mostly the same one each time. (An INFORM would have none held, and
// dnsmasq and Kea answer it, but not a dnsmasq that is a boot server alone: as a proxy we look for those above all.)
func searcherMAC(name string) site.MAC {
	tag := tagOf(name)
	return site.MAC{0x02, tag[0], tag[1], tag[2], tag[3], tag[4]} // locally administered
}

// searches reports whether a message is an appliance's search.
func searches(identifier []byte) bool { return bytes.HasPrefix(identifier, []byte(searchID)) }

// machineID is the machine identifier (option 97: type 0 and 16 bytes) of who searches: which appliance it is.
func machineID(node netip.Addr, mac site.MAC) []byte {
	var address [4]byte
	if node.Is4() {
		address = node.As4()
	}
	return slices.Concat(make([]byte, maxMachineID-len(address)-len(mac)), address[:], mac[:])
}

// ofOurs reports whether a search is one of the service that the view is of: of its site, and of an appliance that it knows. One of a version that
// says no site is left alone, too.
func ofOurs(view *site.View, q *dhcpv4.DHCPv4) bool {
	tag := bytes.TrimPrefix(q.Options.Get(dhcpv4.OptionClientIdentifier), []byte(searchID))
	id := q.Options.Get(dhcpv4.OptionClientMachineIdentifier)
	if len(tag) != tagBytes || len(id) != maxMachineID || view.Site == "" {
		return true
	}
	from := netip.AddrFrom4([4]byte(id[maxMachineID-len(site.MAC{})-4:]))
	return [tagBytes]byte(tag) == tagOf(view.Site) &&
		slices.ContainsFunc(view.Appliances, func(a site.Appliance) bool { return a.Address == from })
}

// introduce answers the search of a service that is not ours with who we are.
func introduce(view *site.View, r request, server netip.Addr, gives bool) (*dhcpv4.DHCPv4, Reason) {
	if r.kind != dhcpv4.MessageTypeDiscover || ofOurs(view, r.msg) {
		return nil, Searching
	}
	p := blank(r, dhcpv4.MessageTypeOffer, server)
	p.SetBroadcast()
	text := introduced + view.Site
	if gives {
		text += " " + givesWord
	}
	p.UpdateOption(dhcpv4.OptMessage(text))
	return p, Introduced
}

// introduction reads what an everboot says of itself in its answer to a search.
func introduction(p *dhcpv4.DHCPv4) (name string, gives, ok bool) {
	text, ok := strings.CutPrefix(string(p.Options.Get(dhcpv4.OptionMessage)), introduced)
	if !ok {
		return "", false, false
	}
	name, word, _ := strings.Cut(text, " ")
	return name, word == givesWord, site.CheckName("site", name) == nil
}
