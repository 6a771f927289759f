package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"everboot/image"
)

// diskCommand makes a boot medium as a disk image, or as a partition of a disk that has others.
func diskCommand(api *apiFlags) *cobra.Command {
	var p partitionFlags
	c := mediumCommand(&p.mediumFlags, api, "disk", "Make a boot medium, as a disk image or as a partition of a disk")
	c.Long += `

With --partition it becomes a partition of 8 MiB on the disk, or in the disk image, that --device names: in a free gap, or in the place of a boot
partition that is there already. Nothing else on that disk is written. UEFI starts it by itself; on BIOS the boot loader of the disk must start its
/ipxe.lkrn with /autoexec.ipxe as the initrd.`
	c.Example += "\n  everboot image disk --partition --device /dev/sdb --dry-run"
	file := c.RunE
	c.Flags().BoolVar(&p.partition, "partition", false, "make a partition on --device instead of a file")
	c.Flags().StringVar(&p.device, "device", "", "the disk or disk image that gets the partition")
	c.Flags().BoolVar(&p.dryRun, "dry-run", false, "say what would be done to the device, and do nothing")
	c.Flags().BoolVar(&p.yes, "yes", false, "do not ask before the device is written")
	c.RunE = func(c *cobra.Command, args []string) error {
		if !p.partition && p.device == "" && !p.dryRun && !p.yes {
			return file(c, args)
		}
		return p.run(c, api)
	}
	return c
}

// partitionFlags say which disk gets a boot partition.
type partitionFlags struct {
	mediumFlags
	partition, dryRun, yes bool
	device                 string
}

func (p *partitionFlags) run(c *cobra.Command, api *apiFlags) error {
	switch {
	case !p.partition || p.device == "":
		return usageError{errors.New("--partition and --device DISK belong together, and --dry-run and --yes to them; for a whole medium use --output FILE")}
	case p.output != "":
		return usageError{errors.New("use either --output FILE or --partition --device DISK")}
	}
	config, err := p.config(c.Context(), api)
	if err != nil {
		return err
	}
	d, err := image.OpenDevice(p.device)
	if err != nil {
		return err
	}
	defer d.Close()
	plan, err := image.PlanPartition(d, d.Size)
	if err != nil {
		return fmt.Errorf("%s is left as it is: %w", p.device, err)
	}
	fmt.Fprintf(c.OutOrStdout(), "%s: %s\n", p.device, plan)
	if p.dryRun {
		return nil
	}
	if !p.yes {
		if err := confirm(c.InOrStdin(), c.OutOrStdout()); err != nil {
			return fmt.Errorf("%s is left as it is: %w", p.device, err)
		}
	}
	if err := plan.Write(d, config); err != nil {
		return fmt.Errorf("%s: %w", p.device, err)
	}
	return d.Reread()
}

// confirm asks; anything but yes is no.
func confirm(in io.Reader, out io.Writer) error {
	fmt.Fprint(out, "Type yes to do that: ")
	answer, err := bufio.NewReader(io.LimitReader(in, 100)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("reading the answer: %w", err)
	}
	if strings.TrimSpace(answer) != "yes" {
		return errors.New("the answer was not yes (a script says --yes)")
	}
	return nil
}
