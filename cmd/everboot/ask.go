package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"everboot/appliance"
	"everboot/appliance/peers"
	"everboot/appliance/web"
	"everboot/site"
	"everboot/streamer"
)

// apiFlags say which appliance to ask.
type apiFlags struct{ url, tokenFile string }

// client returns the client for the flags; what they leave out comes from the node's own configuration, if it has one.
func (f *apiFlags) client() (web.Client, error) {
	c := web.Client{URL: f.url}
	var token appliance.Secret
	if local, err := appliance.Load(defaultApplianceConfig); err == nil {
		token = local.API.Token
		if c.URL == "" {
			c.URL = localURL(local.API.Listen)
		}
	}
	if c.URL == "" {
		c.URL = "http://127.0.0.1:8667"
	}
	if f.tokenFile != "" {
		if err := token.UnmarshalText([]byte("file:" + f.tokenFile)); err != nil {
			return c, usageError{err}
		}
	}
	var err error
	c.Token, err = token.Read()
	return c, err
}

// localURL returns the URL of an API of this node: by way of the loopback, unless it listens at one address alone.
func localURL(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return ""
	}
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(host, port)
}

// site returns the client for the flags, and the site as the appliance sees it.
func (f *apiFlags) site(ctx context.Context) (web.Client, web.Status, error) {
	client, err := f.client()
	if err != nil {
		return client, web.Status{}, err
	}
	s, err := client.Status(ctx)
	return client, s, err
}

