package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"everboot/appliance"
)

func vipCommand(api *apiFlags) *cobra.Command {
	c := &cobra.Command{Use: "vip", Short: "Hand the floating address over, or take it off this host", Args: noArgs,
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
	var path string
	flush := &cobra.Command{
		Use: "flush", Short: "Take this host's floating addresses away, where an appliance died and left them",
		Long: `Take the floating addresses of a configuration away from this host, and tell the other appliances, so that one of them takes
over at once. It is what the systemd unit does after an appliance ended, however it ended. Do not use it while one runs: "everboot vip
release" hands over without a gap.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := appliance.Load(path)
			if err != nil {
				return usageError{err}
			}
			return appliance.FlushVIP(cfg, newLog().With("node", cfg.Node))
		},
	}
	flush.Flags().StringVar(&path, "config", defaultApplianceConfig, "configuration file")
	c.AddCommand(flush)
	return c
}
