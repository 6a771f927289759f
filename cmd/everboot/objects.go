package main

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"everboot/appliance/web"
	"everboot/site"
)

// field is a flag of set: its name, what it says, and what it may name.
type field struct {
	name, usage string
	values      namesOf // nil: free text
}

// object is a kind of thing that the registry holds, as the command line shows and changes it.
type object struct {
	noun   string
	keyUse string
	fields []field // flags of set
	list   func(v *site.View) (header []string, rows [][]string)
	// key returns the registry's key of what a person typed.
	key  func(v *site.View, typed string) (string, error)
	kind site.Kind
	// set returns the object with the flags given (by name) applied to what the view has.
	set func(v *site.View, key string, given map[string]string) (any, error)
	raw func(v *site.View) any
	// names are those of the kind, for completion.
	names namesOf
}

// find returns the client, the site, and the registry's key of what a person typed.
func (o object) find(ctx context.Context, api *apiFlags, typed string) (web.Client, web.Status, string, error) {
	client, s, err := api.site(ctx)
	if err != nil {
		return client, s, "", err
	}
	key, err := o.key(s.View, typed)
	if err != nil {
		return client, s, "", usageError{err}
	}
	return client, s, key, nil
}

func objectCommand(api *apiFlags, o object) *cobra.Command {
	c := &cobra.Command{Use: o.noun, Short: fmt.Sprintf("List, set and remove the site's %ss", o.noun), Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() }}
	c.AddCommand(listCommand(api, o), setCommand(api, o), removeCommand(api, o))
	if o.kind == site.KindDevice {
		c.AddCommand(importCommand(api), exportCommand(api))
	}
	return c
}

func listCommand(api *apiFlags, o object) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{Use: "list", Short: "List them", Args: noArgs, RunE: func(c *cobra.Command, _ []string) error {
		_, s, err := api.site(c.Context())
		if err != nil {
			return err
		}
		if asJSON {
			return printJSON(c.OutOrStdout(), o.raw(s.View))
		}
		header, rows := o.list(s.View)
		t := tabwriter.NewWriter(c.OutOrStdout(), 0, 4, 2, ' ', 0)
		for _, row := range append([][]string{header}, rows...) {
			for i, cell := range row {
				if i > 0 {
					fmt.Fprint(t, "\t")
				}
				fmt.Fprint(t, cell)
			}
			fmt.Fprintln(t)
		}
		return t.Flush()
	}}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func setCommand(api *apiFlags, o object) *cobra.Command {
	c := &cobra.Command{Use: "set " + o.keyUse, Short: "Add one, or change what the flags name", Args: exactArgs(1), ValidArgsFunction: once(complete(api, o.names))}
	for _, f := range o.fields {
		c.Flags().String(f.name, "", f.usage)
		if f.values != nil {
			_ = c.RegisterFlagCompletionFunc(f.name, complete(api, f.values))
		}
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		client, s, key, err := o.find(c.Context(), api, args[0])
		if err != nil {
			return err
		}
		given := map[string]string{}
		for _, f := range o.fields {
			if c.Flags().Changed(f.name) {
				given[f.name], _ = c.Flags().GetString(f.name)
			}
		}
		value, err := o.set(s.View, key, given)
		if err != nil {
			return usageError{err}
		}
		return client.Put(c.Context(), o.kind, key, value)
	}
	return c
}

func removeCommand(api *apiFlags, o object) *cobra.Command {
	return &cobra.Command{Use: "remove " + o.keyUse, Short: "Remove one", Args: exactArgs(1), ValidArgsFunction: once(complete(api, o.names)), RunE: func(c *cobra.Command, args []string) error {
		client, _, key, err := o.find(c.Context(), api, args[0])
		if err != nil {
			return err
		}
		return client.Delete(c.Context(), o.kind, key)
	}}
}

var deviceObject = object{
	noun: "device", keyUse: "MAC|NAME", kind: site.KindDevice,
	fields: []field{
		{"name", "what people call it", nil}, {"address", "the IPv4 address reserved for it; empty: one from the pool", nil},
		{"address6", "the same over IPv6", nil},
		{"client-id", "a DHCP client identifier that has the reservation whatever its MAC, in hexadecimal; empty: none", nil},
		{"collection", "whose settings it takes where it has none", collections}, {"vdisk", "the vDisk it boots", vdisks}, {"version", "a number, or newest", nil},
	},
	names: devices,
	raw:   func(v *site.View) any { return v.SortedDevices() },
	key: func(v *site.View, typed string) (string, error) {
		for _, d := range v.Devices {
			if d.Name != "" && d.Name == typed {
				return d.MAC.String(), nil
			}
		}
		mac, err := site.ParseMAC(typed)
		return mac.String(), err
	},
	list: func(v *site.View) ([]string, [][]string) {
		var rows [][]string
		for _, d := range v.SortedDevices() {
			var addresses []string
			for _, a := range []netip.Addr{d.Address, d.Address6} {
				if a.IsValid() {
					addresses = append(addresses, a.String())
				}
			}
			rows = append(rows, []string{d.MAC.String(), d.Name, strings.Join(addresses, " "), d.Collection, d.VDisk, versionText(d.Version)})
		}
		return []string{"MAC", "NAME", "ADDRESS", "COLLECTION", "VDISK", "VERSION"}, rows
	},
	set: func(v *site.View, key string, given map[string]string) (any, error) {
		mac, err := site.ParseMAC(key)
		if err != nil {
			return nil, err
		}
		d := v.Devices[mac]
		d.MAC = mac
		for field, text := range given {
			switch field {
			case "name":
				d.Name = text
			case "collection":
				d.Collection = text
			case "client-id":
				d.ClientID, err = site.ParseClientID(text)
			case "vdisk":
				d.VDisk = text
			case "version":
				d.Version, err = parseVersion(text)
			case "address":
				d.Address, err = parseAddress(text)
			case "address6":
				d.Address6, err = parseAddress(text)
			}
			if err != nil {
				return nil, fmt.Errorf("--%s: %w", field, err)
			}
		}
		return d, d.Check()
	},
}

