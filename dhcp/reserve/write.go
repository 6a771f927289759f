package reserve

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"everboot/site"
)

// Write returns the reservations of devices, those that have one, in a format.
func Write(f Format, devices []site.Device) []byte {
	var b bytes.Buffer
	devices = slices.DeleteFunc(slices.Clone(devices), func(d site.Device) bool { return !d.Address.IsValid() })
	switch f {
	case ISC:
		for _, d := range devices {
			client := ""
			if d.ClientID != "" {
				client = fmt.Sprintf("  option dhcp-client-identifier %s;\n", d.ClientID)
			}
			fmt.Fprintf(&b, "host %s {\n  hardware ethernet %s;\n%s  fixed-address %s;\n}\n", name(d), d.MAC, client, d.Address)
		}
	case Dnsmasq:
		for _, d := range devices {
			client := ""
			if d.ClientID != "" {
				client = "id:" + d.ClientID.String() + ","
			}
			fmt.Fprintf(&b, "dhcp-host=%s,%s%s,%s\n", d.MAC, client, d.Address, name(d))
		}
	case Kea:
		writeKea(&b, devices)
	case CSV:
		writeCSV(&b, devices)
	}
	return b.Bytes()
}

func writeKea(b *bytes.Buffer, devices []site.Device) {
	list := make([]keaReservation, 0, len(devices))
	for _, d := range devices {
		r := keaReservation{MAC: d.MAC.String(), Address: d.Address.String(), Hostname: d.Name}
		if d.ClientID != "" {
			r.Context = &keaContext{d.ClientID.String()}
		}
		list = append(list, r)
	}
	e := json.NewEncoder(b)
	e.SetIndent("", "  ")
	_ = e.Encode(map[string]any{"reservations": list}) // plain strings
}

// writeCSV leaves the column of client identifiers out where there is none.
func writeCSV(b *bytes.Buffer, devices []site.Device) {
	w := csv.NewWriter(b)
	head := []string{"mac", "name", "address"}
	clients := slices.ContainsFunc(devices, func(d site.Device) bool { return d.ClientID != "" })
	if clients {
		head = append(head, "client_id")
	}
	_ = w.Write(head) // to memory
	for _, d := range devices {
		row := []string{d.MAC.String(), d.Name, d.Address.String()}
		if clients {
			row = append(row, d.ClientID.String())
		}
		_ = w.Write(row)
	}
	w.Flush()
}

// name is what a host is called where it must have a name.
func name(d site.Device) string {
	if d.Name != "" {
		return d.Name
	}
	return "host-" + strings.ReplaceAll(d.MAC.String(), ":", "")
}
