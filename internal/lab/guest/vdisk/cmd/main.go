// Command cmd makes the vDisks of the tests and the demo, unless they are there:
//
//	go run ./internal/lab/guest/vdisk/cmd [CACHE]
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"everboot/internal/lab/guest/vdisk"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "vdisk:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	var cache string
	if len(os.Args) > 1 {
		cache = os.Args[1]
	} else {
		var err error
		if cache, err = vdisk.Cache(); err != nil {
			return err
		}
	}
	dir, err := vdisk.Minimal(ctx, cache, func(line string) { fmt.Println(line) })
	if err != nil {
		return err
	}
	fmt.Println(dir)
	return nil
}
