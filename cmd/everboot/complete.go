package main

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"everboot/site"
)

// completionTime is how long a person who presses Tab waits for an appliance that does not answer.
const completionTime = 2 * time.Second

// namesOf returns what of the site could stand at a place of the command line, with a description each (cobra.CompletionWithDesc) or none.
type namesOf func(*site.View) []cobra.Completion

// complete asks the appliance for the names.
func complete(api *apiFlags, names namesOf) cobra.CompletionFunc {
	return ask(func(ctx context.Context) ([]cobra.Completion, error) {
		_, s, err := api.site(ctx)
		if err != nil {
			return nil, err
		}
		return names(s.View), nil
	})
}

// completeLeases asks it for the addresses that somebody has.
func completeLeases(api *apiFlags) cobra.CompletionFunc {
	return once(ask(func(ctx context.Context) ([]cobra.Completion, error) {
		client, err := api.client()
		if err != nil {
			return nil, err
		}
		leases, err := client.Leases(ctx)
		var list []cobra.Completion
		for _, l := range leases {
			if l.Computed { // there is nothing to free
				continue
			}
			list = append(list, cobra.CompletionWithDesc(l.Address.String(), cmp.Or(l.Device, l.Name, l.MAC.String())))
		}
		return list, err
	}))
}

// ask completes with what an appliance answers. One that cannot be asked completes nothing: the command itself says why.
func ask(names func(context.Context) ([]cobra.Completion, error)) cobra.CompletionFunc {
	return func(c *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(cmp.Or(c.Context(), context.Background()), completionTime)
		defer cancel()
		list, err := names(ctx)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		slices.Sort(list)
		return list, cobra.ShellCompDirectiveNoFileComp
	}
}

// once completes a command's one argument, and nothing after it.
func once(first cobra.CompletionFunc) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return first(c, args, typed)
	}
}

// macs are the site's devices by MAC, described by their names.
func macs(v *site.View) []cobra.Completion {
	var list []cobra.Completion
	for mac, d := range v.Devices {
		list = append(list, cobra.CompletionWithDesc(mac.String(), cmp.Or(d.Name, "a device without a name")))
	}
	return list
}

// devices are the site's devices by name, and by MAC where they have none.
func devices(v *site.View) []cobra.Completion {
	var list []cobra.Completion
	for mac, d := range v.Devices {
		list = append(list, cobra.CompletionWithDesc(cmp.Or(d.Name, mac.String()), "boots "+cmp.Or(d.VDisk, "what its collection says")))
	}
	return list
}

func streamers(v *site.View) []cobra.Completion {
	var list []cobra.Completion
	for name, s := range v.Streamers {
		list = append(list, cobra.CompletionWithDesc(name, string(s.State)))
	}
	return list
}

func collections(v *site.View) []cobra.Completion { return keys(v.Collections) }
func vdisks(v *site.View) []cobra.Completion      { return keys(v.VDisks) }

func keys[T any](m map[string]T) []cobra.Completion {
	var list []cobra.Completion
	for name := range m {
		list = append(list, name)
	}
	return list
}

// fixed are words that do not depend on the site.
func fixed(words ...string) namesOf {
	return func(*site.View) []cobra.Completion { return words }
}