var collectionObject = object{
	noun: "collection", keyUse: "NAME", kind: site.KindCollection,
	fields: []field{
		{"vdisk", "the vDisk its devices boot", vdisks}, {"version", "a number, or newest", nil},
		{"auto-add", "true: machines that nobody knows become its devices when they ask where to boot from", fixed("true", "false")},
	},
	names: collections,
	raw:   func(v *site.View) any { return v.Collections },
	key:   func(_ *site.View, typed string) (string, error) { return typed, site.CheckName("collection", typed) },
	list: func(v *site.View) ([]string, [][]string) {
		var rows [][]string
		for _, c := range v.Collections {
			rows = append(rows, []string{c.Name, c.VDisk, versionText(c.Version), strconv.FormatBool(c.AutoAdd)})
		}
		slices.SortFunc(rows, slices.Compare)
		return []string{"NAME", "VDISK", "VERSION", "AUTO-ADD"}, rows
	},
	set: func(v *site.View, key string, given map[string]string) (any, error) {
		c := v.Collections[key]
		c.Name = key
		if text, ok := given["vdisk"]; ok {
			c.VDisk = text
		}
		var err error
		if text, ok := given["auto-add"]; ok {
			if c.AutoAdd, err = strconv.ParseBool(text); err != nil {
				return c, fmt.Errorf("--auto-add %q: use true or false", text)
			}
		}
		if text, ok := given["version"]; ok {
			c.Version, err = parseVersion(text)
		}
		return c, err
	},
}

var vdiskObject = object{
	noun: "vdisk", keyUse: "NAME", kind: site.KindVDisk,
	fields: []field{
		{"kernel", "path of the kernel below the boot root; empty: the vDisk's own boot loader", nil}, {"initrd", "path of the initramfs below the boot root", nil},
		{"cmdline", "what to add to the kernel's command line", nil}, {"pin", "NUMBER=DIGEST of a version", nil},
		{"affinity", "best-effort or fixed: streamers with a NIC in the target's subnet come first, or alone; empty: any", fixed("best-effort", "fixed")},
		{"server", "the one streamer that serves it: no load balancing and no failover; empty: any", streamers},
	},
	names: vdisks,
	raw:   func(v *site.View) any { return v.VDisks },
	key:   func(_ *site.View, typed string) (string, error) { return typed, site.CheckName("vDisk", typed) },
	list: func(v *site.View) ([]string, [][]string) {
		var rows [][]string
		for _, d := range v.VDisks {
			for _, ver := range d.Versions {
				how := "pinned"
				if ver.Adopted {
					how = "adopted"
				}
				rows = append(rows, []string{d.Name, strconv.Itoa(ver.Number), string(ver.Digest), how})
			}
		}
		slices.SortFunc(rows, slices.Compare)
		return []string{"NAME", "VERSION", "DIGEST", "HOW"}, rows
	},
	set: func(v *site.View, key string, given map[string]string) (any, error) {
		d := v.VDisks[key]
		d.Name = key
		d.Versions = slices.DeleteFunc(slices.Clone(d.Versions), func(ver site.Version) bool { return ver.Adopted })
		for field, text := range given {
			switch field {
			case "kernel":
				d.Kernel = text
			case "initrd":
				d.Initrd = text
			case "cmdline":
				d.Cmdline = text
			case "affinity":
				d.Affinity = site.Affinity(text)
			case "server":
				d.Server = text
			case "pin":
				versions, err := pin(d.Versions, text)
				if err != nil {
					return nil, fmt.Errorf("--pin: %w", err)
				}
				d.Versions = versions
			}
		}
		return d, d.Check()
	},
}

func versionText(n int) string {
	if n == 0 {
		return "newest"
	}
	return strconv.Itoa(n)
}

// parseAddress reads an address; an empty text is none.
func parseAddress(text string) (netip.Addr, error) {
	if text == "" {
		return netip.Addr{}, nil
	}
	return netip.ParseAddr(text)
}

func parseVersion(text string) (int, error) {
	if text == "newest" || text == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		return 0, fmt.Errorf("version %q: use 1 or more, or newest", text)
	}
	return n, nil
}
