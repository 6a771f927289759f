package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"

	"everboot/internal/lab"
)

// footprint is the memory of a process, in KiB. Pages of the program's file are the same ones in all its processes, and stand in the resident
// memory of each; in share they are divided by how many have them.
type footprint struct {
	resident, anonymous, share int
}

// memory gives 100,000 leases and looks how much memory the nodes have then.
func (b *bench) memory(ctx context.Context) error {
	const leases, most = 100000, 100 << 10
	return with(func(s *site) error {
		if _, err := s.appliances(); err != nil {
			return err
		}
		e, err := s.perfdhcp(ctx, memoryRate, leases, leases/memoryRate+1)
		if err != nil {
			return err
		}
		fmt.Printf("\n%d clients at %d/s: %.2f %% lost\n", leases, memoryRate, e.lost())
		b.row("NODE", "PROCESS", "RESIDENT MB", "OF THAT ANONYMOUS MB")
		var file int // the program's pages, once: what the processes of both nodes share of them
		sum := make(map[string]footprint)
		for _, h := range []*lab.Host{s.a, s.b} {
			for _, pid := range h.PIDs() {
				cmd, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
				f, err := footprintOf(pid)
				if err != nil || !strings.Contains(string(cmd), "everboot") {
					continue
				}
				what := "guard"
				if strings.Contains(string(cmd), "--worker") {
					what = "worker"
				}
				b.row(h.Name(), what, megabytes(f.resident), megabytes(f.anonymous))
				file += f.share
				n := sum[h.Name()]
				sum[h.Name()] = footprint{resident: n.resident + f.resident, anonymous: n.anonymous + f.anonymous}
			}
		}
		for name, n := range sum {
			b.row(name, "both, the program's file once", megabytes(n.anonymous+file), megabytes(n.anonymous))
			if n.anonymous+file > most {
				err = fmt.Errorf("node %s takes %s MB for %d leases: no more than 100 are to be", name, megabytes(n.anonymous+file), leases)
			}
		}
		return err
	})
}

// memoryRate is what both nodes do without loss: a lease that is not given takes no memory.
const memoryRate = 2000

// footprintOf reads what the kernel says of a process (proc_pid_smaps(5)).
func footprintOf(pid int) (footprint, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return footprint{}, err
	}
	rollup := string(text)
	return footprint{
		resident:  kilobytes(rollup, "Rss"),
		anonymous: kilobytes(rollup, "Anonymous"),
		share:     kilobytes(rollup, "Pss_File") + kilobytes(rollup, "Pss_Shmem"),
	}, nil
}

func kilobytes(text, key string) int {
	_, after, _ := strings.Cut(text, "\n"+key+":")
	n, _ := strconv.Atoi(strings.Fields(after + " 0")[0])
	return n
}

func megabytes(kilobytes int) string { return strconv.FormatFloat(float64(kilobytes)/1024, 'f', 1, 64) }
