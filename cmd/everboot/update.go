package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"everboot/image"
)

func updateCommand(f *mediumFlags, api *apiFlags) *cobra.Command {
	c := &cobra.Command{
		Use: "update FILE", Short: "Give a boot medium other login servers, in place",
		Long: `Give a boot medium another script, in place: an image, a USB stick (/dev/sdX) or a boot partition (/dev/sdX4). What is not said by a flag is
as for a new medium, not as it was. Nothing but the script is written, and nothing at all if it is the same.`,
		Example: "  everboot image update boot.img --server 198.18.0.10 --server 198.18.0.2",
		Args:    exactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			program, err := f.program(c.Context(), api)
			if err != nil {
				return err
			}
			changed, err := updateMedium(args[0], program)
			if err != nil {
				return err
			}
			word := "is as it was"
			if changed {
				word = "has its new script"
			}
			fmt.Fprintf(c.OutOrStdout(), "%s %s\n", args[0], word)
			return nil
		},
	}
	f.addBoot(c, api)
	return c
}

func updateMedium(path string, p image.Program) (changed bool, err error) {
	disk, err := image.OpenDevice(path)
	if err != nil {
		return false, err
	}
	defer disk.Close()
	// A stick is longer than the medium on it, which begins where it begins; what else is on a disk is not searched.
	if changed, err = image.UpdateMedium(disk, min(disk.Size, image.MediumSize), p); err != nil {
		return changed, fmt.Errorf("%s: %w", path, err)
	}
	return changed, nil
}
