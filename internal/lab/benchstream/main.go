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

// part is something that is measured by itself, with one appliance and three streamers.
type part struct {
	name    string
	measure func(*stage) error
}

var parts = []part{{"targets", targets}, {"flood", flood}, {"forwarding", forwarding}, {"conformance", conformance}}

// guestPart is the one that has a site of its own.
const guestPart = "guest"

func names() []string {
	var list []string
	for _, p := range parts {
		list = append(list, p.name)
	}
	return append(list, guestPart)
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
	if only != guestPart {
		if err := crowded(path, filepath.Join(dir, "crowd"), only); err != nil {
			return err
		}
	}
	if only == "" || only == guestPart {
		return guest(path, filepath.Join(dir, guestPart))
	}
	return nil
}

// crowded measures all parts, or one, of one appliance and three streamers.
func crowded(binary, dir, only string) error {
	s, err := newStage(binary, dir)
	if err != nil {
		return err
	}
	defer s.lab.Close()
	for _, p := range parts {
		if only != "" && p.name != only {
			continue
		}
		if err := p.measure(s); err != nil {
			return err
		}
		fmt.Println()
	}
	return nil
}
