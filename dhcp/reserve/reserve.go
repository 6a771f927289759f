// Package reserve reads and writes reservations in the ways of other DHCP servers: ISC dhcpd, Kea, dnsmasq, and CSV. It is pure: text in,
// devices out, and an error names the file and the line.
package reserve

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
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
	ISC     Format = "isc"     // host blocks of dhcpd.conf
	Kea     Format = "kea"     // JSON with "reservations" anywhere in it, comments allowed
	Dnsmasq Format = "dnsmasq" // dhcp-host= lines
	CSV     Format = "csv"     // mac,name,address with that header
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
}

// Parse reads the reservations of a file, of which name is what errors call it. Everything else in the file is passed over. If anything is
// wrong nothing is returned, and the error has one line for each thing.
func Parse(f Format, name string, text []byte) ([]site.Device, error) {
	entries, err := map[Format]func([]byte) ([]entry, error){ISC: parseISC, Kea: parseKea, Dnsmasq: parseDnsmasq, CSV: parseCSV}[f](text)
	if err != nil {
		return nil, fmt.Errorf("%s:%w", name, err)
	}
	if len(entries) == 0 {
		return nil, fmt.Errorf("%s:1: no reservation is in it; is it of format %s?", name, f)
	}
	var devices []site.Device
	var errs []error
	seen := make(map[string]int)
	for _, e := range entries {
		d, err := e.device()
		if err != nil {
			errs = append(errs, fmt.Errorf("%s:%d: %w", name, e.line, err))
			continue
		}
		for _, key := range []string{d.MAC.String(), d.Address.String(), "name " + d.Name} {
			if first, ok := seen[key]; ok && key != "name " && d.Address.IsValid() {
				errs = append(errs, fmt.Errorf("%s:%d: %s stands at line %d already", name, e.line, key, first))
			}
			seen[key] = e.line
		}
		devices = append(devices, d)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return devices, nil
}

func (e entry) device() (d site.Device, err error) {
	if d.MAC, err = parseMAC(e.mac); err != nil {
		return d, err
	}
	if d.Address, err = netip.ParseAddr(e.ip); err != nil || !d.Address.Is4() {
		return d, fmt.Errorf("address %q: use an IPv4 address", e.ip)
	}
	d.Name = e.name
	return d, d.Check()
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
	text string
	line int
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
			list = append(list, word{string(c), line})
			i++
		case c == '"':
			n := endOf(text[i+1:], "\"")
			list = append(list, word{string(text[i+1 : i+1+n]), line})
			i += n + 2
		default:
			n := endOf(text[i:], " \t\r\n,;{}#\"")
			list = append(list, word{string(text[i : i+n]), line})
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

// parseISC reads host NAME { hardware ethernet MAC; fixed-address ADDRESS; }.
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
			}
		}
		if j == len(w) {
			return nil, at(w[i].line, "host %s has no closing }", e.name)
		}
		if e.mac == "" {
			return nil, at(w[i].line, "host %s has no hardware ethernet", e.name)
		}
		if e.ip == "" {
			return nil, at(w[i].line, "host %s has no fixed-address", e.name)
		}
		list = append(list, e)
		i = j
	}
	return list, nil
}

// parseDnsmasq reads dhcp-host=MAC,ADDRESS,NAME in any order; tags, client identifiers and lease times are passed over.
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
			case part == "ignore" || part == "infinite" || strings.Contains(part, ":") || leaseTime(part):
			default:
				e.name = part
			}
		}
		if e.mac == "" || e.ip == "" {
			return nil, at(i+1, "dhcp-host=%s has no MAC and IPv4 address", strings.TrimSpace(value))
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
	mac, name, address := column("mac"), column("name"), column("address")
	if mac < 0 || address < 0 {
		return nil, at(1, "the header must name the columns: mac,name,address")
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
		e := entry{line: line, mac: row[mac], ip: row[address]}
		if name >= 0 {
			e.name = row[name]
		}
		list = append(list, e)
	}
}

// keaReservation is what we take of one of Kea's.
type keaReservation struct {
	MAC      string `json:"hw-address"`
	Address  string `json:"ip-address"`
	Hostname string `json:"hostname,omitempty"`
}

