// Package reserve reads and writes reservations in the ways of other DHCP servers: ISC dhcpd, Kea, dnsmasq, and CSV. It is pure: text in,
// devices out, and an error names the file and the line.
package reserve

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/csv"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"everboot/site"
)

// Format is a way to write reservations down.
type Format string

// The formats.
const (
	ISC     Format = "isc"     // host blocks of dhcpd.conf or dhcpd6.conf
	Kea     Format = "kea"     // JSON with "reservations" anywhere in it, comments allowed
	Dnsmasq Format = "dnsmasq" // dhcp-host= lines
	CSV     Format = "csv"     // mac,name,address,address6,client_id with a header of these, in any order
)

// Formats are all formats.
var Formats = []Format{ISC, Kea, Dnsmasq, CSV}

// ParseFormat reads a format's name.
func ParseFormat(s string) (Format, error) {
	if f := Format(s); slices.Contains(Formats, f) {
		return f, nil
	}
	return "", fmt.Errorf("format %q: use isc, kea, dnsmasq or csv", s)
}

// entry is a reservation and where it stands.
type entry struct {
	line          int
	mac, name, ip string
	ip6           string
	client        site.ClientID
	duid          site.ClientID // DHCPv6's; it counts only where there is no MAC
}

// Parse reads the reservations of a file, of which name is what errors call it, and the line of each. Everything else in the file is passed
// over. If anything is wrong nothing is returned, and the error has one line for each thing.
func Parse(f Format, name string, text []byte) (devices []site.Device, lines []int, err error) {
	entries, err := map[Format]func([]byte) ([]entry, error){ISC: parseISC, Kea: parseKea, Dnsmasq: parseDnsmasq, CSV: parseCSV}[f](text)
	if err != nil {
		return nil, nil, fmt.Errorf("%s:%w", name, err)
	}
	if len(entries) == 0 {
		return nil, nil, fmt.Errorf("%s:1: no reservation is in it; is it of format %s?", name, f)
	}
	var errs []error
	seen, at := make(map[string]int), make(map[site.MAC]int) // at: where in devices
	for _, e := range entries {
		d, err := e.device()
		if err != nil {
			errs = append(errs, fmt.Errorf("%s:%d: %w", name, e.line, err))
			continue
		}
		var half *site.Device
		if i, ok := at[d.MAC]; ok && halves(devices[i], d) {
			half = &devices[i]
		}
		if half != nil { // what is said of it in two places is its own in both
			delete(seen, d.MAC.String())
			if half.Name == d.Name {
				delete(seen, "name "+d.Name)
			}
		}
		for _, key := range keysOf(d) {
			if first, ok := seen[key]; ok {
				errs = append(errs, fmt.Errorf("%s:%d: %s stands at line %d already", name, e.line, key, first))
			}
			seen[key] = e.line
		}
		if half != nil {
			half.Address, half.Address6 = cmp.Or(half.Address, d.Address), cmp.Or(half.Address6, d.Address6)
			half.Name, half.ClientID = cmp.Or(half.Name, d.Name), cmp.Or(half.ClientID, d.ClientID)
			continue
		}
		if _, ok := at[d.MAC]; !ok {
			at[d.MAC] = len(devices)
		}
		devices, lines = append(devices, d), append(lines, e.line)
	}
	if len(errs) > 0 {
		return nil, nil, errors.Join(errs...)
	}
	return devices, lines, nil
}

// halves reports whether two entries of a device have its addresses of one kind each: many servers keep IPv4 and IPv6 apart.
func halves(a, b site.Device) bool {
	return !(a.Address.IsValid() && b.Address.IsValid() || a.Address6.IsValid() && b.Address6.IsValid())
}

// keysOf returns what only one device may have.
func keysOf(d site.Device) []string {
	keys := []string{d.MAC.String()}
	for _, a := range []netip.Addr{d.Address, d.Address6} {
		if a.IsValid() {
			keys = append(keys, a.String())
		}
	}
	if d.Name != "" {
		keys = append(keys, "name "+d.Name)
	}
	if d.ClientID != "" {
		keys = append(keys, "client identifier "+d.ClientID.String())
	}
	return keys
}

// errNoMAC: the site knows devices by their MAC.
var errNoMAC = errors.New("a client identifier and no MAC: the site knows devices by their MAC; add it")

