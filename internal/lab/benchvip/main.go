// Command benchvip measures what clients of a floating address see when its owner stops, dies, freezes or falls silent: everboot
// and keepalived side by side, in network namespaces, with a datagram to the address each millisecond.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"everboot/internal/lab"
)

func main() {
	if role := os.Getenv(envRole); role != "" {
		os.Exit(play(role))
	}
	os.Exit(lab.Main(run))
}

func run() int {
	runs := flag.Int("runs", 10, "how often each event is played")
	only := flag.String("only", "", "events, tcp or many: only this part")
	virtual := flag.Bool("virtual-mac", false, "with a virtual MAC address, everboot's events alone")
	binary := flag.String("everboot", "bin/everboot", "the program to measure")
	flag.Parse()
	path, err := filepath.Abs(*binary)
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "benchvip: build everboot first:", err)
		return 1
	}
	parts := []struct {
		name string
		play func(runs int) error
	}{
		{"events", func(runs int) error { return table(path, runs, *virtual) }},
		{"tcp", tcpReset},
		{"many", manyRouters},
	}
	for _, p := range parts {
		if *only != "" && *only != p.name {
			continue
		}
		if err := p.play(*runs); err != nil {
			fmt.Fprintln(os.Stderr, "benchvip:", err)
			return 1
		}
	}
	return 0
}

// table plays the events and prints a row for each and each program.
func table(binary string, runs int, virtual bool) error {
	peers := []peer{{"keepalived", keepalived{}}, {"everboot", everboot{binary: binary}}}
	if virtual {
		peers = []peer{{"everboot", everboot{binary: binary, virtual: true}}}
	}
	fmt.Printf("advertisements of 10 ms, one datagram a millisecond to the address; %d runs each; median (worst)\n\n", runs)
	fmt.Printf("%-34s %-12s %-18s %-16s %s\n", "event", "who", "without answer", "nothing lost", "two owners afterwards")
	for _, e := range events {
		for _, p := range peers {
			n := runs
			if e.sample > 5*time.Second {
				n = max(1, n/3)
			}
			if err := measure(e, p, n); err != nil {
				return fmt.Errorf("%s, %s: %w", e.name, p.name, err)
			}
		}
	}
	fmt.Println()
	return nil
}

// measure plays an event some times and prints a row.
func measure(e event, p peer, runs int) error {
	var gaps []time.Duration
	clean := 0
	var twice []time.Duration
	for range runs {
		r, err := once(e, p)
		if err != nil {
			return err
		}
		gaps = append(gaps, r.gap)
		if r.lost == 0 {
			clean++
		}
		twice = append(twice, r.twoOwners)
	}
	slices.Sort(gaps)
	slices.Sort(twice)
	fmt.Printf("%-34s %-12s %-18s %-16s %s\n", e.name, p.name, spread(gaps), fmt.Sprintf("%d of %d runs", clean, runs), spread(twice))
	return nil
}

// spread returns median and worst of sorted times.
func spread(sorted []time.Duration) string {
	ms := func(d time.Duration) string { return d.Round(time.Millisecond).String() }
	return fmt.Sprintf("%s (%s)", ms(sorted[len(sorted)/2]), ms(sorted[len(sorted)-1]))
}
