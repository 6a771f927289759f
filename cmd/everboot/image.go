package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"everboot/image"
	"everboot/site"
)

func imageCommand(api *apiFlags) *cobra.Command {
	c := &cobra.Command{
		Use: "image", Short: "Make and update boot media, for targets whose DHCP and TFTP are somebody else's", Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(mediumCommand(&mediumFlags{}, api, "iso", "Make a boot medium, as a CD image"), diskCommand(api), updateCommand(&mediumFlags{}, api), rolloutCommand(api), reportCommand(api), nodeImageCommand())
	return c
}

const mediumHelp = `Make a boot medium: one image of 8 MiB that starts as CD, as disk and as USB stick, on BIOS and on UEFI. It asks the login
servers for the target's own script, in order, 2 s each, again and again, and needs neither DHCP options nor TFTP. It need not be
made again when streamers or appliances come and go: what it asks answers with what is true then.

It consists of files of Debian's packages isolinux, syslinux-common and ipxe (of Debian 13), which must be on this machine or be named with
--files. Equal input gives equal bytes; SOURCE_DATE_EPOCH sets the date in it.`

// mediumFlags say what a boot medium does.
type mediumFlags struct {
	output, address, dns, mac, keyFile, caFile string
	files                                      []string
	boot                                       site.Bootstrap
}

func (f *mediumFlags) add(c *cobra.Command, api *apiFlags) {
	f.addBoot(c, api)
	flags := c.Flags()
	flags.StringVar(&f.caFile, "ca-file", "", "certificate (PEM) of the authority that UEFI machines trust for https:// login servers, in place of iPXE's own")
	flags.StringArrayVar(&f.files, "files", nil, "a folder to take isolinux.bin, isohdpfx.bin, ldlinux.c32, ipxe.lkrn and ipxe.efi from first; may be repeated")
}

// addBoot adds the flags that say what stands in the script.
func (f *mediumFlags) addBoot(c *cobra.Command, api *apiFlags) {
	flags := c.Flags()
	flags.StringArrayVar(&f.boot.Hosts, "server", nil, "a login server, HOST[:PORT], may be repeated: the VIP, each appliance's own address, a DNS name (default: ask the appliance)")
	flags.StringVar(&f.address, "address", "dhcp", "the target's address: dhcp, or IP/BITS[,GATEWAY]")
	flags.StringVar(&f.dns, "dns", "", "the DNS server that goes with a fixed address")
	flags.IntVar(&f.boot.VLAN, "vlan", 0, "the VLAN to boot in, 1 to 4094 (default: untagged)")
	flags.StringVar(&f.mac, "mac", "", "make it for the target with this MAC alone (default: for all; each is known by its MAC)")
	flags.StringVar(&f.boot.Collection, "collection", "", "make it for a collection: it asks the login servers that its media shall ask, and a machine that nobody knows becomes a device of it, if it takes strangers in")
	_ = c.RegisterFlagCompletionFunc("collection", complete(api, collections))
	flags.StringVar(&f.boot.Site, "site", "", "the site; another site's appliance does not answer (default: the one of the appliance that is asked)")
	flags.StringVar(&f.keyFile, "key-file", "", "file with the key by which the appliances know their own media (http.media_key)")
}

func mediumCommand(f *mediumFlags, api *apiFlags, name, short string) *cobra.Command {
	c := &cobra.Command{
		Use: name + " --output FILE", Short: short, Long: mediumHelp, Args: noArgs,
		Example: fmt.Sprintf("  everboot image %s --output boot.img\n  everboot image %s --output t1.img --server 198.18.0.10 --server boot.example.net --address 198.18.0.51/24,198.18.0.1 --mac 52:54:00:00:00:01", name, name),
		RunE: func(c *cobra.Command, _ []string) error {
			if f.output == "" {
				return usageError{errors.New("--output is missing: name the file to write")}
			}
			medium, err := f.medium(c.Context(), api)
			if err != nil {
				return err
			}
			return image.WriteFile(f.output, medium)
		},
	}
	c.Flags().StringVar(&f.output, "output", "", "file to write, or to replace as a whole")
	f.add(c, api)
	return c
}

// medium makes what the flags say.
func (f *mediumFlags) medium(ctx context.Context, api *apiFlags) (*image.Medium, error) {
	c, err := f.config(ctx, api)
	if err != nil {
		return nil, err
	}
	return image.NewMedium(c)
}

// config is what goes into a medium by the flags.
func (f *mediumFlags) config(ctx context.Context, api *apiFlags) (image.MediumConfig, error) {
	program, err := f.program(ctx, api)
	if err != nil {
		return image.MediumConfig{}, err
	}
	loaders, err := image.FindLoaders(f.files)
	if err != nil {
		return image.MediumConfig{}, err
	}
	if f.caFile != "" {
		if err := f.trust(&loaders); err != nil {
			return image.MediumConfig{}, fmt.Errorf("--ca-file: %w", err)
		}
	}
	date, err := sourceDate()
	if err != nil {
		return image.MediumConfig{}, usageError{err}
	}
	return image.MediumConfig{Program: program, Loaders: loaders, Time: date}, nil
}

// program is what the medium does by the flags.
func (f *mediumFlags) program(ctx context.Context, api *apiFlags) (image.Program, error) {
	if err := f.parse(); err != nil {
		return image.Program{}, usageError{err}
	}
	if len(f.boot.Hosts) == 0 {
		_, s, err := api.site(ctx)
		if err != nil {
			return image.Program{}, fmt.Errorf("%w; or name the login servers with --server", err)
		}
		if name := f.boot.Collection; name != "" && s.View.Collections[name].Name == "" {
			return image.Program{}, usageError{fmt.Errorf("--collection %s: there is no such collection; `everboot collection list` shows them", name)}
		}
		m := site.MediumMade(s.View, f.boot.MAC, f.boot.Collection)
		f.boot.Version, f.boot.Hosts = m.Version, m.Servers
		f.boot.Site = cmp.Or(f.boot.Site, s.View.Site)
	}
	return image.Program{Script: f.boot.Script(), About: f.boot.About()}, nil
}

// trust puts the authority of --ca-file into iPXE for UEFI.
func (f *mediumFlags) trust(loaders *image.Loaders) error {
	text, err := os.ReadFile(f.caFile)
	if err != nil {
		return err
	}
	return loaders.Trust(text)
}

// parse reads the flags that are more than a word.
func (f *mediumFlags) parse() (err error) {
	if f.address != "dhcp" {
		address, gateway, more := strings.Cut(f.address, ",")
		if f.boot.Address, err = netip.ParsePrefix(address); err != nil {
			return fmt.Errorf("--address %q: use dhcp, or an address with its prefix length such as 198.18.0.51/24", f.address)
		}
		if more {
			if f.boot.Gateway, err = netip.ParseAddr(gateway); err != nil {
				return fmt.Errorf("--address %q: %q is no address of a gateway", f.address, gateway)
			}
		}
	}
	if f.dns != "" {
		if f.boot.DNS, err = netip.ParseAddr(f.dns); err != nil {
			return fmt.Errorf("--dns %q: use an address", f.dns)
		}
	}
	if f.mac != "" {
		if f.boot.MAC, err = site.ParseMAC(f.mac); err != nil {
			return fmt.Errorf("--mac: %w", err)
		}
	}
	if f.keyFile != "" {
		text, err := os.ReadFile(f.keyFile)
		if err != nil {
			return fmt.Errorf("--key-file: %w", err)
		}
		f.boot.Key = strings.TrimSpace(string(text))
	}
	return f.boot.Check()
}

// sourceDate is the date that stands in what is made (reproducible-builds.org's SOURCE_DATE_EPOCH), or zero.
func sourceDate() (time.Time, error) {
	text := os.Getenv("SOURCE_DATE_EPOCH")
	if text == "" {
		return time.Time{}, nil
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil || seconds < 0 || seconds > 4102444800 { // 2100, where the year no longer fits
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH=%q: use the seconds since 1970", text)
	}
	return time.Unix(seconds, 0), nil
}
