package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"everboot/appliance"
	"everboot/appliance/keep"
)

const (
	defaultApplianceConfig = "/etc/everboot/appliance.toml"
	defaultStreamerConfig  = "/etc/everboot/streamer.toml"
	// The numbers of what a worker inherits from its guard: a pipe, a socket, a piece of memory.
	lifelineFile = 3
	keepFile     = 4
	counterFile  = 5
	// workerGC is how much garbage a worker keeps, in percent of what it needs: with a hundred thousand leases the usual 100 are 20 MB more, for
	// one hundredth of a processor less at 2,000 clients a second.
	workerGC = 50
)

func applianceCommand() *cobra.Command {
	var path string
	var worker bool
	c := &cobra.Command{
		Use:   "appliance",
		Short: "Run an appliance in the foreground",
		Long: `Run an appliance in the foreground: DHCP, TFTP, HTTP boot, the floating address and the director, as the
configuration says. The process is a guard; its one child, the worker, does the work. SIGTERM stops both.`,
		Example: "  everboot check --config appliance.toml\n  everboot appliance --config appliance.toml",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := appliance.Load(path)
			if err != nil {
				return usageError{err}
			}
			if worker {
				guard, err := appliance.InheritedLifeline(lifelineFile)
				if err != nil {
					return err
				}
				keeper, err := keep.Inherited(os.NewFile(keepFile, "keep"))
				if err != nil {
					return err
				}
				defer keeper.Close()
				if os.Getenv("GOGC") == "" {
					debug.SetGCPercent(workerGC)
				}
				return appliance.RunWorker(c.Context(), cfg, appliance.WorkerOptions{
					Version: version, Log: newLog().With("node", cfg.Node),
					Ready: guard.Say, Beat: guard.Say, Keeper: keeper,
					Counter: os.NewFile(counterFile, "vrrp-counter"),
				})
			}
			self, err := os.Executable()
			if err != nil {
				return fmt.Errorf("finding this program: %w", err)
			}
			return appliance.RunGuard(c.Context(), cfg, []string{self, "appliance", "--worker", "--config", path}, newLog().With("node", cfg.Node))
		},
	}
	c.Flags().StringVar(&path, "config", defaultApplianceConfig, "configuration file")
	c.Flags().BoolVar(&worker, "worker", false, "be the worker of a guard")
	_ = c.Flags().MarkHidden("worker")
	_ = c.MarkFlagFilename("config", "toml")
	return c
}

func streamerCommand(api *apiFlags) *cobra.Command {
	var path string
	c := &cobra.Command{
		Use:   "streamer",
		Short: "Run a streamer's agent in the foreground; drain or resume one",
		Long: `Run a streamer's agent in the foreground: it exports the vDisk replicas of its store over iSCSI and announces
them. SIGTERM moves its targets to other streamers and stops it.`,
		Example: "  everboot streamer --config streamer.toml\n  everboot streamer drain s1\n  everboot streamer resume s1",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := appliance.LoadStreamer(path)
			if err != nil {
				return usageError{err}
			}
			return appliance.RunStreamer(c.Context(), cfg, newLog().With("node", cfg.Node))
		},
	}
	c.Flags().StringVar(&path, "config", defaultStreamerConfig, "configuration file")
	_ = c.MarkFlagFilename("config", "toml")
	c.AddCommand(drainCommand(api), resumeCommand(api))
	return c
}

func checkCommand() *cobra.Command {
	var path string
	var asJSON, quick bool
	c := &cobra.Command{
		Use:   "check",
		Short: "Check a configuration file and the host, and say what to mend",
		Long: `Check a configuration file (an appliance's or a streamer's) and the host it is for. It changes nothing. Each
finding is one line that says what to do. Where the appliance is to give addresses it also looks for other DHCP
servers on the segment, for 6 s. Exit 0: all is well; 1: the host or its segment is not ready; 2: the file is wrong.`,
		Example: "  everboot check --config /etc/everboot/appliance.toml",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			findings, err := appliance.Check(c.Context(), path, !quick)
			if err != nil {
				err = usageError{err}
			} else {
				err = errors.Join(findings...)
			}
			if asJSON {
				return errors.Join(printJSON(c.OutOrStdout(), checked(path, err)), err)
			}
			if err == nil {
				fmt.Fprintf(c.OutOrStdout(), "%s: good\n", path)
			}
			return err
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().BoolVar(&quick, "quick", false, "do not look for other DHCP servers: what they do must not keep this node from starting")
	c.Flags().StringVar(&path, "config", defaultApplianceConfig, "configuration file")
	_ = c.MarkFlagFilename("config", "toml")
	return c
}

// checkResult is what check --json prints.
type checkResult struct {
	File     string   `json:"file"`
	Good     bool     `json:"good"`
	Findings []string `json:"findings"` // what to mend, a line each
}

func checked(path string, err error) checkResult {
	r := checkResult{File: path, Good: err == nil, Findings: []string{}}
	if err != nil {
		r.Findings = strings.Split(err.Error(), "\n")
	}
	return r
}

func newLog() *slog.Logger {
	level := slog.LevelInfo
	if os.Getenv("EVERBOOT_DEBUG") != "" {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
}
