package vip_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"everboot/internal/lab"
	"everboot/vip"
	"everboot/vip/vrrp"
)

func TestLabSilentDeathIsTakenOver(t *testing.T) {
	s := newSite(t)
	first := s.start(s.a, "worker", config(100))
	s.expect(first, "state active")
	second := s.start(s.b, "worker", config(90))
	s.expect(second, "state backup")
	s.clientSendsTo(s.cableA)

	s.cableA.Silence(true)
	s.within(vrrp.DownInterval(90, interval), "b has the address of a silent a", has(s.b))
	s.clientSendsTo(s.cableB)

	s.cableA.Silence(false) // a never noticed; both were active
	s.within(interval, "b has let go", not(has(s.b)))
	s.expectOneOwner(s.a, s.b)
	s.clientSendsTo(s.cableA)

	if err := first.Stop(patience); err != nil {
		t.Error(err)
	}
	s.within(interval, "b has the address of a stopped a", has(s.b))
	if s.a.Has(floating) {
		t.Error("a has stopped and still has the address")
	}
}

func TestLabAKilledWorkerLeavesNoAddress(t *testing.T) {
	s := newSite(t)
	guard := s.start(s.a, "guard", config(100))
	worker := s.expect(guard, `worker (\d+)`)[1]
	s.expect(guard, "state active")
	s.expect(s.start(s.b, "worker", config(90)), "state backup")

	s.signal(worker, syscall.SIGKILL)
	// The guard's farewell makes b wait its skew only, not three intervals.
	s.within(vrrp.SkewTime(90, interval), "b has the address of a killed a", has(s.b))
	took := s.expect(guard, `released (\d+)`)[1]
	t.Logf("the guard's release took %s µs", took)
	s.expectOneOwner(s.b, s.a)
}

func TestLabNobodyIsLeftToRemoveTheAddress(t *testing.T) {
	s := newSite(t)
	guard := s.start(s.a, "guard", config(100))
	worker := s.expect(guard, `worker (\d+)`)[1]
	s.expect(guard, "state active")
	time.Sleep(2500 * time.Millisecond) // some renewals, and not at the moment of one
	guard.Kill()
	s.signal(worker, syscall.SIGKILL)
	s.within(lifetime, "the kernel has removed the address", not(has(s.a)))
}

func TestLabAFrozenWorkerLosesTheAddress(t *testing.T) {
	s := newSite(t)
	worker := s.start(s.a, "worker", config(100))
	s.expect(worker, "state active")
	s.expect(s.start(s.b, "worker", config(90)), "state backup")
	time.Sleep(3 * interval) // until b has heard a: who never heard anybody does not claim while the frozen host's kernel answers ARP
	if err := worker.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	s.within(vrrp.DownInterval(90, interval), "b has the address of a frozen a", has(s.b))
	s.within(lifetime, "the kernel has removed the address from a", not(has(s.a)))
	if err := worker.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	s.expect(worker, "state backup")
	s.expectOneOwner(s.b, s.a)
}

func TestLabLeftoversGoAtStart(t *testing.T) {
	s := newSite(t)
	s.expect(s.start(s.a, "worker", config(100)), "state active")
	s.run(s.b, "ip", "address", "add", floating+"/24", "dev", "eth0") // as another program left it
	worker := s.start(s.b, "worker", config(90))
	s.expect(worker, "state backup")
	if s.b.Has(floating) {
		t.Error("the leftover is there in Backup")
	}
	s.expectOneOwner(s.a, s.b)
	if len(s.b.Addresses()) == 0 || !s.b.Has("198.18.0.3") {
		t.Errorf("b has %v: its own address went, too", s.b.Addresses())
	}
}

func TestLabSomebodyElseChangesTheAddresses(t *testing.T) {
	s := newSite(t)
	first := s.start(s.a, "worker", config(100))
	s.expect(first, "state active")
	second := s.start(s.b, "worker", config(90))
	s.expect(second, "state backup")
	s.run(s.b, "ip", "address", "add", floating+"/24", "dev", "eth0")
	s.within(0, "b has got rid of what it does not own", not(has(s.b)))
	s.run(s.a, "ip", "address", "del", floating+"/32", "dev", "eth0")
	s.expect(first, "state backup")
	s.within(interval, "b has the address that was taken from a", has(s.b))
	s.expectOneOwner(s.b, s.a)
	for p, odd := range map[*lab.Process]vip.Oddity{first: vip.TakenAway, second: vip.PutOn} {
		if err := p.Stop(patience); err != nil {
			t.Error(err)
		}
		if status := s.expect(p, "status (.*)")[1]; !strings.Contains(status, string(odd)+`":1`) {
			t.Errorf("%s was not counted once: %s", odd, status)
		}
	}
}

