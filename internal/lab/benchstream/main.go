// Command benchstream measures streaming through the director: two hundred targets and what they see when streamers die, fall silent, drain
// and come back; forwarding beside HAProxy; libiscsi's conformance tests directly and through the director; a flood of half-open logins.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"everboot/internal/lab"
)

func main() { os.Exit(lab.Main(run)) }

func run() int {
	binary := flag.String("everboot", "bin/everboot", "the program to measure")
	keep := flag.String("dir", "", "keep logs there")
	only := flag.String("only", "", "measure this part alone: "+strings.Join(names(), ", "))
	flag.Parse()
	if err := measure(*binary, *keep, *only); err != nil {
		fmt.Fprintln(os.Stderr, "benchstream:", err)
		return 1
	}
	return 0
}

// part is something that is measured by itself.
type part struct {
	name    string
	measure func(binary, dir string) error
}

// parts are all, in the order in which they are measured, each with a lab of its own.
var parts = []part{
	{"targets", crowded(options{}, targets, flood)}, {"forwarding", crowded(options{redirect: true}, forwarding)}, {"conformance", crowded(options{}, conformance)},
	{"large", large}, {"consul", withoutConsul}, {"guest", guest}, {"redirected", redirected},
}

func names() []string {
	var list []string
	for _, p := range parts {
		list = append(list, p.name)
	}
	return list
}

func measure(binary, dir, only string) error {
	if only != "" && !slices.Contains(names(), only) {
		return fmt.Errorf("there is no part %q; there are %s", only, strings.Join(names(), ", "))
	}
	path, err := filepath.Abs(binary)
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		return fmt.Errorf("build everboot first: %w", err)
	}
	if dir == "" {
		if dir, err = os.MkdirTemp("", "stream"); err != nil {
			return err
		}
		defer os.RemoveAll(dir)
	}
	for _, p := range parts {
		if only != "" && p.name != only {
			continue
		}
		if err := p.measure(path, filepath.Join(dir, p.name)); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		fmt.Println()
	}
	return nil
}

// crowded measures one thing after the other with one appliance, three streamers and the embedded registry.
func crowded(o options, measures ...func(*stage) error) func(binary, dir string) error {
	return func(binary, dir string) error {
		s, err := newStage(binary, dir, o)
		if err != nil {
			return err
		}
		defer s.lab.Close()
		for _, measure := range measures {
			if err := measure(s); err != nil {
				return err
			}
		}
		return nil
	}
}
