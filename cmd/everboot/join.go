package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"everboot/appliance/join"
)

// nodeFlags are what is a node's own.
type nodeFlags struct {
	join.Node
	json bool
}

func (f *nodeFlags) add(c *cobra.Command, priority int) {
	host, _ := os.Hostname() // without one --node must be given
	host, _, _ = strings.Cut(host, ".")
	flags := c.Flags()
	flags.StringVar(&f.Name, "node", host, "this node's name")
	flags.StringVar(&f.Folder, "dir", filepath.Dir(defaultApplianceConfig), "folder of the configuration and its secrets")
	flags.StringVar(&f.State, "state", "/var/lib/everboot", "folder for the view, leases and the embedded registry")
	flags.IntVar(&f.Priority, "priority", priority, "this node's VRRP priority, 10 to 254")
	flags.BoolVar(&f.json, "json", false, "print JSON")
	_ = c.MarkFlagDirname("dir")
	_ = c.MarkFlagDirname("state")
}

// check looks at them before anything is asked or made. Folders are written down as they are from everywhere.
func (f *nodeFlags) check() error {
	if f.Priority < 10 || f.Priority > 254 {
		return fmt.Errorf("--priority %d: use 10 to 254", f.Priority)
	}
	for _, dir := range []*string{&f.Folder, &f.State} {
		whole, err := filepath.Abs(*dir)
		if err != nil {
			return err
		}
		*dir = whole
	}
	return nil
}

// inviteFlags say how long and where a node waits for another one.
type inviteFlags struct {
	valid   time.Duration
	port    uint16
	restart bool
}

func (f *inviteFlags) add(c *cobra.Command) {
	c.Flags().DurationVar(&f.valid, "valid", join.DefaultValid, "for how long the line is good")
	c.Flags().Uint16Var(&f.port, "port", join.DefaultPort, "TCP port to wait at")
	c.Flags().BoolVar(&f.restart, "restart", false, "when the node has joined, start an appliance that runs here as a service anew, so that it knows its peer; targets wait for some seconds")
}

func (f *inviteFlags) check() error {
	if f.valid < time.Second || f.valid > 24*time.Hour {
		return fmt.Errorf("--valid %s: use 1s to 24h", f.valid)
	}
	return nil
}

// initFlags are what init is told, as it stands on the command line.
type initFlags struct {
	site            join.Founding
	own             nodeFlags
	invite          inviteFlags
	vip, dns        []string
	network, router string
	alone           bool
}

func initCommand() *cobra.Command {
	var f initFlags
	c := &cobra.Command{
		Use: "init --interface NAME --vip ADDRESS/BITS", Short: "Make a site, with this node as its first appliance; wait for the second", Args: noArgs,
		Long: `Make a site whose first appliance is this node: appliance.toml, the key of the peers, the API's token, and an authority of its own
for HTTPS. Then it prints one line, and waits until another node is given it. Ctrl-C ends the waiting; the site stays, and everboot invite waits again.
An appliance that runs here by then knows its peer once it is started anew, which is left to you, or to --restart.`,
		Example: "  everboot init --site berlin --interface eth0 --vip 198.18.0.10/24 --subnet 198.18.0.0/24 --range 198.18.0.100-198.18.0.199 --router 198.18.0.1\n" +
			"  everboot init --interface eth0 --vip 198.18.0.10/24 --dhcp proxy --alone",
		RunE: func(c *cobra.Command, _ []string) error {
			if err := f.read(); err != nil {
				return usageError{err}
			}
			return f.found(c)
		},
	}
	f.add(c)
	return c
}

// read makes of the words what they mean, or says what to mend.
func (f *initFlags) read() error {
	s := &f.site
	err := errors.Join(f.own.check(), f.invite.check(), parseAll(&s.VIP, f.vip, netip.ParsePrefix, "--vip", "198.18.0.10/24"),
		parseAll(&s.DNS, f.dns, netip.ParseAddr, "--dns", "198.18.0.1"), parseOne(&s.Network, f.network, netip.ParsePrefix, "--subnet", "198.18.0.0/24"),
		parseOne(&s.Router, f.router, netip.ParseAddr, "--router", "198.18.0.1"))
	s.Node = f.own.Node
	switch {
	case err != nil:
		return err
	case s.Interface == "":
		return fmt.Errorf("--interface is missing: name the one that targets are on; this host has: %s", strings.Join(interfaces(), ", "))
	case len(s.VIP) == 0:
		return errors.New("--vip is missing: name the address that floats between the appliances, such as 198.18.0.10/24")
	case !s.Network.IsValid() && (s.Range != "" || f.router != "" || len(f.dns) > 0):
		return errors.New("--subnet is missing: --range, --router and --dns belong to it")
	}
	return nil
}