func statusCommand(api *apiFlags) *cobra.Command {
	var asJSON bool
	var device string
	c := &cobra.Command{
		Use: "status", Short: "Show the site, or one target, at a glance", Args: noArgs,
		Example: "  everboot status\n  everboot status --device t1\n  everboot --api http://198.18.0.2:8667 status --json",
		RunE: func(c *cobra.Command, _ []string) error {
			if device != "" {
				return deviceStatus(c, api, device, asJSON)
			}
			_, s, err := api.site(c.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(c.OutOrStdout(), s)
			}
			return printStatus(c.OutOrStdout(), s)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().StringVar(&device, "device", "", "show this target's stream and its last boots: a name, MAC or IP address")
	_ = c.RegisterFlagCompletionFunc("device", complete(api, devices))
	return c
}

func explainCommand(api *apiFlags) *cobra.Command {
	var asJSON, events bool
	c := &cobra.Command{
		Use: "explain MAC|IP|NAME", Short: "Say what a target gets, and why", Args: exactArgs(1), ValidArgsFunction: once(complete(api, macs)),
		Example: "  everboot explain 52:54:00:00:00:01\n  everboot explain 198.18.0.51 --events",
		RunE: func(c *cobra.Command, args []string) error {
			client, err := api.client()
			if err != nil {
				return err
			}
			e, err := client.Explain(c.Context(), args[0])
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(c.OutOrStdout(), e)
			}
			return printExplanation(c.OutOrStdout(), e, events)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().BoolVar(&events, "events", false, "print the steps of its last boots too")
	return c
}

func drainCommand(api *apiFlags) *cobra.Command {
	return stateCommand(api, "drain", "Move a streamer's targets elsewhere, and give it no new ones", site.Draining)
}

func resumeCommand(api *apiFlags) *cobra.Command {
	return stateCommand(api, "resume", "Take a drained streamer back", site.Active)
}

func rebalanceCommand(api *apiFlags) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "rebalance", Short: "Spread the targets evenly over the streamers", Args: noArgs,
		Long: `Make as few targets as needed log in anew, one after the other, so that the streamers share them evenly by their power. Each is
without its disk for some hundredths of a second, and comes back before the next one goes. It stops if one does not. Only
streams through the appliance that is asked are moved: ask the one that owns the floating address.`,
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := api.client()
			if err != nil {
				return err
			}
			moved := 0
			for {
				r, err := client.Rebalance(c.Context())
				if err != nil {
					return err
				}
				moved += r.Moved
				if r.Left == 0 || r.Moved == 0 {
					break
				}
			}
			if asJSON {
				return printJSON(c.OutOrStdout(), streamer.Rebalancing{Moved: moved})
			}
			fmt.Fprintf(c.OutOrStdout(), "%d targets moved\n", moved)
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func stateCommand(api *apiFlags, verb, short string, state site.StreamerState) *cobra.Command {
	return &cobra.Command{
		Use: verb + " NAME", Short: short, Args: exactArgs(1), ValidArgsFunction: once(complete(api, streamers)),
		RunE: func(c *cobra.Command, args []string) error {
			client, s, err := api.site(c.Context())
			if err != nil {
				return err
			}
			if _, known := s.View.Streamers[args[0]]; !known {
				return fmt.Errorf("there is no streamer %q; the site has: %s", args[0], streamerNames(s.View))
			}
			if err := client.Put(c.Context(), site.KindStreamerState, args[0], state); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "%s: %s\n", args[0], state)
			if state == site.Draining {
				for _, r := range streamer.Strands(s.View, args[0]) {
					fmt.Fprintf(c.ErrOrStderr(), "everboot: nobody else can serve %s version %d now: its targets stay on %s\n", r.VDisk, r.Version, args[0])
				}
			}
			return nil
		},
	}
}

func streamerNames(v *site.View) string {
	var names []string
	for _, s := range v.SortedStreamers() {
		names = append(names, s.Name)
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

func printJSON(w io.Writer, value any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(value)
}

func printStatus(w io.Writer, s web.Status) error {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	v := s.View
	fmt.Fprintf(t, "site\t%s (appliance %s, everboot %s, up %s)\n", v.Site, s.Node, s.Version, s.Now.Sub(s.Started).Round(time.Second))
	fmt.Fprintf(t, "registry\t%s\n", describeRegistry(v))
	for _, v := range s.VIPs {
		fmt.Fprintf(t, "vip\t%s: %s for %s (priority %d%s%s)\n", strings.Join(v.Addresses, " "), v.State, s.Now.Sub(v.Since).Round(time.Second),
			v.Priority, prefixed("; ", v.Reason), prefixed("; owner ", v.Owner))
		for _, odd := range oddities(v.Odd) {
			fmt.Fprintf(t, "\todd: %s\n", odd)
		}
	}
	for _, e := range s.StandIns {
		fmt.Fprintf(t, "stand-in\t%s of %s: %s%s\n", e.Address, e.Streamer, cmp.Or(e.State, "cannot"), sinceText(e.Since, s.Now))
	}
	for _, p := range s.Peers {
		fmt.Fprintf(t, "peer\t%s\n", describePeer(p, s.Now))
	}
	fmt.Fprintf(t, "boot\t%s: TFTP %s, HTTP %s\n", v.Boot.Address, describeCheck(v.Boot.TFTP, s.Now), describeCheck(v.Boot.HTTP, s.Now))
	fmt.Fprintf(t, "targets\t%d devices, %d leases, %d streams here\n", len(v.Devices), s.Leases, len(s.Sessions))
	for _, warning := range s.Warnings {
		fmt.Fprintf(t, "warning\t%s\n", warning)
	}
	fmt.Fprintf(t, "\nSTREAMER\tHEALTH\tSTATE\tSESSIONS\tPOWER\tREPLICAS\n")
	for _, st := range v.SortedStreamers() {
		var replicas []string
		for _, r := range st.Replicas {
			replicas = append(replicas, fmt.Sprintf("%s:%d(%s)", r.VDisk, r.Version, r.Digest.Short()))
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%g\t%s\n", st.Name, describeCheck(st.Check, s.Now), st.State, st.Sessions, st.Power, strings.Join(replicas, " "))
	}
	if len(s.Sessions) > 0 {
		fmt.Fprintf(t, "\nTARGET\tMAC\tVDISK\tSTREAMER\tFOR\tFAILOVERS\n")
	}
	for _, e := range s.Sessions {
		fmt.Fprintf(t, "%s\t%s\t%s:%d\t%s\t%s\t%d\n", e.Device, e.MAC, e.VDisk, e.Version, e.Streamer, s.Now.Sub(e.Since).Round(time.Second), e.Failovers)
	}
	printTransfers(t, s)
	return t.Flush()
}

// pastShown is how many of the TFTP transfers that ended are shown; --json has all that the appliance remembers.
const pastShown = 10

func printTransfers(w io.Writer, s web.Status) {
	list := append(slices.Clip(s.Transfers), s.Past[:min(len(s.Past), pastShown)]...)
	if len(list) > 0 {
		fmt.Fprintf(w, "\nTFTP CLIENT\tTARGET\tFILE\tBYTES\tOF\tRESULT\tFOR\tSENT AGAIN\n")
	}
	for _, x := range list {
		end, result := s.Now, x.Result
		if !x.Ended.IsZero() {
			end = x.Ended
		}
		if x.Resumed > 0 {
			result += ", taken over"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%s\t%s\t%d\n", x.Client, x.Device, x.File, x.Bytes, x.Size, result, end.Sub(x.Began).Round(time.Millisecond), x.Resent)
	}
}

func sinceText(since, now time.Time) string {
	if since.IsZero() {
		return ""
	}
	return " for " + now.Sub(since).Round(time.Second).String()
}

func describePeer(p peers.Peer, now time.Time) string {
	state := "does not answer"
	if p.Alive {
		state = "answers"
	}
	if !p.Since.IsZero() {
		state += " for " + now.Sub(p.Since).Round(time.Second).String()
	}
	return strings.TrimSpace(p.Name+" "+p.Address.String()) + ": " + state
}

func describeRegistry(v *site.View) string {
	if v.Registry.Reachable {
		return v.Registry.Kind
	}
	text := v.Registry.Kind + ", not reachable" + prefixed(": ", v.Registry.Error)
	if v.FromDisk {
		text += "; serving from the view saved at " + v.Built.Format(time.RFC3339)
	}
	return text
}

func describeCheck(c site.Check, now time.Time) string {
	if c.Health == site.Unknown {
		return "unknown"
	}
	return fmt.Sprintf("%s for %s%s", c.Health, now.Sub(c.Since).Round(time.Second), prefixed(": ", c.Reason))
}

func prefixed(prefix, text string) string {
	if text == "" {
		return ""
	}
	return prefix + text
}

func printExplanation(w io.Writer, e web.Explanation, events bool) error {
	who := e.MAC.String()
	if e.Device != "" {
		who += " (" + e.Device + ")"
	}
	address := "an address from a pool"
	if e.Address != "" {
		address = e.Address
	}
	if e.Boots {
		fmt.Fprintf(w, "%s gets %s and boots %s from %s, served by %s now\n", who, address, e.Assignment.Describe(), e.Server, e.Streamer)
	} else {
		fmt.Fprintf(w, "%s gets %s and no boot file: %s [%s]%s\n", who, address, e.Text, e.Reason, prefixed("; wanted: ", wanted(e)))
	}
	if e.Last != "" {
		fmt.Fprintf(w, "DHCP's last word on it over IPv4, at %s: %s\n", e.LastAt.Local().Format(time.DateTime), e.Last)
	}
	if e.IPv6 != nil {
		printExplanation6(w, *e.IPv6)
	}
	if !events {
		return nil
	}
	for _, event := range e.Events {
		fmt.Fprintf(w, "  %s  %-10s %s\n", event.At.Format("2006-01-02 15:04:05.000"), event.What, event.Detail)
	}
	return nil
}

func printExplanation6(w io.Writer, e web.Explanation6) {
	address := "an address that is computed from its identifier"
	switch {
	case e.Reserved:
		address = e.Address.String()
	case e.Address.IsValid():
		address = e.Address.String() + ", computed from its identifier,"
	}
	if e.Boots {
		fmt.Fprintf(w, "over IPv6 it gets %s and boots from %s: %s\n", address, e.Server, e.File)
	} else {
		fmt.Fprintf(w, "over IPv6 it gets %s and no boot file: %s [%s]\n", address, e.Text, e.Reason)
	}
	if e.Last == "" {
		fmt.Fprintln(w, "over IPv6 this appliance has answered nothing of it since it started")
		return
	}
	fmt.Fprintf(w, "over IPv6 its last message, at %s: %s\n", e.LastAt.Local().Format(time.DateTime), e.Last)
}

func wanted(e web.Explanation) string {
	if e.Assignment.VDisk.Name == "" {
		return ""
	}
	return e.Assignment.Describe()
}

// oddWords say in words what vip counts under these names.
var oddWords = map[string]string{
	"second_active": "another node was active at the same time",
	"interval":      "a node of the group has another advert_interval",
	"addresses":     "a node of the group has other addresses under this vrid",
	"ttl":           "an advertisement came through a router, or was made up",
	"taken_away":    "somebody took the addresses off this node",
	"put_on":        "somebody put the addresses on this node while another owned them",
	"in_use":        "another host, of which no advertisement is heard, answers for an address; it was not claimed",
}

// oddities says what is odd about a router's neighbours, and how often.
func oddities(odd map[string]uint64) []string {
	var list, dropped []string
	for _, name := range slices.Sorted(maps.Keys(odd)) {
		if reason, ok := strings.CutPrefix(name, "dropped: "); ok {
			dropped = append(dropped, fmt.Sprintf("%s (%d)", reason, odd[name]))
			continue
		}
		list = append(list, fmt.Sprintf("%s (%d)", cmp.Or(oddWords[name], name), odd[name]))
	}
	if len(dropped) > 0 {
		list = append(list, "advertisements dropped for their "+strings.Join(dropped, ", "))
	}
	return list
}
