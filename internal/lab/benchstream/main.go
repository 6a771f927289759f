// Command benchstream measures streaming through the director: two hundred targets and what they see when streamers die, fall silent, drain
// and come back; forwarding beside HAProxy; libiscsi's conformance tests directly and through the director; a flood of half-open logins.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"everboot/internal/lab"
)

func main() { os.Exit(lab.Main(run)) }

func run() int {
	binary := flag.String("everboot", "bin/everboot", "the program to measure")
	keep := flag.String("dir", "", "keep logs there")
	flag.Parse()
	if err := measure(*binary, *keep); err != nil {
		fmt.Fprintln(os.Stderr, "benchstream:", err)
		return 1
	}
	return 0
}

func measure(binary, dir string) error {
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
	s, err := newStage(path, dir)
	if err != nil {
		return err
	}
	defer s.lab.Close()
	for _, part := range []func(*stage) error{targets, flood, forwarding, conformance} {
		if err := part(s); err != nil {
			return err
		}
		fmt.Println()
	}
	return nil
}