func TestLabRenewalDisturbsNothing(t *testing.T) {
	s := newSite(t)
	s.expect(s.start(s.a, "worker", config(100)), "state active")
	l, err := s.a.Listen("tcp", floating+":7")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		for r := bufio.NewReader(c); ; {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			fmt.Fprint(c, line)
		}
	}()
	time.Sleep(5 * time.Second) // the announcements are over
	monitor := s.a.Start("monitor", "ip", "-4", "monitor", "address", "route", "neigh")
	c, err := s.c.Dial(t.Context(), "tcp", floating+":7")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r := bufio.NewReader(c)
	var longest time.Duration
	for end := time.Now().Add(4 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		sent := time.Now()
		fmt.Fprintln(c, "still there?")
		if _, err := r.ReadString('\n'); err != nil {
			t.Fatalf("the connection broke: %v", err)
		}
		longest = max(longest, time.Since(sent))
	}
	monitor.Kill()
	t.Logf("the longest of the answers took %s", longest)
	for _, h := range []*lab.Host{s.a, s.c} {
		if n := s.retransmissions(h); n != "0" {
			t.Errorf("%s sent %s segments again", h.Name(), n)
		}
	}
	renewals := strings.Count(monitor.Log(), floating+"/32")
	if renewals < 3 || strings.Contains(monitor.Log(), "Deleted") || strings.Contains(monitor.Log(), "table local") {
		t.Errorf("with %d renewals the kernel told:\n%s", renewals, monitor.Log())
	}
}

// retransmissions returns how many TCP segments the host has sent again.
func (s *site) retransmissions(h *lab.Host) string {
	s.t.Helper()
	var names []string
	for line := range strings.Lines(s.run(h, "cat", "/proc/net/snmp")) {
		f := strings.Fields(line)
		if f[0] == "Tcp:" && names == nil {
			names = f
		} else if f[0] == "Tcp:" {
			return f[slices.Index(names, "RetransSegs")]
		}
	}
	s.t.Fatalf("%s has no counters of TCP", h.Name())
	return ""
}

const keepalivedConf = `vrrp_instance x {
  version 3
  state BACKUP
  interface eth0
  virtual_router_id 51
  priority %d
  advert_int 0.1
  virtual_ipaddress { 198.18.0.10/24 }
}
`

func TestLabKeepalivedTakesOverFromUs(t *testing.T) {
	lab.Need(t, "keepalived")
	s := newSite(t)
	ours := s.start(s.a, "worker", config(100))
	s.expect(ours, "state active")
	peer := lab.Keepalived(s.b, fmt.Sprintf(keepalivedConf, 90))
	s.expect(peer, ".*Entering BACKUP STATE")
	s.expectOneOwner(s.a, s.b)
	if err := ours.Stop(patience); err != nil {
		t.Error(err)
	}
	s.within(interval, "keepalived has the address of our stopped router", has(s.b))

	// And it preempts, as keepalived does unless told otherwise.
	if err := peer.Stop(patience); err != nil {
		t.Error(err)
	}
	ours = s.start(s.a, "worker", config(100))
	s.expect(ours, "state active")
	lab.Keepalived(s.b, fmt.Sprintf(keepalivedConf, 200))
	s.expect(ours, "state backup")
	s.within(time.Second, "keepalived has preempted", has(s.b))
	s.expectOneOwner(s.b, s.a)
}

func TestLabWeTakeOverFromKeepalived(t *testing.T) {
	lab.Need(t, "keepalived")
	s := newSite(t)
	s.seg.Capture("vrrp")
	peer := lab.Keepalived(s.b, fmt.Sprintf(keepalivedConf, 200))
	s.within(patience, "keepalived has the address", has(s.b))
	ours := s.start(s.a, "worker", config(100))
	s.expect(ours, "state backup")
	s.expectOneOwner(s.b, s.a)

	s.cableB.Silence(true)
	s.within(vrrp.DownInterval(100, interval), "we have the address of a silent keepalived", has(s.a))
	s.cableB.Silence(false)
	s.within(time.Second, "keepalived has preempted", not(has(s.a)))
	s.expectOneOwner(s.b, s.a)

	if err := peer.Stop(patience); err != nil {
		t.Error(err)
	}
	s.within(vrrp.SkewTime(100, interval), "we have the address of a stopped keepalived", has(s.a))
	if err := ours.Stop(patience); err != nil {
		t.Error(err)
	}
	var status vip.Status
	if err := json.Unmarshal([]byte(s.expect(ours, "status (.*)")[1]), &status); err != nil {
		t.Fatal(err)
	}
	if status.Accepted == 0 || len(status.Dropped) > 0 || status.Odd[vip.OtherAddresses]+status.Odd[vip.OtherInterval] > 0 {
		t.Errorf("of keepalived's advertisements: %+v", status)
	}
}