// found makes the site, and invites the second appliance.
func (f *initFlags) found(c *cobra.Command) error {
	files, err := join.Found(f.site, time.Now())
	if err != nil {
		return err
	}
	if !f.own.json {
		fmt.Fprintf(c.ErrOrStderr(), "made: %s\n", strings.Join(files, ", "))
		fmt.Fprintf(c.ErrOrStderr(), "next: everboot check --config %[1]s; systemctl enable --now everboot-appliance\n", files[0])
	}
	switch {
	case !f.alone:
		return runInvite(c, files[0], f.invite, f.own.json, files)
	case f.own.json:
		return printJSON(c.OutOrStdout(), struct {
			Files []string `json:"files"`
		}{files})
	}
	return nil
}

func (f *initFlags) add(c *cobra.Command) {
	f.own.add(c, join.FirstPriority)
	f.invite.add(c)
	flags := c.Flags()
	flags.StringVar(&f.own.Interface, "interface", "", "the interface that targets are on")
	flags.StringVar(&f.site.Site, "site", "default", "the site's name")
	flags.StringArrayVar(&f.vip, "vip", nil, "the floating address, with its prefix length; may be repeated")
	flags.IntVar(&f.site.VRID, "vrid", 0, "virtual router id, 1 to 255, nobody else's on this segment (default: 51)")
	flags.StringVar(&f.site.DHCP, "dhcp", "", "server, proxy or off (default: server with --subnet, else off)")
	flags.StringVar(&f.network, "subnet", "", "the network to serve DHCP in")
	flags.StringVar(&f.site.Range, "range", "", "its pool, FIRST-LAST (default: reservations only)")
	flags.StringVar(&f.router, "router", "", "the router that targets are told of")
	flags.StringArrayVar(&f.dns, "dns", nil, "a DNS server that targets are told of; may be repeated")
	flags.BoolVar(&f.alone, "alone", false, "print no line and do not wait")
	completeInterfaces(c)
	_ = c.RegisterFlagCompletionFunc("dhcp", cobra.FixedCompletions([]string{"server", "proxy", "off"}, cobra.ShellCompDirectiveNoFileComp))
}

func inviteCommand() *cobra.Command {
	var invite inviteFlags
	var path string
	var asJSON bool
	c := &cobra.Command{
		Use: "invite", Short: "Print a line that brings one more appliance into the site, and wait for it", Args: noArgs,
		Long: `Print a line for everboot join on one more node, and wait until that has joined. The line is good once, and for an hour. Whoever has it gets
all that the site keeps secret: hand it over as you would a password. The appliance that runs here knows its new peer once it is started anew: where
it is the only one, targets wait for some seconds, so that it is left to you to choose when, or to --restart.`,
		Example: "  everboot invite\n  everboot invite --valid 10m --restart",
		RunE: func(c *cobra.Command, _ []string) error {
			if err := invite.check(); err != nil {
				return usageError{err}
			}
			return runInvite(c, path, invite, asJSON, nil)
		},
	}
	invite.add(c)
	c.Flags().StringVar(&path, "config", defaultApplianceConfig, "this appliance's configuration")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON: the line at once, and who joined as a second value")
	_ = c.MarkFlagFilename("config", "toml")
	return c
}

// runInvite prints a line and waits.
func runInvite(c *cobra.Command, config string, f inviteFlags, asJSON bool, files []string) error {
	i, err := join.Invite(config, f.port, f.valid, time.Now())
	if err != nil {
		return err
	}
	out := c.OutOrStdout()
	if asJSON {
		err = printJSON(out, struct {
			Line    string    `json:"line"`
			Expires time.Time `json:"expires"`
			Files   []string  `json:"files,omitempty"`
		}{i.Line.String(), i.Expires, files})
	} else {
		fmt.Fprintf(c.ErrOrStderr(), "run this on the other node, once, until %s; whoever has it gets the site's secrets:\n", i.Expires.Format("15:04:05"))
		_, err = fmt.Fprintln(out, "everboot join", i.Line)
	}
	if err != nil {
		return errors.Join(err, i.Close())
	}
	joined, err := i.Wait(c.Context())
	if err != nil {
		return err
	}
	if asJSON {
		err = printJSON(out, struct {
			Joined join.Joined `json:"joined"`
		}{joined})
	} else {
		fmt.Fprintf(c.ErrOrStderr(), "%s joined from %s, and stands in peers.addresses now. If there are other appliances, add it there, too\n", joined.Node, joined.Address)
	}
	// The service reads the default one.
	return errors.Join(err, knowPeer(c.ErrOrStderr(), f.restart && config == defaultApplianceConfig, joined.Node))
}

