package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"everboot/appliance/web"
	"everboot/internal/iscsi/iscsitest"
	"everboot/internal/lab"
	"everboot/site"
	"everboot/site/embedded"
)

const (
	manyDevices   = 10000
	manyStreamers = 100
	farm          = "198.18.0.21" // the host of all streamers of the large site
	someLogins    = 500
)

// large puts a site of ten thousand devices and a hundred streamers before one appliance, and shows its memory and the time of a login.
func large(binary, dir string) error {
	l, err := lab.Open(lab.Options{Dir: dir, Offload: true})
	if err != nil {
		return err
	}
	defer l.Close()
	lan := l.Segment("lan")
	s := &stage{lab: l, binary: binary, host: map[string]*lab.Host{}, process: map[string]*lab.Process{}}
	for name, address := range map[string]string{"a": addresses["a"], "farm": farm, "targets": addresses["targets"]} {
		s.host[name] = l.Host(name)
		s.host[name].Join(lan, address+"/16")
	}
	if err := s.configureLarge(); err != nil {
		return err
	}
	s.start("a")
	s.api = web.Client{URL: "http://" + addresses["a"] + ":8667", Token: token, Dial: s.host["targets"].Dial}
	digest := site.Digest(strings.Repeat("0123456789abcdef", 4))
	s.iqn = site.NameTarget("default", "debian", 1, digest).IQN()
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	if err := s.farm(ctx, &all, digest); err != nil {
		return err
	}
	err = s.await("all streamers are up", func(v web.Status) bool {
		up := 0
		for _, st := range v.View.Streamers {
			if st.Check.Health == site.Up {
				up++
			}
		}
		return up == manyStreamers && len(v.View.Devices) == manyDevices
	})
	if err != nil {
		return err
	}
	var took []time.Duration
	for i := range someLogins {
		start := time.Now()
		session, err := s.login(portal, i)
		if err != nil {
			return err
		}
		took = append(took, time.Since(start))
		session.Close()
	}
	slices.Sort(took)
	worker, err := s.worker()
	if err != nil {
		return err
	}
	row(fmt.Sprintf("%d devices, %d streamers", manyDevices, manyStreamers), "appliance %d MB (guard %d MB), at most %d MB; a whole login takes %v (median of %d)",
		resident(worker)>>20, resident(s.process["a"].PID())>>20, peak(worker)>>20, took[len(took)/2].Round(time.Microsecond), len(took))
	return nil
}

func (s *stage) configureLarge() error {
	if err := os.WriteFile(s.path("token"), []byte(token), 0o600); err != nil {
		return err
	}
	var c strings.Builder
	fmt.Fprintf(&c, "node = \"a\"\ninterface = \"eth0\"\nstate = %q\n[http]\nenabled = false\n[tftp]\nenabled = false\n", s.path("a"))
	fmt.Fprintf(&c, "[[dhcp.subnet]]\nnetwork = \"198.18.0.0/16\"\nrange = \"198.18.200.1-198.18.240.254\"\n[api]\nlisten = \":8667\"\ntoken = \"file:%s\"\n", s.path("token"))
	for i := range manyDevices {
		fmt.Fprintf(&c, "[[device]]\nmac = %q\nname = \"t%d\"\naddress = %q\nvdisk = \"debian\"\n", mac(i), i, netip.AddrFrom4([4]byte{198, 18, byte(100 + i>>8), byte(i)}))
	}
	return os.WriteFile(s.path("a.toml"), []byte(c.String()), 0o600)
}

// farm starts the streamers and announces them every second, until ctx ends.
func (s *stage) farm(ctx context.Context, all *sync.WaitGroup, digest site.Digest) error {
	client, err := embedded.NewClient(embedded.ClientConfig{Addresses: []string{"http://" + addresses["a"] + ":8667"}, Token: token, Dial: s.host["farm"].Dial})
	if err != nil {
		return err
	}
	all.Go(func() { <-ctx.Done(); client.Close() })
	for i := range manyStreamers {
		address := netip.AddrPortFrom(netip.MustParseAddr(farm), uint16(4000+i))
		l, err := s.host["farm"].Listen("tcp", address.String())
		if err != nil {
			return err
		}
		target := &iscsitest.Target{Name: s.iqn, Content: make([]byte, 64<<10), Serial: "1"}
		all.Go(func() { target.Serve(l) })
		all.Go(func() { <-ctx.Done(); l.Close() })
		st := site.Streamer{
			Name: fmt.Sprintf("s%d", i), Site: "default", Addresses: []netip.AddrPort{address}, Power: 1, State: site.Active,
			Replicas: []site.Replica{{VDisk: "debian", Version: 1, Digest: digest, Size: 64 << 10}},
		}
		all.Go(func() {
			for ctx.Err() == nil {
				client.Announce(ctx, st) // the next one makes up for one that failed
				select {
				case <-ctx.Done():
				case <-time.After(time.Second):
				}
			}
		})
	}
	return nil
}

// peak is the most memory that a process has had, in bytes.
func peak(pid int) int64 {
	text, _ := os.ReadFile(filepath.Join("/proc", fmt.Sprint(pid), "status"))
	_, rest, _ := strings.Cut(string(text), "VmHWM:")
	var kilobytes int64
	fmt.Sscan(rest, &kilobytes)
	return kilobytes << 10
}
