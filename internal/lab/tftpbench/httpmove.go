package main

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"everboot/internal/lab"
	"everboot/internal/lab/bootpair"
)

const (
	// downloadSize is that of an initrd with much in it.
	downloadSize = 200e6
	// downloadRounds is how often it is read each way.
	downloadRounds = 5
)

// httpMoves measures what a move of the address costs a client that reads a large file over HTTP with ranges.
func httpMoves(binary string) error {
	want := make([]byte, downloadSize)
	rand.Read(want)
	sum := sha256.Sum256(want)
	return inLab(func(l *lab.Lab) error {
		p, err := bootpair.New(l, binary, want)
		if err != nil {
			return err
		}
		for _, name := range bootpair.Names {
			p.Start(name)
		}
		fmt.Printf("\nHTTP: %d MB by a curl that goes on with ranges, in the middle guard and worker of the address's owner are SIGKILLed; %d rounds\n",
			int(downloadSize/1e6), downloadRounds)
		var still, moved []float64
		for range downloadRounds {
			for _, times := range []*[]float64{&still, &moved} {
				if err := p.AwaitTogether(60 * time.Second); err != nil {
					return err
				}
				owner, err := p.Owner()
				if err != nil {
					return err
				}
				var move func() error
				if times == &moved {
					move = func() error { p.Host[owner].KillAll(); return nil }
				}
				took, starts, got, err := p.Download(downloadSize, move)
				switch {
				case err != nil:
					return err
				case got != sum:
					return errors.New("the download has another digest")
				case move != nil && starts < 2:
					return errors.New("the download was over before the address moved")
				}
				*times = append(*times, took.Seconds())
				if move != nil {
					p.Start(owner)
				}
			}
		}
		fmt.Printf("  %-10s without a move %.3f s, with one %.3f s (medians); the longest %.3f s\n", "everboot", median(still), median(moved), slices.Max(moved))
		return nil
	})
}