func (e entry) device() (d site.Device, err error) {
	d.ClientID = e.client
	// An identifier of hardware type 1 is the MAC (RFC 2132 §9.14).
	if e.mac == "" && len(e.client) == 1+len(d.MAC) && e.client[0] == 1 {
		e.mac = site.MAC([]byte(e.client[1:])).String()
	}
	if mac, ok := macOf(e.duid); e.mac == "" && ok {
		e.mac = mac.String()
	}
	if e.mac == "" && e.client+e.duid != "" {
		return d, errNoMAC
	}
	if d.MAC, err = parseMAC(e.mac); err != nil {
		return d, err
	}
	if d.Address, err = netip.ParseAddr(e.ip); (err != nil || !d.Address.Is4()) && (e.ip != "" || e.ip6 == "") {
		return d, fmt.Errorf("address %q: use an IPv4 address", e.ip)
	}
	if d.Address6, err = netip.ParseAddr(e.ip6); e.ip6 != "" && (err != nil || !d.Address6.Is6() || high64(d.Address6) == 0) {
		return d, fmt.Errorf("address %q: use a whole IPv6 address", e.ip6)
	}
	if e.name != madeName(d.MAC) {
		d.Name = e.name
	}
	return d, d.Check()
}

// high64 is the network of an IPv6 address: dnsmasq lets it be left out.
func high64(a netip.Addr) uint64 {
	b := a.As16()
	return binary.BigEndian.Uint64(b[:8])
}

// macOf returns the MAC that a DUID of type 1 or 3 has in it (RFC 8415 §11.2, §11.4): mostly that of the machine's first card.
func macOf(duid site.ClientID) (mac site.MAC, ok bool) {
	const ethernet = "\x00\x01"
	switch b := string(duid); {
	case len(b) == 8+len(mac) && b[:4] == "\x00\x01"+ethernet:
		return site.MAC([]byte(b[8:])), true
	case len(b) == 4+len(mac) && b[:4] == "\x00\x03"+ethernet:
		return site.MAC([]byte(b[4:])), true
	}
	return mac, false
}

// parseMAC also takes what dhcpd and spreadsheets write: groups of one digit, or no separators.
func parseMAC(s string) (site.MAC, error) {
	groups := strings.FieldsFunc(s, func(r rune) bool { return r == ':' || r == '-' })
	if len(groups) == 1 && len(s) == 12 {
		groups = []string{s[:2], s[2:4], s[4:6], s[6:8], s[8:10], s[10:]}
	}
	for i, g := range groups {
		if len(g) == 1 {
			groups[i] = "0" + g
		}
	}
	if m, err := site.ParseMAC(strings.Join(groups, ":")); err == nil {
		return m, nil
	}
	return site.ParseMAC(s)
}

// at is an error at a line.
func at(line int, format string, args ...any) error {
	return fmt.Errorf("%d: %w", line, fmt.Errorf(format, args...))
}

// word is a token of dhcpd.conf and its line.
type word struct {
	text   string
	line   int
	quoted bool
}

// words takes dhcpd.conf apart: words, strings without their quotes, and { } ; by themselves. Comments are left out.
func words(text []byte) (list []word) {
	line := 1
	for i := 0; i < len(text); {
		c := text[i]
		switch {
		case c == '\n':
			line++
			i++
		case c == ' ' || c == '\t' || c == '\r' || c == ',':
			i++
		case c == '#':
			i += endOf(text[i:], "\n")
		case strings.IndexByte("{};", c) >= 0:
			list = append(list, word{text: string(c), line: line})
			i++
		case c == '"':
			n := endOf(text[i+1:], "\"")
			list = append(list, word{string(text[i+1 : i+1+n]), line, true})
			i += n + 2
		default:
			n := endOf(text[i:], " \t\r\n,;{}#\"")
			list = append(list, word{text: string(text[i : i+n]), line: line})
			i += n
		}
	}
	return list
}

// endOf returns how far the first of some characters is, or the length.
func endOf(b []byte, chars string) int {
	if n := bytes.IndexAny(b, chars); n >= 0 {
		return n
	}
	return len(b)
}

// parseISC reads host NAME { hardware ethernet MAC; option dhcp-client-identifier ID; fixed-address ADDRESS; }, and of DHCPv6
// host-identifier option dhcp6.client-id DUID and fixed-address6.
func parseISC(text []byte) (list []entry, err error) {
	w := words(text)
	for i := 0; i < len(w); i++ {
		if w[i].text != "host" || i+2 >= len(w) || w[i+2].text != "{" {
			continue
		}
		e := entry{line: w[i].line, name: w[i+1].text}
		j := i + 3
		for ; j < len(w) && w[j].text != "}"; j++ {
			switch {
			case w[j].text == "hardware" && j+2 < len(w) && w[j+1].text == "ethernet":
				e.mac = w[j+2].text
			case w[j].text == "fixed-address" && j+1 < len(w):
				e.ip = w[j+1].text
			case w[j].text == "fixed-address6" && j+1 < len(w):
				e.ip6 = w[j+1].text
			case w[j].text == "dhcp6.client-id" && j+1 < len(w):
				if e.duid, err = clientID(w[j+1].text, w[j+1].quoted); err != nil {
					return nil, at(w[j].line, "host %s: %w", e.name, err)
				}
			case w[j].text == "dhcp-client-identifier" && j+1 < len(w):
				if e.client, err = clientID(w[j+1].text, w[j+1].quoted); err != nil {
					return nil, at(w[j].line, "host %s: %w", e.name, err)
				}
			}
		}
		if j == len(w) {
			return nil, at(w[i].line, "host %s has no closing }", e.name)
		}
		if e.mac == "" && e.client == "" && e.duid == "" {
			return nil, at(w[i].line, "host %s has no hardware ethernet", e.name)
		}
		if e.ip == "" && e.ip6 == "" {
			return nil, at(w[i].line, "host %s has no fixed-address", e.name)
		}
		if e.ip == "" {
			e.name = strings.TrimSuffix(e.name, six)
		}
		list = append(list, e)
		i = j
	}
	return list, nil
}

