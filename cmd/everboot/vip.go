package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func vipCommand(api *apiFlags) *cobra.Command {
	c := &cobra.Command{Use: "vip", Short: "Move the floating address", Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() }}
	c.AddCommand(&cobra.Command{
		Use: "release", Short: "Hand the floating address over to another appliance, without a gap",
		Long: `Hand the floating address over from the appliance that owns it to another one. It goes on answering until the
other one does, and returns then. It does not take the address back from a well appliance until it is started again, even
with vip.preempt. When there is no other appliance it keeps the address and says so.`,
		Example: "  everboot vip release\n  everboot --api http://198.18.0.2:8667 vip release",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := api.client()
			if err != nil {
				return err
			}
			if err := client.ReleaseVIP(c.Context()); err != nil {
				return err
			}
			fmt.Fprintln(c.OutOrStdout(), "another appliance has the floating address")
			return nil
		},
	})
	return c
}
