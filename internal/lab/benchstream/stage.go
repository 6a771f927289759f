package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"everboot/appliance/web"
	"everboot/internal/lab"
	"everboot/internal/lab/crowd"
	"everboot/site"
)

const (
	crowdSize = 200
	portal    = "198.18.0.2:3260" // of the director
	token     = "a-token-for-the-lab-only"
	patience  = 60 * time.Second
	size      = 64 << 20 // of the vDisk
)

// stage is one appliance, three streamers and a host full of targets.
type stage struct {
	lab     *lab.Lab
	binary  string
	content []byte
	iqn     string
	host    map[string]*lab.Host
	cable   map[string]*lab.Cable
	process map[string]*lab.Process
	api     web.Client
	options
}

// options say what is unusual about a stage.
type options struct {
	consul   bool // the registry is Consul, on host c; else embedded
	redirect bool // open-iscsi is redirected, and the crowd says that it is one
}

var addresses = map[string]string{"c": "198.18.0.31", "a": "198.18.0.2", "s1": "198.18.0.21", "s2": "198.18.0.22", "s3": "198.18.0.23", "targets": "198.18.0.51", "crowd": "198.18.0.52"}

func mac(i int) site.MAC { return site.MAC{0x52, 0x54, 0, 0, byte(i >> 8), byte(i)} }

// newStage builds and starts everything, and returns when the streamers serve.
func newStage(binary, dir string, o options) (*stage, error) {
	l, err := lab.Open(lab.Options{Dir: dir, Offload: true})
	if err != nil {
		return nil, err
	}
	s := &stage{
		lab: l, binary: binary, content: make([]byte, size), host: map[string]*lab.Host{}, cable: map[string]*lab.Cable{},
		process: map[string]*lab.Process{}, options: o,
	}
	rnd := rand.NewChaCha8([32]byte{1})
	rnd.Read(s.content)
	lan := l.Segment("lan")
	for name, address := range addresses {
		s.host[name] = l.Host(name)
		s.cable[name] = s.host[name].Join(lan, address+"/16")
	}
	if err := s.configure(); err != nil {
		l.Close()
		return nil, err
	}
	if o.consul {
		if err := s.startConsul(); err != nil {
			l.Close()
			return nil, err
		}
	}
	for _, name := range []string{"a", "s1", "s2", "s3"} {
		s.start(name)
	}
	s.api = web.Client{URL: "http://" + addresses["a"] + ":8667", Token: token, Dial: s.host["targets"].Dial}
	return s, s.await("the streamers serve", func(v web.Status) bool {
		up := 0
		for _, st := range v.View.Streamers {
			if st.Check.Health == site.Up && len(st.Replicas) == 1 {
				up++
				s.iqn = site.NameTarget("default", "debian", 1, st.Replicas[0].Digest).IQN()
			}
		}
		return up == 3
	})
}

func (s *stage) path(parts ...string) string {
	return filepath.Join(append([]string{s.lab.Dir()}, parts...)...)
}

func (s *stage) configure() error {
	if err := os.WriteFile(s.path("token"), []byte(token), 0o600); err != nil {
		return err
	}
	var c strings.Builder
	fmt.Fprintf(&c, "node = \"a\"\ninterface = \"eth0\"\nstate = %q\n[http]\nenabled = false\n[tftp]\nenabled = false\n", s.path("a"))
	fmt.Fprintf(&c, "[api]\nlisten = \":8667\"\ntoken = \"file:%s\"\n", s.path("token"))
	registry := fmt.Sprintf("addresses = [\"http://%s:8667\"]\ntoken = \"file:%s\"\n", addresses["a"], s.path("token"))
	if s.consul {
		registry = fmt.Sprintf("kind = \"consul\"\naddress = \"%s:8500\"\n", addresses["c"])
		fmt.Fprintf(&c, "[registry]\n%s", registry)
	}
	fmt.Fprintf(&c, "[director]\nredirect = %t\n", s.redirect)
	for i := 1; i <= crowdSize && !s.consul; i++ {
		fmt.Fprintf(&c, "[[device]]\nmac = %q\nvdisk = \"debian\"\n", mac(i))
	}
	if err := os.WriteFile(s.path("a.toml"), []byte(c.String()), 0o600); err != nil {
		return err
	}
	for _, name := range []string{"s1", "s2", "s3"} {
		replica := s.path(name, "store", "debian", "1")
		if err := os.MkdirAll(replica, 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(replica, "disk.raw"), s.content, 0o644); err != nil {
			return err
		}
		text := fmt.Sprintf("node = %q\nstate = %q\n[registry]\n%s[iscsi]\naddresses = [\"%s:3260\"]\n[store]\npath = %q\n",
			name, s.path(name), registry, addresses[name], s.path(name, "store"))
		if err := os.WriteFile(s.path(name+".toml"), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// start starts a node's program.
func (s *stage) start(name string) {
	command := "streamer"
	if name == "a" {
		command = "appliance"
	}
	s.process[name] = s.host[name].Start(command, s.binary, command, "--config", s.path(name+".toml"))
}

// await waits until the appliance's status is as wanted.
func (s *stage) await(what string, ok func(web.Status) bool) error {
	return lab.Eventually(patience, what, func() bool {
		v, err := s.api.Status(context.Background())
		return err == nil && ok(v)
	})
}

// spread returns the sessions by streamer, as text and as the greatest distance from the mean.
func (s *stage) spread() (text string, off float64, err error) {
	v, err := s.api.Status(context.Background())
	if err != nil {
		return "", 0, err
	}
	at := map[string]int{}
	for _, session := range v.Sessions {
		at[session.Streamer]++
	}
	var parts []string
	for _, name := range []string{"s1", "s2", "s3"} {
		if at[name] > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", name, at[name]))
		}
	}
	mean := float64(len(v.Sessions)) / float64(len(parts))
	for _, n := range at {
		off = max(off, float64(n)/mean-1, 1-float64(n)/mean)
	}
	return strings.Join(parts, ", "), off, nil
}

// crowd starts the targets from first to last.
func (s *stage) crowd(ctx context.Context, first, last int) *crowd.Crowd {
	return crowd.Start(ctx, crowd.Config{
		Targets: last - first + 1, Portal: portal, IQN: s.iqn, Content: s.content, Dial: s.host["crowd"].Dial, Pause: 50 * time.Millisecond,
		MAC: func(i int) site.MAC { return mac(first + i) },
	})
}

// worker is the process number of the appliance's worker: the child of the guard.
func (s *stage) worker() (int, error) {
	guard := s.process["a"].PID()
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", guard))
	for _, path := range tasks {
		text, _ := os.ReadFile(path)
		if fields := strings.Fields(string(text)); len(fields) > 0 {
			return strconv.Atoi(fields[0])
		}
	}
	return 0, fmt.Errorf("the guard %d has no worker", guard)
}

// resident is the memory of a process in bytes.
func resident(pid int) int64 {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	fields := strings.Fields(string(text))
	if len(fields) < 2 {
		return 0
	}
	pages, _ := strconv.ParseInt(fields[1], 10, 64)
	return pages * int64(os.Getpagesize())
}

// used is the processor time of a process so far.
func used(pid int) time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|2), &ts); err != nil { // clock_getcpuclockid(3): in nanoseconds, where /proc counts ticks
		return 0
	}
	return time.Duration(ts.Nano())
}
