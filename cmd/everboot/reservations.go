package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"everboot/appliance/web"
	"everboot/dhcp/reserve"
	"everboot/site"
)

const formatUsage = "isc (dhcpd.conf), kea (JSON), dnsmasq (dhcp-host lines) or csv (mac,name,address,address6,client_id)"

// importCommand takes reservations over from another DHCP server: all of a file, or none.
func importCommand(api *apiFlags) *cobra.Command {
	var format string
	c := &cobra.Command{
		Use: "import FILE", Short: "Take over the reservations of ISC dhcpd, Kea, dnsmasq or a CSV file",
		Long: `Take over the reservations of another DHCP server's file: all of them, or, if anything is wrong, none. A device that is known
already keeps everything but its name, addresses and client identifier. IPv6 addresses are taken over, too, by MAC, or by a DUID that has the MAC in it.`,
		Example: "  everboot device import --format isc /etc/dhcp/dhcpd.conf",
		Args:    exactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			f, err := reserve.ParseFormat(format)
			if err != nil {
				return usageError{fmt.Errorf("--format: %w", err)}
			}
			text, err := os.ReadFile(args[0])
			if err != nil {
				return err
			}
			devices, lines, err := reserve.Parse(f, args[0], text)
			if err != nil {
				return err
			}
			client, s, err := api.site(c.Context())
			if err != nil {
				return err
			}
			for i, d := range devices {
				devices[i] = merged(s.View.Devices[d.MAC], d)
			}
			place := func(i int) string { return fmt.Sprintf("%s:%d", args[0], lines[i]) }
			if err := clashes(s.View, devices, place); err != nil {
				return err
			}
			if err := putAll(c.Context(), client, s.View, devices, place); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "%d reservations imported\n", len(devices))
			return nil
		},
	}
	c.Flags().StringVar(&format, "format", "", formatUsage)
	return c
}

// merged returns a known device with the name, addresses and client identifier of an imported one.
func merged(known, d site.Device) site.Device {
	known.MAC = d.MAC
	known.Address, known.Address6 = cmp.Or(d.Address, known.Address), cmp.Or(d.Address6, known.Address6)
	if d.ClientID != "" {
		known.ClientID = d.ClientID
	}
	if d.Name != "" {
		known.Name = d.Name
	}
	return known
}

// clashes returns an error for each address and name that another device of the site has. place tells where a device stands.
func clashes(v *site.View, devices []site.Device, place func(int) string) error {
	imported := make(map[site.MAC]bool)
	for _, d := range devices {
		imported[d.MAC] = true
	}
	var errs []error
	for i, d := range devices {
		for _, other := range v.SortedDevices() {
			if imported[other.MAC] {
				continue
			}
			if other.Address6 == d.Address6 && d.Address6.IsValid() {
				errs = append(errs, fmt.Errorf("%s: %s: its address %s is that of device %s of the site", place(i), d.MAC, d.Address6, other.MAC))
			}
			if other.Address == d.Address && d.Address.IsValid() {
				errs = append(errs, fmt.Errorf("%s: %s: its address %s is that of device %s of the site", place(i), d.MAC, d.Address, other.MAC))
			}
			if other.ClientID == d.ClientID && d.ClientID != "" {
				errs = append(errs, fmt.Errorf("%s: %s: its client identifier %s is that of device %s of the site", place(i), d.MAC, d.ClientID, other.MAC))
			}
			if other.Name == d.Name && d.Name != "" {
				errs = append(errs, fmt.Errorf("%s: %s: its name %s is that of device %s of the site", place(i), d.MAC, d.Name, other.MAC))
			}
		}
	}
	return errors.Join(errs...)
}

// putAll writes the devices into the registry; if one is refused, those before it become what they were.
func putAll(ctx context.Context, client web.Client, v *site.View, devices []site.Device, place func(int) string) error {
	for i, d := range devices {
		err := client.Put(ctx, site.KindDevice, d.MAC.String(), d)
		if err == nil {
			continue
		}
		ctx = context.WithoutCancel(ctx) // an import that is interrupted is taken back too
		var errs []error
		for _, done := range devices[:i] {
			key := done.MAC.String()
			if before, known := v.Devices[done.MAC]; known {
				errs = append(errs, client.Put(ctx, site.KindDevice, key, before))
			} else {
				errs = append(errs, client.Delete(ctx, site.KindDevice, key))
			}
		}
		if back := errors.Join(errs...); back != nil {
			return fmt.Errorf("%s: importing %s: %w; taking back the %d before it failed too: %w; import the file once more", place(i), d.MAC, err, i, back)
		}
		return fmt.Errorf("%s: importing %s: %w; nothing is imported", place(i), d.MAC, err)
	}
	return nil
}

func exportCommand(api *apiFlags) *cobra.Command {
	var format string
	c := &cobra.Command{
		Use: "export", Short: "Print the reservations for ISC dhcpd, Kea, dnsmasq or as CSV", Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			f, err := reserve.ParseFormat(format)
			if err != nil {
				return usageError{fmt.Errorf("--format: %w", err)}
			}
			_, s, err := api.site(c.Context())
			if err != nil {
				return err
			}
			_, err = c.OutOrStdout().Write(reserve.Write(f, s.View.SortedDevices()))
			return err
		},
	}
	c.Flags().StringVar(&format, "format", "", formatUsage)
	return c
}
