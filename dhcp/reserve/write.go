package reserve

import (
	"bytes"
	"cmp"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"everboot/site"
)

// Write returns the reservations of devices, those that have one, in a format.
func Write(f Format, devices []site.Device) []byte {
	var b bytes.Buffer
	devices = slices.DeleteFunc(slices.Clone(devices), func(d site.Device) bool { return !d.Address.IsValid() && !d.Address6.IsValid() })
	switch f {
	case ISC:
		for _, d := range devices {
			client := ""
			if d.ClientID != "" {
				client = fmt.Sprintf("  option dhcp-client-identifier %s;\n", d.ClientID)
			}
			host := cmp.Or(d.Name, madeName(d.MAC)) // it must have one
			if d.Address.IsValid() {
				fmt.Fprintf(&b, "host %s {\n  hardware ethernet %s;\n%s  fixed-address %s;\n}\n", host, d.MAC, client, d.Address)
				host += six // dhcpd takes one address a host
			}
			if d.Address6.IsValid() {
				fmt.Fprintf(&b, "host %s {\n  hardware ethernet %s;\n  fixed-address6 %s;\n}\n", host, d.MAC, d.Address6)
			}
		}
	case Dnsmasq:
		for _, d := range devices {
			client := ""
			if d.ClientID != "" {
				client = "id:" + d.ClientID.String() + ","
			}
			var words []string
			if d.Address.IsValid() {
				words = append(words, d.Address.String())
			} else {
				client = "" // dnsmasq would take it for a DUID
			}
			if d.Address6.IsValid() {
				words = append(words, "["+d.Address6.String()+"]")
			}
			if d.Name != "" {
				words = append(words, d.Name)
			}
			fmt.Fprintf(&b, "dhcp-host=%s,%s%s\n", d.MAC, client, strings.Join(words, ","))
		}
	case Kea:
		writeKea(&b, devices)
	case CSV:
		writeCSV(&b, devices)
	}
	return b.Bytes()
}

func writeKea(b *bytes.Buffer, devices []site.Device) {
	list, list6 := []keaReservation{}, []keaReservation{}
	for _, d := range devices {
		r := keaReservation{MAC: d.MAC.String(), Hostname: d.Name}
		if d.Address6.IsValid() {
			r.Addresses = []string{d.Address6.String()}
			list6 = append(list6, r)
			r.Addresses = nil
		}
		if !d.Address.IsValid() {
			continue
		}
		r.Address = d.Address.String()
		if d.ClientID != "" {
			r.Context = &keaContext{d.ClientID.String()}
		}
		list = append(list, r)
	}
	e := json.NewEncoder(b)
	e.SetIndent("", "  ")
	out := map[string]any{"reservations": list}
	if len(list6) > 0 { // Kea has a server for each
		out = map[string]any{"Dhcp4": out, "Dhcp6": map[string]any{"reservations": list6}}
	}
	_ = e.Encode(out) // plain strings
}

// writeCSV leaves the columns of IPv6 addresses and of client identifiers out where there are none.
func writeCSV(b *bytes.Buffer, devices []site.Device) {
	w := csv.NewWriter(b)
	head := []string{"mac", "name", "address"}
	sixes := slices.ContainsFunc(devices, func(d site.Device) bool { return d.Address6.IsValid() })
	if sixes {
		head = append(head, "address6")
	}
	clients := slices.ContainsFunc(devices, func(d site.Device) bool { return d.ClientID != "" })
	if clients {
		head = append(head, "client_id")
	}
	_ = w.Write(head) // to memory
	for _, d := range devices {
		row := []string{d.MAC.String(), d.Name, written(d.Address)}
		if sixes {
			row = append(row, written(d.Address6))
		}
		if clients {
			row = append(row, d.ClientID.String())
		}
		_ = w.Write(row)
	}
	w.Flush()
}

// written is an address, or nothing.
func written(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// What dhcpd's hosts are called that have no name of their own. No device has a name with an underscore, so that nobody's is taken for one of these.
const (
	made = "unnamed_" // and the MAC
	six  = "_v6"      // after the name of the host that has the IPv4 address
)

// madeName is the name of a host whose device has none; who reads it takes it for none.
func madeName(mac site.MAC) string { return made + strings.ReplaceAll(mac.String(), ":", "") }
