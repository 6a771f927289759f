package main

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"everboot/image"
	"everboot/site"
)

func vdiskCommand(api *apiFlags) *cobra.Command {
	c := objectCommand(api, vdiskObject)
	c.Short = "Build vDisks; list, set and remove the site's"
	c.AddCommand(vdiskBuildCommand())
	set, _, _ := c.Find([]string{"set"})
	set.Example = "  everboot vdisk set debian --kernel debian/vmlinuz --initrd debian/initrd.img\n  everboot vdisk set debian --pin 1=DIGEST"
	return c
}

func vdiskBuildCommand() *cobra.Command {
	var c image.VDiskConfig
	cmd := &cobra.Command{
		Use: "build --output FOLDER", Short: "Build a minimal Debian vDisk that survives the death of its streamer", Args: noArgs,
		Long: `Build a minimal Debian vDisk with mmdebstrap: a folder with disk.raw (the replica for every streamer), vmlinuz and
initrd.img (for the appliances' boot folder). It takes a few minutes. Run it as root, or as a user with subordinate ids.`,
		Example: "  everboot vdisk build --output ./debian --package openssh-server",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if c.Output == "" {
				return usageError{errors.New("--output is missing: name the folder that gets disk.raw, vmlinuz and initrd.img")}
			}
			c.Progress = func(line string) { fmt.Fprintln(cmd.ErrOrStderr(), line) }
			if err := c.Validate(); err != nil {
				return usageError{err}
			}
			return image.BuildVDisk(cmd.Context(), c)
		},
	}
	cmd.Flags().StringVar(&c.Output, "output", "", "folder to make, or to replace as a whole")
	cmd.Flags().StringVar(&c.Suite, "suite", image.DefaultSuite, "Debian release")
	cmd.Flags().StringVar(&c.Mirror, "mirror", "", "where packages come from (default: the mirror that this machine's apt uses)")
	cmd.Flags().StringArrayVar(&c.Packages, "package", nil, "a Debian package to add; may be repeated")
	cmd.Flags().StringToStringVar(&c.Files, "file", nil, "PATH-IN-IMAGE=PATH-HERE, a file to add; may be repeated")
	cmd.Flags().StringArrayVar(&c.Units, "unit", nil, "a systemd unit to enable; may be repeated")
	cmd.Flags().BoolVar(&c.Demo, "console-root", false, "log root in on the serial console without a password: anybody at that console owns the target")
	return cmd
}

// pin returns the versions with NUMBER=DIGEST pinned.
func pin(versions []site.Version, text string) ([]site.Version, error) {
	number, digest, ok := strings.Cut(text, "=")
	n, err := parseVersion(number)
	if !ok || err != nil || n == 0 {
		return nil, fmt.Errorf("%q is not NUMBER=DIGEST", text)
	}
	d, err := site.ParseDigest(digest)
	if err != nil {
		return nil, err
	}
	kept := slices.DeleteFunc(slices.Clone(versions), func(v site.Version) bool { return v.Number == n })
	kept = append(kept, site.Version{Number: n, Digest: d})
	slices.SortFunc(kept, func(a, b site.Version) int { return cmp.Compare(a.Number, b.Number) })
	return kept, nil
}
