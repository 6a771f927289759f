// Command cmd is the guest program: a systemd unit in a full vDisk, or the first process of a minimal one.
package main

import (
	"context"
	"fmt"
	"os"

	"everboot/internal/lab/guest"
)

func main() {
	if err := guest.Main(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "guest:", err)
		if os.Getpid() == 1 {
			select {} // the kernel panics when its first process ends
		}
		os.Exit(1)
	}
}
