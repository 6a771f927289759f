package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"everboot/appliance/web"
)

// stamp is how times are printed that somebody will compare with a log.
const stamp = "2006-01-02 15:04:05.000"

// deviceStatus is `everboot status --device`.
func deviceStatus(c *cobra.Command, api *apiFlags, who string, asJSON bool) error {
	client, err := api.client()
	if err != nil {
		return err
	}
	d, err := client.Device(c.Context(), who)
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(c.OutOrStdout(), d)
	}
	return printDevice(c.OutOrStdout(), d)
}

func printDevice(w io.Writer, d web.DeviceStatus) error {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	e := d.Explanation
	fmt.Fprintf(t, "target\t%s%s%s\n", e.MAC, prefixed(" ", e.Device), prefixed(" at ", e.Address))
	for _, s := range d.Sessions {
		fmt.Fprintf(t, "server\t%s\nvdisk\t%s version %d\nsince\t%s, for %s\nbytes\t%d to the target, %d from it\nfailovers\t%d\nlast stall\t%s\n",
			s.Streamer, s.VDisk, s.Version, s.Since.Local().Format(stamp), d.Now.Sub(s.Since).Round(time.Second), s.ToTarget, s.ToStreamer, s.Failovers, describeStall(s, d.Now))
	}
	if len(d.Sessions) == 0 {
		fmt.Fprintf(t, "server\tno stream through this appliance%s\n", describeLast(d))
	}
	next := "no boot file: " + e.Text
	if e.Boots {
		next = fmt.Sprintf("%s from %s, served by %s now", e.Assignment.Describe(), e.Server, e.Streamer)
	}
	fmt.Fprintf(t, "next boot\t%s\n", next)
	if err := t.Flush(); err != nil {
		return err
	}
	for _, b := range d.Boots {
		fmt.Fprintf(w, "\nboot of %s\n", b.Began.Local().Format(stamp))
		for _, event := range b.Events {
			fmt.Fprintf(w, "  %9.3f s  %-9s %s\n", event.At.Sub(b.Began).Seconds(), event.What, event.Detail)
		}
		if b.LeftOut > 0 {
			fmt.Fprintf(w, "  (%d events in its middle are no longer kept)\n", b.LeftOut)
		}
	}
	return nil
}

func describeStall(s web.Session, now time.Time) string {
	if s.Stall == 0 {
		return "none seen by this appliance"
	}
	return fmt.Sprintf("%s, %s ago", s.Stall.Span(), now.Sub(s.StallAt).Round(time.Second))
}

// describeLast says where a target streamed from, if not through this appliance now.
func describeLast(d web.DeviceStatus) string {
	l := d.Last
	if l == nil {
		return ""
	}
	text := fmt.Sprintf("; its last was from %s, since %s, with %d failovers", l.Streamer, l.Since.Local().Format(stamp), l.Failovers)
	switch {
	case l.Redirected:
		return text + ", directly: it was redirected"
	case l.Elsewhere:
		return text + ", through another appliance: ask that one with --api"
	}
	return text + prefixed("; lost: ", l.Why)
}