func joinCommand() *cobra.Command {
	var own nodeFlags
	c := &cobra.Command{
		Use: "join LINE", Short: "Make this node one more appliance of the site whose first one printed the line", Args: exactArgs(1),
		Long: `Make this node an appliance of the site whose everboot init or everboot invite printed the line, and waits. It gets the site's configuration, keys and
token; its name, its addresses and its priority are its own. Give - to have the line read from standard input, where no list of processes shows it.`,
		Example: "  everboot join eb1.xhIAAiHc…\n  everboot join --node b --interface eth0 - <line",
		RunE: func(c *cobra.Command, args []string) error {
			text := args[0]
			if text == "-" {
				read, err := io.ReadAll(io.LimitReader(c.InOrStdin(), 4096))
				if err != nil {
					return fmt.Errorf("reading the line: %w", err)
				}
				text = string(read)
			}
			line, err := join.ParseLine(text)
			if err = errors.Join(err, own.check()); err != nil {
				return usageError{err}
			}
			e, err := join.Enter(c.Context(), line, own.Node, time.Now())
			if len(e.Files) == 0 {
				return err
			}
			if own.json {
				return errors.Join(err, printJSON(c.OutOrStdout(), e))
			}
			fmt.Fprintf(c.ErrOrStderr(), "made: %s\n", strings.Join(e.Files, ", "))
			fmt.Fprintf(c.OutOrStdout(), "%s is an appliance of site %s now\n", e.Node, e.Site)
			fmt.Fprintf(c.ErrOrStderr(), "next: copy the boot folder of %s, if you put files there; everboot check --config %s; systemctl enable --now everboot-appliance\n", e.By, e.Files[0])
			return err
		},
	}
	own.add(c, join.NextPriority)
	c.Flags().StringVar(&own.Interface, "interface", "", "the interface that targets are on (default: the one that leads to the other node)")
	completeInterfaces(c)
	return c
}

// knowPeer has an appliance that runs here under systemd read its new peer, or says how to.
func knowPeer(said io.Writer, restart bool, peer string) error {
	const unit = "everboot-appliance.service"
	if _, err := os.Stat("/run/systemd/system"); !restart || err != nil || os.Geteuid() != 0 {
		fmt.Fprintf(said, "next: start %s, then this appliance anew, if it runs, so that it knows its peer: systemctl try-restart everboot-appliance\n", peer)
		return nil
	}
	if out, err := exec.Command("systemctl", "try-restart", unit).CombinedOutput(); err != nil {
		return fmt.Errorf("starting the appliance anew, so that it knows its peer: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

func parseOne[T any](into *T, text string, parse func(string) (T, error), flag, example string) error {
	if text == "" {
		return nil
	}
	v, err := parse(text)
	if err != nil {
		return fmt.Errorf("%s %q: use something like %s", flag, text, example)
	}
	*into = v
	return nil
}

func parseAll[T any](into *[]T, texts []string, parse func(string) (T, error), flag, example string) error {
	for _, text := range texts {
		var v T
		if err := parseOne(&v, text, parse, flag, example); err != nil {
			return err
		}
		*into = append(*into, v)
	}
	return nil
}

// interfaces lists this host's interfaces but the loopback.
func interfaces() []string {
	links, err := net.Interfaces()
	if err != nil {
		return nil
	}
	var names []string
	for _, l := range links {
		if l.Flags&net.FlagLoopback == 0 {
			names = append(names, l.Name)
		}
	}
	return names
}

func completeInterfaces(c *cobra.Command) {
	_ = c.RegisterFlagCompletionFunc("interface", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return interfaces(), cobra.ShellCompDirectiveNoFileComp
	})
}
