package main

import (
	"cmp"
	"fmt"
	"net/netip"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

func leaseCommand(api *apiFlags) *cobra.Command {
	c := &cobra.Command{Use: "lease", Short: "List DHCP leases, and free one", Args: noArgs,
		Long: `List DHCP leases, and free one. Of IPv6 there are none: DHCPv6 computes addresses from the client's identifier, the same on each appliance. Those that
this appliance heard in use are listed, with the time until which their clients may use them.`,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() }}
	c.AddCommand(leaseListCommand(api), leaseReleaseCommand(api))
	return c
}

func leaseListCommand(api *apiFlags) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{Use: "list", Short: "List them, those that are free again too", Args: noArgs, RunE: func(c *cobra.Command, _ []string) error {
		client, err := api.client()
		if err != nil {
			return err
		}
		list, err := client.Leases(c.Context())
		if err != nil {
			return err
		}
		if asJSON {
			return printJSON(c.OutOrStdout(), list)
		}
		t := tabwriter.NewWriter(c.OutOrStdout(), 0, 4, 2, ' ', 0)
		fmt.Fprintln(t, "ADDRESS\tMAC\tNAME\tSTATE\tUNTIL\tFROM")
		for _, l := range list {
			from := "pool"
			switch {
			case l.Reserved:
				from = "reservation"
			case l.Computed:
				from = "computed"
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", l.Address, l.MAC, cmp.Or(l.Device, l.Name), l.State, l.Expires.Local().Format(time.DateTime), from)
		}
		return t.Flush()
	}}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func leaseReleaseCommand(api *apiFlags) *cobra.Command {
	return &cobra.Command{
		Use: "release ADDRESS", Short: "Free an address whose client is gone for good",
		Long: `Free an address whose client is gone for good, or end the quarantine of one that a client declined. Its client, should
it live, is not told: it keeps using the address until it renews.`,
		Args: exactArgs(1), ValidArgsFunction: completeLeases(api),
		RunE: func(c *cobra.Command, args []string) error {
			addr, err := netip.ParseAddr(args[0])
			if err != nil {
				return usageError{fmt.Errorf("%q is no IP address", args[0])}
			}
			client, err := api.client()
			if err != nil {
				return err
			}
			return client.ReleaseLease(c.Context(), addr)
		},
	}
}