func TestLabTsharkHasNothingToComplainOf(t *testing.T) {
	s := newSite(t)
	s.seg.Capture("vrrp")
	cfg := config(100)
	cfg.Addresses = append(cfg.Addresses, netip.MustParsePrefix("198.18.0.11/24"))
	worker := s.start(s.a, "worker", cfg)
	s.expect(worker, "state active")
	time.Sleep(5 * time.Second) // all announcements
	if err := worker.Stop(patience); err != nil {
		t.Error(err)
	}

	frames, err := s.seg.Decoded("vrrp", "eth.dst", "ip.src", "ip.dst", "ip.ttl", "ip.dsfield.dscp", "vrrp.version", "vrrp.virt_rtr_id",
		"vrrp.short_adver_int", "vrrp.ip_addr", "vrrp.checksum.status", "_ws.expert.message", "vrrp.prio")
	if err != nil {
		t.Fatal(err)
	}
	want := "01:00:5e:00:00:12\t198.18.0.2\t224.0.0.18\t255\t48\t3\t51\t10\t198.18.0.10,198.18.0.11\t1\t\t"
	resigned := 0
	for i, frame := range frames {
		prio := "100"
		if strings.HasSuffix(frame, "\t0") || resigned > 0 {
			prio = "0"
			resigned++
		}
		if frame != want+prio {
			t.Errorf("advertisement %d of %d:\ngot  %q\nwant %q", i+1, len(frames), frame, want+prio)
		}
	}
	if len(frames) < 25 || resigned < 2 { // more than once, for nobody takes over
		t.Errorf("%d advertisements in over 5 s, %d resignations", len(frames), resigned)
	}
	s.expectGratuitousARP()
}

func (s *site) expectGratuitousARP() {
	s.t.Helper()
	frames, err := s.seg.Decoded("arp.src.proto_ipv4 == "+floating, "eth.dst", "arp.opcode", "arp.src.hw_mac", "arp.dst.hw_mac",
		"arp.dst.proto_ipv4", "arp.isgratuitous", "_ws.expert.message")
	if err != nil {
		s.t.Fatal(err)
	}
	mac := s.cableA.MAC().String()
	forms := []string{
		"ff:ff:ff:ff:ff:ff\t1\t" + mac + "\t00:00:00:00:00:00\t" + floating + "\t1\t",
		"ff:ff:ff:ff:ff:ff\t2\t" + mac + "\t" + mac + "\t" + floating + "\t1\t",
	}
	if len(frames) != 10 {
		s.t.Errorf("%d gratuitous ARP frames, want 5 of each form", len(frames))
	}
	for i, f := range frames {
		if f != forms[i%2] {
			s.t.Errorf("gratuitous ARP %d: got %q, want %q", i+1, f, forms[i%2])
		}
	}
}

func TestLabCheck(t *testing.T) {
	s := newSite(t)
	check := func(change func(*vip.Config)) string {
		cfg := config(100)
		change(&cfg)
		var lines []string
		before := s.run(s.a, "ip", "address") + s.run(s.a, "ip", "maddress")
		err := s.a.Do(func() error {
			for _, err := range vip.Check(cfg) {
				lines = append(lines, err.Error())
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if after := s.run(s.a, "ip", "address") + s.run(s.a, "ip", "maddress"); after != before {
			t.Errorf("Check changed the host:\n%s\nwas:\n%s", after, before)
		}
		return strings.Join(lines, "\n")
	}
	for name, c := range map[string]struct {
		change func(*vip.Config)
		want   string
	}{
		"good":            {func(*vip.Config) {}, ""},
		"no interface":    {func(c *vip.Config) { c.Interface = "eth7" }, "vip: there is no interface eth7; this host has eth0"},
		"the loopback":    {func(c *vip.Config) { c.Interface = "lo" }, "vip: interface lo is not an Ethernet; floating addresses need ARP\nvip: address 198.18.0.10/24 is in no net of interface lo: it has 127.0.0.1/8"},
		"another net":     {func(c *vip.Config) { c.Addresses[0] = netip.MustParsePrefix("198.18.1.10/24") }, "vip: address 198.18.1.10/24 is in no net of interface eth0: it has 198.18.0.2/24"},
		"VRID and period": {func(c *vip.Config) { c.VRID, c.AdvertInterval = 0, 5*time.Millisecond }, "vip: vrid 0: use 1 to 255, the same on all nodes of the group\nvip: advertisement interval 5ms: use 10ms to 40.95s"},
	} {
		if got := check(c.change); got != c.want {
			t.Errorf("%s:\ngot  %q\nwant %q", name, got, c.want)
		}
	}

	p := s.start(s.a, "check", config(100))
	got := s.expect(p, "check: (.*)")[1]
	if want := "run as root, or give the program CAP_NET_RAW and CAP_NET_ADMIN"; !strings.Contains(got, want) {
		t.Errorf("without rights: got %q, want %q in it", got, want)
	}
}
