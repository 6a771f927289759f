package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"everboot/appliance/web"
	"everboot/site"
)

const (
	haproxyPortal   = "198.18.0.2:3261" // it splices when it thinks that it pays
	haproxySplicing = "198.18.0.2:3262" // it splices whatever it can
	streams         = 4
	// bytesEach are read through each of the peers in a run: large enough for a second or so, and small enough that a slow moment of the machine
	// meets all of them in turn.
	bytesEach = 256 << 20
	runs      = 11
)

// forwarding compares throughput, and the processor time of the one in the middle.
func forwarding(s *stage) error {
	conf := s.path("haproxy.cfg")
	text := fmt.Sprintf(`global
  nbthread 2
defaults
  mode tcp
  timeout connect 5s
  timeout client 60s
  timeout server 60s
listen auto
  option splice-auto
  bind %[1]s
  server s2 %[3]s:3260
listen always
  option splice-request
  option splice-response
  bind %[2]s
  server s2 %[3]s:3260
`, haproxyPortal, haproxySplicing, addresses["s2"])
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		return err
	}
	haproxy := s.host["a"].Start("haproxy", "haproxy", "-db", "-f", conf)
	defer haproxy.Kill()
	worker, err := s.worker()
	if err != nil {
		return err
	}
	if err := s.only("s2"); err != nil { // HAProxy has no other
		return err
	}
	peers := []struct {
		name, portal string
		isid         [6]byte
		pid          int
	}{
		{"direct", addresses["s2"] + ":3260", [6]byte{}, 0}, {"HAProxy, splice-auto", haproxyPortal, [6]byte{}, haproxy.PID()},
		{"HAProxy, splicing always", haproxySplicing, [6]byte{}, haproxy.PID()},
		{"everboot", portal, [6]byte{}, worker}, {"everboot, redirected", portal, [6]byte{0x00, 0x02, 0x3d}, worker},
	}
	results := make([][]result, len(peers))
	for range runs { // in turn, so that a slow moment of the machine meets all
		for i, p := range peers {
			r, err := s.transfer(p.portal, p.isid, p.pid)
			if err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
			results[i] = append(results[i], r)
		}
	}
	for i, p := range peers[1:3] {
		besides(p.name, results[3], results[1+i])
	}
	for i, p := range peers {
		slices.SortFunc(results[i], func(a, b result) int { return cmp.Compare(a.rate, b.rate) })
		r := results[i][runs/2]
		processor := "-"
		if p.pid != 0 {
			processor = fmt.Sprintf("%.2f s of processor a GB", r.processor)
		}
		row(fmt.Sprintf("%d streams of 1 MiB reads, %s", streams, p.name), "%.0f MB/s, %s (median of %d)", r.rate, processor, runs)
	}
	return nil
}

// besides says what everboot's runs are beside those of another that came in turn with them.
func besides(name string, ours, others []result) {
	var rate, processor []float64
	for i, r := range ours {
		rate, processor = append(rate, r.rate/others[i].rate), append(processor, r.processor/others[i].processor)
	}
	slices.Sort(rate)
	slices.Sort(processor)
	row("everboot by "+name+", run by run", "throughput %.2f (%.2f to %.2f), processor a GB %.2f (%.2f to %.2f) (median of %d)",
		rate[runs/2], rate[0], rate[runs-1], processor[runs/2], processor[0], processor[runs-1], runs)
}

// only switches load balancing off.
func (s *stage) only(server string) error {
	if err := s.api.Put(context.Background(), site.KindVDisk, "debian", site.VDisk{Name: "debian", Server: server}); err != nil {
		return err
	}
	return s.await("load balancing is off", func(v web.Status) bool { return v.View.VDisks["debian"].Server == server })
}

// result is one transfer.
type result struct {
	rate      float64 // MB/s
	processor float64 // seconds a GB
}

// transfer reads bytesEach over some streams.
func (s *stage) transfer(address string, isid [6]byte, pid int) (result, error) {
	var all sync.WaitGroup
	errs := make(chan error, streams)
	before, start := time.Duration(0), time.Now()
	if pid != 0 {
		before = used(pid)
	}
	for i := range streams {
		all.Go(func() {
			session, err := s.loginAs(isid, address, i+1)
			if err != nil {
				errs <- err
				return
			}
			defer session.Close()
			const blocks = 2048
			for done := 0; done < bytesEach/streams; done += blocks * 512 {
				if _, err := session.ReadBlocks(context.Background(), uint64(done/512)%(size/512-blocks), blocks); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	all.Wait()
	took := time.Since(start)
	close(errs)
	r := result{rate: bytesEach / 1e6 / took.Seconds()}
	if pid != 0 {
		r.processor = (used(pid) - before).Seconds() / (bytesEach / 1e9)
	}
	return r, <-errs
}
