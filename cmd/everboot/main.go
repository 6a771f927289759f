// Command everboot keeps the boot path of network-booted machines up.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"everboot/appliance"
)

// version is set by the build (-ldflags "-X main.version=…").
var version = "devel"

// Exit codes of every command.
const (
	exitFailure = 1
	exitUsage   = 2
)

// usageError is wrong use of the command line or of a configuration file.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string) int {
	root := newRoot()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	var exit appliance.ExitError
	if errors.As(err, &exit) {
		return exit.Code // the worker has said why
	}
	for line := range strings.Lines(err.Error()) { // joined errors are one line each
		fmt.Fprintln(os.Stderr, "everboot:", strings.TrimRight(line, "\n"))
	}
	var usage usageError
	if errors.As(err, &usage) {
		return exitUsage
	}
	return exitFailure
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "everboot",
		Short: "Keep the boot path of network-booted machines up",
		Long: `everboot keeps the boot path of network-booted machines up: DHCP, TFTP and HTTP boot at a floating address,
and iSCSI logins that find a living streamer. Run "everboot appliance" on two or more small machines and
"everboot streamer" on those that hold the vDisks.`,
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArgs,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w; see %s --help", err, c.CommandPath())}
	})
	var api apiFlags
	root.PersistentFlags().StringVar(&api.url, "api", os.Getenv("EVERBOOT_API"), "URL of the appliance to ask (default: EVERBOOT_API, else what /etc/everboot/appliance.toml says, else http://127.0.0.1:8667)")
	root.PersistentFlags().StringVar(&api.tokenFile, "token-file", os.Getenv("EVERBOOT_TOKEN_FILE"), "file with the API's token (default: EVERBOOT_TOKEN_FILE, else that of the configuration)")
	root.AddCommand(
		applianceCommand(), streamerCommand(&api), checkCommand(), statusCommand(&api), explainCommand(&api), leaseCommand(&api), rebalanceCommand(&api),
		objectCommand(&api, deviceObject), objectCommand(&api, collectionObject), vdiskCommand(&api), vipCommand(&api),
		imageCommand(&api), initCommand(), inviteCommand(), joinCommand(),
	)
	return root
}

// noArgs, exactArgs: cobra's own checks, as wrong use.
func noArgs(c *cobra.Command, args []string) error { return exactArgs(0)(c, args) }

func exactArgs(n int) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) == n {
			return nil
		}
		if n == 0 && c.HasSubCommands() {
			return usageError{fmt.Errorf("unknown command %q; see %s --help", args[0], c.CommandPath())}
		}
		return usageError{fmt.Errorf("%s takes %d arguments, not %d; see %s --help", c.CommandPath(), n, len(args), c.CommandPath())}
	}
}
