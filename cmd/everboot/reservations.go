package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"sync/atomic"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

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
			if err := putAll(c.Context(), client, s.View, devices, place, c.ErrOrStderr()); err != nil {
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

// clashes returns an error for each address, name and client identifier that another device of the site has. place tells where a device stands.
func clashes(v *site.View, devices []site.Device, place func(int) string) error {
	imported := make(map[site.MAC]bool)
	for _, d := range devices {
		imported[d.MAC] = true
	}
	owners := make(map[string]site.MAC)
	for _, other := range v.SortedDevices() {
		if !imported[other.MAC] {
			for _, claim := range claims(other) {
				owners[claim] = other.MAC
			}
		}
	}
	var errs []error
	for i, d := range devices {
		for _, claim := range claims(d) {
			if other, ok := owners[claim]; ok {
				errs = append(errs, fmt.Errorf("%s: %s: its %s is that of device %s of the site", place(i), d.MAC, claim, other))
			}
		}
	}
	return errors.Join(errs...)
}

// claims are what only one device may have.
func claims(d site.Device) (list []string) {
	for _, a := range []netip.Addr{d.Address6, d.Address} {
		if a.IsValid() {
			list = append(list, "address "+a.String())
		}
	}
	if d.ClientID != "" {
		list = append(list, "client identifier "+d.ClientID.String())
	}
	if d.Name != "" {
		list = append(list, "name "+d.Name)
	}
	return list
}

// putsAtOnce is how many reservations are under way at a time: a registry writes those that wait with each other in one write.
const putsAtOnce = 16

// putAll writes the devices into the registry; if one is refused, the others become what they were.
func putAll(ctx context.Context, client web.Client, v *site.View, devices []site.Device, place func(int) string, say io.Writer) error {
	in := make([]bool, len(devices))
	err := eachAtOnce(ctx, client, len(devices), newProgress(say, "imported", len(devices)), func(ctx context.Context, client web.Client, i int) error {
		err := client.Put(ctx, site.KindDevice, devices[i].MAC.String(), devices[i])
		in[i] = err == nil || ctx.Err() != nil // when we do not wait for the answer, it may be
		if err != nil {
			return fmt.Errorf("%s: importing %s: %w", place(i), devices[i].MAC, err)
		}
		return nil
	})
	if err == nil {
		return nil
	}
	var back []site.Device
	for i, d := range devices {
		if in[i] {
			back = append(back, d)
		}
	}
	// An import that is interrupted is taken back too.
	if failed := takeBack(context.WithoutCancel(ctx), client, v, back, say); failed != nil {
		return fmt.Errorf("%w; taking back %d others failed too: %w; import the file once more", err, len(back), failed)
	}
	return fmt.Errorf("%w; nothing is imported", err)
}

// takeBack makes devices what they were.
func takeBack(ctx context.Context, client web.Client, v *site.View, devices []site.Device, say io.Writer) error {
	failed := make([]error, len(devices))
	_ = eachAtOnce(ctx, client, len(devices), newProgress(say, "taken back", len(devices)), func(ctx context.Context, client web.Client, i int) error {
		mac := devices[i].MAC
		if before, known := v.Devices[mac]; known {
			failed[i] = client.Put(ctx, site.KindDevice, mac.String(), before)
		} else {
			failed[i] = client.Delete(ctx, site.KindDevice, mac.String())
		}
		return nil // the others are taken back none the less
	})
	return errors.Join(failed...)
}

// eachAtOnce does something for each of n, putsAtOnce at a time, until one fails; then what is under way goes on to its end. For the last alone, which comes after
// all others, the client waits until the site view has it.
func eachAtOnce(ctx context.Context, client web.Client, n int, p *progress, do func(context.Context, web.Client, int) error) error {
	if n == 0 {
		return nil
	}
	client.More = true
	var group errgroup.Group
	var failed atomic.Bool
	group.SetLimit(putsAtOnce)
	for i := 0; i < n-1 && !failed.Load(); i++ {
		group.Go(func() error {
			defer p.another()
			err := do(ctx, client, i)
			if err != nil {
				failed.Store(true)
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	client.More = false
	return do(ctx, client, n-1)
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
