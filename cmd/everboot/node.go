package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"everboot/image"
)

func nodeImageCommand() *cobra.Command {
	var c image.NodeConfig
	var user string
	size := "8G"
	cmd := &cobra.Command{
		Use: "appliance --output FILE --package FILE", Short: "Make the disk of a virtual machine that becomes an appliance or a streamer", Args: noArgs,
		Long: `Make the disk of a virtual machine (amd64; BIOS and UEFI) with Debian, everboot's package and a firewall. Its first boot takes what it shall be
from a config drive (cloud-init's NoCloud), or asks on its console. It has no keys, no name and no password: all of that is made at its first boot.

It needs mmdebstrap, e2fsprogs, and for --qcow2 qemu-utils; root, or a user with subordinate ids (package uidmap). It takes some minutes.
SOURCE_DATE_EPOCH sets the dates in it.`,
		Example: "  everboot image appliance --package build/everboot_*_amd64.deb --output appliance.raw --qcow2 appliance.qcow2",
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if c.Size, err = parseSize(size); err != nil {
				return usageError{err}
			}
			if c.Date, err = sourceDate(); err != nil {
				return usageError{err}
			}
			if user != "" {
				name, path, _ := strings.Cut(user, "=")
				text, err := os.ReadFile(path)
				if err != nil {
					return usageError{fmt.Errorf("--user %q: use NAME=FILE: %w", user, err)}
				}
				c.User, c.Key = name, strings.TrimSpace(string(text))
			}
			if err := c.Validate(); err != nil {
				return usageError{err}
			}
			c.Progress = func(line string) { fmt.Fprintln(cmd.ErrOrStderr(), line) }
			return image.BuildNode(cmd.Context(), c)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&c.Output, "output", "", "raw disk image to write, or to replace as a whole")
	flags.StringVar(&c.Compact, "qcow2", "", "file for the same as qcow2, compressed")
	flags.StringVar(&c.Package, "package", "", "everboot's Debian package for amd64 (make deb)")
	flags.StringVar(&c.Suite, "suite", image.DefaultSuite, "Debian release")
	flags.StringVar(&c.Mirror, "mirror", "", "where packages come from (default: the mirror that this machine's apt uses)")
	flags.StringArrayVar(&c.Packages, "add", nil, "a Debian package to add; may be repeated")
	flags.StringVar(&c.Consul, "consul", "", "a Consul binary to put in, with a unit that waits for /etc/consul.d/*.hcl")
	flags.StringVar(&user, "user", "", "NAME=FILE, a user who logs in over ssh with the public key in that file, and may do all")
	flags.StringVar(&size, "size", size, "size of the disk, such as 8G; the file is sparse")
	for _, name := range []string{"output", "qcow2", "consul"} {
		_ = cmd.MarkFlagFilename(name)
	}
	_ = cmd.MarkFlagFilename("package", "deb")
	return cmd
}

// parseSize reads a size such as 8G or 8192M.
func parseSize(text string) (int64, error) {
	for suffix, unit := range map[string]int64{"M": 1 << 20, "G": 1 << 30} {
		if number, ok := strings.CutSuffix(text, suffix); ok {
			n, err := strconv.ParseInt(number, 10, 32)
			if err == nil && n > 0 {
				return n * unit, nil
			}
		}
	}
	return 0, fmt.Errorf("size %q: use something like 8G or 8192M", text)
}
