package reserve

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
)

// keaReservation is what we take of one of Kea's.
type keaReservation struct {
	MAC       string      `json:"hw-address,omitempty"`
	ClientID  string      `json:"client-id,omitempty"`
	DUID      string      `json:"duid,omitempty"`
	Address   string      `json:"ip-address,omitempty"`
	Addresses []string    `json:"ip-addresses,omitempty"` // of Dhcp6
	Hostname  string      `json:"hostname,omitempty"`
	Context   *keaContext `json:"user-context,omitempty"`
}

// keaContext is where an exported reservation keeps its client identifier: Kea takes one identifier a reservation, and that is the MAC.
type keaContext struct {
	ClientID string `json:"client-id,omitempty"`
}

// entry returns the reservation, which stands at a line.
func (r keaReservation) entry(line int) (e entry, err error) {
	e = entry{line: line, mac: r.MAC, ip: r.Address, name: r.Hostname}
	id := r.ClientID
	if id == "" && r.Context != nil {
		id = r.Context.ClientID
	}
	text := strings.Trim(id, "'") // Kea's way to write one as text
	if e.client, err = clientID(text, len(id) == len(text)+2); id != "" && err != nil {
		return e, at(line, "%w", err)
	}
	if r.DUID != "" {
		if e.duid, err = clientID(r.DUID, false); err != nil {
			return e, at(line, "duid: %w", err)
		}
	}
	if len(r.Addresses) > 1 {
		return e, at(line, "a reservation of %d IPv6 addresses: a device has one", len(r.Addresses))
	}
	for _, a := range r.Addresses {
		e.ip6 = a
	}
	if e.mac == "" && e.client == "" && e.duid == "" || e.ip == "" && e.ip6 == "" {
		return e, at(line, "a reservation without hw-address, client-id or duid, and ip-address or ip-addresses")
	}
	return e, nil
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
			e, err := r.entry(line(from))
			if err != nil {
				return nil, err
			}
			list = append(list, e)
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
