package tftp

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"

	"everboot/site"
)

// BootQuery is what a target says of itself when it asks for its script.
type BootQuery struct {
	MAC      site.MAC
	UUID     string // SMBIOS, as it was given; may be empty
	Platform string // pcbios, efi, or empty
	Arch     string // i386, x86_64, arm64, …, or empty
	Medium   Medium // zero: it did not start from a boot medium, or from one that says nothing
}

// word is what UUID, platform and architecture look like. Anything else is dropped: they are told on, in logs and events.
var word = regexp.MustCompile(`^[0-9A-Za-z_-]{1,40}$`)

// ParseBootQuery reads the query of /boot. Only the MAC must be there; what is not known is ignored, so that tomorrow's bootstrap may say more.
func ParseBootQuery(raw string) (BootQuery, error) {
	values, err := url.ParseQuery(raw)
	if err != nil {
		return BootQuery{}, errors.New("the query of /boot cannot be read; ask for /boot?mac=52:54:00:00:00:01")
	}
	mac, err := site.ParseMAC(values.Get("mac"))
	if err != nil {
		return BootQuery{}, fmt.Errorf("mac: %w", err)
	}
	if mac.IsZero() || mac[0]&1 != 0 {
		return BootQuery{}, fmt.Errorf("mac: %s is not the address of one machine", mac)
	}
	keep := func(key string) string {
		if s := values.Get(key); word.MatchString(s) {
			return s
		}
		return ""
	}
	medium, err := parseMedium(values.Get("site"), values.Get("key"), values.Get("collection"))
	if err != nil {
		return BootQuery{}, err
	}
	return BootQuery{MAC: mac, UUID: keep("uuid"), Platform: keep("platform"), Arch: keep("arch"), Medium: medium}, nil
}

// hostName is a DNS name, perhaps with a port.
var hostName = regexp.MustCompile(`^[0-9A-Za-z]([0-9A-Za-z.-]{0,252})(:[0-9]{1,5})?$`)

// askedHost returns the host that a target asked, to stand in its script. The Host header works through address translation and
// names; whatever does not look like a host is replaced by the address that the connection came in at.
func askedHost(r *http.Request) string {
	if _, err := netip.ParseAddrPort(r.Host); err == nil || hostName.MatchString(r.Host) {
		return r.Host
	}
	a, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	if !ok {
		return "${next-server}"
	}
	return site.Hosts([]netip.Addr{a.AddrPort().Addr().Unmap()}, uint16(a.Port))[0]
}
