// Command demo plays everboot's main job on one machine: a real Debian boots through a pair of appliances, its streamer is
// killed, then the appliance that owns the floating address, and it reads on.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"everboot/internal/lab"
	"everboot/internal/lab/fleet"
	"everboot/internal/lab/guest/vdisk"
)

const (
	// maxStall is what a guest may see of its streamer's death for the demo to count as good. It is usually a twentieth of that. But
	// iscsid looks once, 1 ms after its SYN, whether it is connected, and then a second later: an emulated machine on a busy
	// computer sometimes misses the first look. The tests are stricter.
	maxStall = 2 * time.Second
	bootTime = 4 * time.Minute // of an emulated machine on two cores; it takes about one
	watch    = 5 * time.Second
)

func main() { os.Exit(lab.Main(run)) }

func run() int {
	keep := flag.Bool("keep", false, "leave it running at the end, and say what to try")
	firmware := flag.String("firmware", "bios", "firmware of the targets: bios or uefi")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := play(ctx, *keep, lab.Firmware(*firmware)); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		return 1
	}
	return 0
}

// demo is one play.
type demo struct {
	*fleet.Fleet
	out     *progress
	results []result
}

// result is a row of the table at the end.
type result struct {
	what  string
	stall fleet.Stall
}

func play(ctx context.Context, keep bool, firmware lab.Firmware) error {
	top, err := os.Getwd()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "everboot-demo-")
	if err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(dir, "lab.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	l, err := lab.Open(lab.Options{Dir: dir, Log: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		return err
	}
	defer l.Close()
	d := &demo{out: newProgress(os.Stdout)}
	defer d.out.stop()
	ended := make(chan error, 1)
	go func() { ended <- d.play(l, top, firmware) }()
	select {
	case <-ctx.Done():
		return errors.New("interrupted")
	case err = <-ended:
	}
	d.out.stop()
	d.table()
	if err != nil {
		return fmt.Errorf("%w\nlogs are in %s", err, dir)
	}
	if keep {
		d.invite(dir)
		<-ctx.Done()
	}
	if err := l.Close(); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}

func (d *demo) play(l *lab.Lab, top string, firmware lab.Firmware) error {
	var first, second *fleet.Target
	var owner, serving string
	steps := []struct {
		what string
		do   func() error
	}{
		{"lay the network: appliances a and b, streamers s1 and s2, one Ethernet", func() error {
			disk, err := vdisk.Full(context.Background(), filepath.Join(top, "build"), func(string) {})
			if err != nil {
				return err
			}
			d.Fleet, err = fleet.New(l, fleet.Options{Binary: filepath.Join(top, "bin", "everboot"), VDisk: disk})
			return err
		}},
		{"start them; both streamers are found healthy", func() error {
			for _, node := range []string{"a", "b", "s1", "s2"} {
				d.Start(node)
			}
			if err := d.AwaitStreamers("a", 2, 90*time.Second); err != nil {
				return err
			}
			if err := d.AwaitStreamers("b", 2, 90*time.Second); err != nil {
				return err
			}
			return d.AwaitBoots("a", 1, 30*time.Second)
		}},
		{"power on target t1, a machine with an empty disk: PXE, TFTP, HTTP, iSCSI", func() (err error) {
			first, err = d.PowerOn(1, firmware)
			if err != nil {
				return err
			}
			return first.AwaitReading(bootTime)
		}},
		{"Debian on t1 reaches multi-user.target", func() error { return first.AwaitMultiuser(bootTime) }},
		{"find who serves it", func() (err error) {
			if owner, err = d.Owner(); err != nil {
				return err
			}
			serving, err = d.Serving(owner, 1)
			return err
		}},
		{"kill the streamer that serves t1 (SIGKILL)", func() error {
			s, err := first.Watch(func() { d.Host[serving].KillAll() }, watch)
			return d.judge("streamer "+serving, s, maxStall, err)
		}},
		{"kill the appliance that owns the VIP (SIGKILL to all of it)", func() error {
			s, err := first.Watch(func() { d.Host[owner].Die() }, watch)
			return d.judge("appliance "+owner, s, 0, err)
		}},
		{"power on target t2: the survivors boot it", func() (err error) {
			second, err = d.PowerOn(2, firmware)
			if err != nil {
				return err
			}
			return second.AwaitReading(bootTime)
		}},
		{"t1 still reads", func() error {
			s, err := first.Watch(func() {}, 2*time.Second)
			return d.judge("nothing (t1, at the end)", s, 0, err)
		}},
	}
	for i, step := range steps {
		if err := d.out.step(fmt.Sprintf("%d/%d %s", i+1, len(steps), step.what), step.do); err != nil {
			return err
		}
	}
	return nil
}

// judge notes what the guest saw and says whether that is good enough. A limit of 0 is none.
func (d *demo) judge(what string, s fleet.Stall, limit time.Duration, err error) error {
	d.results = append(d.results, result{what, s})
	switch {
	case err != nil:
		return err
	case s.Errors > 0:
		return fmt.Errorf("after the death of %s: %d I/O errors in the guest", what, s.Errors)
	case s.Mismatches > 0:
		return fmt.Errorf("after the death of %s: %d reads with wrong content", what, s.Mismatches)
	case limit > 0 && s.Longest > limit:
		return fmt.Errorf("after the death of %s the guest stalled for %s, over %s", what, s.Longest, limit)
	}
	return nil
}

func (d *demo) table() {
	if len(d.results) == 0 {
		return
	}
	fmt.Printf("\n%-28s %14s %12s %12s %14s\n", "killed", "longest stall", "reads since", "I/O errors", "wrong content")
	for _, r := range d.results {
		fmt.Printf("%-28s %14s %12d %12d %14d\n", r.what, r.stall.Longest.Round(time.Microsecond), r.stall.Reads, r.stall.Errors, r.stall.Mismatches)
	}
	fmt.Println()
}

func (d *demo) invite(dir string) {
	survivor := "a"
	if _, err := d.Status(survivor); err != nil {
		survivor = "b"
	}
	fmt.Printf(`It goes on running; Ctrl-C ends it. Logs are in %s. Open a shell on a node and look round:

  %s          # appliance %s
    curl -u x:$(cat %s/api.token) http://127.0.0.1:8667/         # the status page
    bin/everboot --token-file %s/api.token status
    bin/everboot --token-file %s/api.token explain %s --events
  %s          # a streamer: kill its processes, start it again with
    bin/everboot streamer --config %s
`, dir, d.Host[survivor].Enter(), survivor, dir, dir, dir, fleet.MAC(1), d.Host["s1"].Enter(), d.Config("s1"))
}