// parseKea walks Kea's JSON and takes every member of a list called reservations.
func parseKea(text []byte) (list []entry, err error) {
	clean := uncomment(text)
	d := json.NewDecoder(bytes.NewReader(clean))
	line := func(offset int64) int { return 1 + bytes.Count(clean[:min(int(offset), len(clean))], []byte("\n")) }
	for {
		token, err := d.Token()
		if err != nil {
			var syntax *json.SyntaxError
			switch {
			case errors.As(err, &syntax):
				return nil, at(line(syntax.Offset), "%w", err)
			case err.Error() == "EOF":
				return list, nil
			}
			return nil, at(line(d.InputOffset()), "%w", err)
		}
		if token != "reservations" || !d.More() {
			continue
		}
		if token, err := d.Token(); err != nil || token != json.Delim('[') {
			continue
		}
		for d.More() {
			var r keaReservation
			// The decoder stands before the white space in front of the object.
			from := d.InputOffset()
			from += int64(len(clean[from:]) - len(bytes.TrimLeft(clean[from:], " \t\r\n,")))
			if err := d.Decode(&r); err != nil {
				return nil, at(line(from), "%w", err)
			}
			if r.MAC == "" || r.Address == "" {
				return nil, at(line(from), "a reservation without hw-address and ip-address")
			}
			list = append(list, entry{line: line(from), mac: r.MAC, ip: r.Address, name: r.Hostname})
		}
	}
}

// uncomment blanks the comments that Kea allows: #, // and /* */. Lines stay where they are.
func uncomment(text []byte) []byte {
	out := bytes.Clone(text)
	blank := func(i, n int) int {
		for j := i; j < min(i+n, len(out)); j++ {
			if out[j] != '\n' {
				out[j] = ' '
			}
		}
		return i + n
	}
	for i := 0; i < len(out); {
		switch {
		case out[i] == '"':
			for i++; i < len(out) && out[i] != '"'; i++ {
				if out[i] == '\\' {
					i++
				}
			}
			i++
		case out[i] == '#', bytes.HasPrefix(out[i:], []byte("//")):
			i = blank(i, endOf(out[i:], "\n"))
		case bytes.HasPrefix(out[i:], []byte("/*")):
			n := bytes.Index(out[i:], []byte("*/"))
			if n < 0 {
				n = len(out) - i - 2
			}
			i = blank(i, n+2)
		default:
			i++
		}
	}
	return out
}

// Write returns the reservations of devices, those that have one, in a format.
func Write(f Format, devices []site.Device) []byte {
	var b bytes.Buffer
	devices = slices.DeleteFunc(slices.Clone(devices), func(d site.Device) bool { return !d.Address.IsValid() })
	switch f {
	case ISC:
		for _, d := range devices {
			fmt.Fprintf(&b, "host %s {\n  hardware ethernet %s;\n  fixed-address %s;\n}\n", name(d), d.MAC, d.Address)
		}
	case Dnsmasq:
		for _, d := range devices {
			fmt.Fprintf(&b, "dhcp-host=%s,%s,%s\n", d.MAC, d.Address, name(d))
		}
	case Kea:
		list := make([]keaReservation, 0, len(devices))
		for _, d := range devices {
			list = append(list, keaReservation{d.MAC.String(), d.Address.String(), d.Name})
		}
		e := json.NewEncoder(&b)
		e.SetIndent("", "  ")
		_ = e.Encode(map[string]any{"reservations": list}) // plain strings
	case CSV:
		w := csv.NewWriter(&b)
		_ = w.Write([]string{"mac", "name", "address"}) // to memory
		for _, d := range devices {
			_ = w.Write([]string{d.MAC.String(), d.Name, d.Address.String()})
		}
		w.Flush()
	}
	return b.Bytes()
}

// name is what a host is called where it must have a name.
func name(d site.Device) string {
	if d.Name != "" {
		return d.Name
	}
	return "host-" + strings.ReplaceAll(d.MAC.String(), ":", "")
}
