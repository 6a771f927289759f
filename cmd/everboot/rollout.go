package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"everboot/appliance/web"
	"everboot/site"
)

// rollout is what a rollout says it did, for programs.
type rollout struct {
	Medium      site.Medium `json:"medium"`
	Devices     []site.MAC  `json:"devices,omitempty"`
	Collections []string    `json:"collections,omitempty"`
}

// rolloutFlags say whose media become what.
type rolloutFlags struct {
	devices, collections, servers []string
	version                       int
	stop, asJSON                  bool
}

func rolloutCommand(api *apiFlags) *cobra.Command {
	var f rolloutFlags
	c := &cobra.Command{
		Use: "rollout", Short: "Give the boot media in running targets other login servers", Args: noArgs,
		Long: `Give the boot media in running targets other login servers: of devices, of collections, or of both. The unit everboot-medium in their images
(docs/target.md) asks every two minutes, and writes the boot partition, the disk or the stick in place; a power failure leaves the old script or
the new one. Addresses and VLAN of a medium stay as they are. "everboot image report" shows who has which version.

A device's own version goes before its collection's.`,
		Example: "  everboot image rollout --device t1\n  everboot image rollout --collection lab --server 198.18.0.10 --server boot.example.net\n  everboot image rollout --stop --device t1",
		RunE:    func(c *cobra.Command, _ []string) error { return f.run(c, api) },
	}
	flags := c.Flags()
	flags.StringArrayVar(&f.devices, "device", nil, "a device, by MAC or name; may be repeated")
	flags.StringArrayVar(&f.collections, "collection", nil, "a collection; may be repeated")
	flags.StringArrayVar(&f.servers, "server", nil, "a login server, HOST[:PORT]; may be repeated (default: those that the site has now)")
	flags.IntVar(&f.version, "version", 0, "the version's number (default: that which these login servers have already, or the next)")
	flags.BoolVar(&f.stop, "stop", false, "leave the media as they are from now on")
	flags.BoolVar(&f.asJSON, "json", false, "print JSON")
	_ = c.RegisterFlagCompletionFunc("device", complete(api, devices))
	_ = c.RegisterFlagCompletionFunc("collection", complete(api, collections))
	return c
}

func (f *rolloutFlags) run(c *cobra.Command, api *apiFlags) error {
	switch {
	case len(f.devices)+len(f.collections) == 0:
		return usageError{errors.New("name whose media: --device or --collection")}
	case f.stop && (len(f.servers) > 0 || f.version != 0):
		return usageError{errors.New("--stop leaves the media as they are: --server and --version do not go with it")}
	}
	client, s, err := api.site(c.Context())
	if err != nil {
		return err
	}
	r := rollout{Medium: f.medium(s.View)}
	if err := r.Medium.Check(); err != nil {
		return usageError{err}
	}
	if err := f.find(s.View, &r); err != nil {
		return usageError{err}
	}
	if err := r.put(c, client, s.View); err != nil {
		return err
	}
	if f.asJSON {
		return printJSON(c.OutOrStdout(), r)
	}
	return r.print(c.OutOrStdout())
}

// medium is what the flags want.
func (f *rolloutFlags) medium(v *site.View) site.Medium {
	if f.stop {
		return site.Medium{}
	}
	m := site.Medium{Version: f.version, Servers: f.servers}
	if len(m.Servers) == 0 {
		m.Servers = v.LoginServers()
	}
	if m.Version == 0 {
		m.Version = site.MediumVersion(v, m.Servers)
	}
	return m
}

// find looks all up before any is changed.
func (f *rolloutFlags) find(v *site.View, r *rollout) error {
	for _, typed := range f.devices {
		key, err := deviceObject.key(v, typed)
		if err != nil {
			return err
		}
		mac, err := site.ParseMAC(key)
		if _, known := v.Devices[mac]; err != nil || !known {
			return fmt.Errorf("--device %q: the site knows no such device", typed)
		}
		if !slices.Contains(r.Devices, mac) {
			r.Devices = append(r.Devices, mac)
		}
	}
	for _, name := range f.collections {
		if _, known := v.Collections[name]; !known {
			return fmt.Errorf("--collection %q: the site knows no such collection", name)
		}
		if !slices.Contains(r.Collections, name) {
			r.Collections = append(r.Collections, name)
		}
	}
	return nil
}

// put tells the site; an error says whom it was not told for, and what was done before.
func (r *rollout) put(c *cobra.Command, client web.Client, v *site.View) error {
	done := 0
	wrap := func(err error) error {
		if err != nil && done > 0 {
			return fmt.Errorf("%w; %d before it have it", err, done)
		}
		done++
		return err
	}
	p := newProgress(c.ErrOrStderr(), "told", len(r.Devices)+len(r.Collections))
	for i, mac := range r.Devices {
		d := v.Devices[mac]
		d.Medium = r.Medium
		client.More = i < len(r.Devices)-1
		if err := wrap(client.Put(c.Context(), site.KindDevice, mac.String(), d)); err != nil {
			return err
		}
		p.another()
	}
	for i, name := range r.Collections {
		k := v.Collections[name]
		k.Medium = r.Medium
		client.More = i < len(r.Collections)-1
		if err := wrap(client.Put(c.Context(), site.KindCollection, name, k)); err != nil {
			return err
		}
		p.another()
	}
	return nil
}

func (r *rollout) print(w io.Writer) error {
	who := fmt.Sprintf("%d devices and %d collections", len(r.Devices), len(r.Collections))
	if r.Medium.Version == 0 {
		_, err := fmt.Fprintf(w, "the boot media of %s are left as they are from now on\n", who)
		return err
	}
	_, err := fmt.Fprintf(w, "the boot media of %s become version %d, which asks %v\n", who, r.Medium.Version, r.Medium.Servers)
	return err
}

func reportCommand(api *apiFlags) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "report", Short: "Show which version of its boot medium each target has", Args: noArgs,
		Long: `Show which version of its boot medium each target has, and which it shall have: of every device that has told an appliance since it started, and of every one that
shall have another version. STATE is current, behind (it is told when it asks, every two minutes), failed (and why: read-only, mounted, in-use, https: it has no other login servers, unreachable: none of the new login servers
answers it, write), silent
(it is off, or its image has no unit for it: docs/target.md), or kept (nobody wants another version).`,
		RunE: func(c *cobra.Command, _ []string) error {
			_, s, err := api.site(c.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(c.OutOrStdout(), append([]web.MediumReport{}, s.Media...))
			}
			return printMedia(c.OutOrStdout(), s.Media, s.Now)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func printMedia(w io.Writer, list []web.MediumReport, now time.Time) error {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, "TARGET\tMAC\tCOLLECTION\tMEDIUM\tHAS\tWANTS\tSTATE\tHEARD OF")
	count := map[web.MediumState]int{}
	for _, m := range list {
		count[m.State]++
		heard := "never"
		if !m.At.IsZero() {
			heard = now.Sub(m.At).Round(time.Second).String() + " ago"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s%s\t%s\n", dash(m.Device), m.MAC, dash(m.Collection), dash(m.Medium), mediumVersion(m.Has), mediumVersion(m.Wants), m.State, prefixed(": ", m.Problem), heard)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "%d current, %d behind, %d failed, %d silent, %d kept\n",
		count[web.MediumCurrent], count[web.MediumBehind], count[web.MediumFailed], count[web.MediumSilent], count[web.MediumKept])
	return err
}

func dash(text string) string { return cmp.Or(text, "-") }

func mediumVersion(n int) string {
	if n == 0 {
		return "-"
	}
	return fmt.Sprint(n)
}