// clientID reads a client identifier: the bytes of a text, or hexadecimal.
func clientID(s string, text bool) (site.ClientID, error) {
	if text && len(s) >= 2 && len(s) <= 255 {
		return site.ClientID(s), nil
	}
	return site.ParseClientID(strings.TrimPrefix(s, "0x"))
}

// parseDnsmasq reads dhcp-host=MAC,id:CLIENTID,ADDRESS,[ADDRESS6],NAME in any order; tags and lease times are passed over.
func parseDnsmasq(text []byte) (list []entry, err error) {
	for i, line := range strings.Split(string(text), "\n") {
		line, _, _ = strings.Cut(line, "#")
		key, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if !ok || strings.TrimPrefix(strings.TrimSpace(key), "--") != "dhcp-host" {
			continue
		}
		e := entry{line: i + 1}
		for _, part := range strings.Split(value, ",") {
			part = strings.TrimSpace(part)
			_, macErr := parseMAC(part)
			_, addrErr := netip.ParseAddr(part)
			switch {
			case macErr == nil:
				e.mac = part
			case addrErr == nil:
				e.ip = part
			case strings.HasPrefix(part, "[") && strings.HasSuffix(part, "]") && !strings.Contains(part, "/"): // with a length it is a network
				e.ip6 = strings.Trim(part, "[]")
			case strings.HasPrefix(part, "id:") && part != "id:*": // that one says to heed none
				// As dnsmasq itself: what can be read as hexadecimal is.
				id := strings.TrimPrefix(part, "id:")
				if e.client, err = clientID(id, false); err != nil {
					if e.client, err = clientID(id, true); err != nil {
						return nil, at(i+1, "%w", err)
					}
				}
			case part == "ignore" || part == "infinite" || strings.Contains(part, ":") || leaseTime(part):
			default:
				e.name = part
			}
		}
		if e.ip == "" && e.ip6 != "" { // for DHCPv6 the identifier is a DUID
			e.duid, e.client = e.client, ""
		}
		if e.mac == "" && e.client == "" && e.duid == "" || e.ip == "" && e.ip6 == "" {
			return nil, at(i+1, "dhcp-host=%s has no MAC and address", strings.TrimSpace(value))
		}
		list = append(list, e)
	}
	return list, nil
}

// leaseTime reports whether a word of dnsmasq's is a time: 45m, 12h, 3600.
func leaseTime(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == strings.TrimLeft(s, "0123456789") && strings.Contains(" m h d w s", " "+strings.TrimLeft(s, "0123456789")) &&
		s[0] >= '0' && s[0] <= '9' && len(strings.TrimLeft(s, "0123456789")) < 2
}

func parseCSV(text []byte) (list []entry, err error) {
	r := csv.NewReader(bytes.NewReader(text))
	r.Comment, r.TrimLeadingSpace = '#', true
	head, err := r.Read()
	if err != nil {
		return nil, at(1, "reading the header: %w", err)
	}
	column := func(name string) int { return slices.Index(head, name) }
	mac, name, client := column("mac"), column("name"), column("client_id")
	address, address6 := column("address"), column("address6")
	if mac < 0 || address < 0 && address6 < 0 {
		return nil, at(1, "the header must name the columns: mac,name,address or address6")
	}
	for {
		row, err := r.Read()
		var bad *csv.ParseError
		switch {
		case errors.As(err, &bad):
			return nil, at(bad.Line, "%w", bad.Err)
		case err != nil:
			return list, nil
		}
		line, _ := r.FieldPos(0) // it panics where there is no row
		e := entry{line: line, mac: row[mac]}
		if address >= 0 {
			e.ip = row[address]
		}
		if address6 >= 0 {
			e.ip6 = row[address6]
		}
		if name >= 0 {
			e.name = row[name]
		}
		if client >= 0 {
			if e.client, err = site.ParseClientID(row[client]); err != nil {
				return nil, at(line, "%w", err)
			}
		}
		list = append(list, e)
	}
}
