package lab_test

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"everboot/internal/lab"
)

func TestMain(m *testing.M) { os.Exit(lab.TestMain(m)) }

const timeout = 20 * time.Second

// pair is two hosts at one segment.
func pair(t *testing.T) (l *lab.Lab, a, b *lab.Host, cable *lab.Cable) {
	t.Helper()
	l = lab.ForTest(t)
	lab.Need(t, "busybox")
	lan := l.Segment("lan")
	a, b = l.Host("a"), l.Host("b")
	cable = a.Join(lan, "198.18.0.2/24", "2001:db8::2/64")
	b.Join(lan, "198.18.0.3/24", "2001:db8::3/64")
	return l, a, b, cable
}

// ping sends one echo request and waits a second for its answer.
func ping(h *lab.Host, address string) error {
	_, err := h.Run(context.Background(), "busybox", "ping", "-c", "1", "-W", "1", address)
	return err
}

func TestHostsOfASegmentReachEachOther(t *testing.T) {
	_, a, b, _ := pair(t)
	start := time.Now()
	for _, address := range []string{"198.18.0.3", "2001:db8::3", "127.0.0.1"} {
		if err := ping(a, address); err != nil {
			t.Error(err)
		}
	}
	if took := time.Since(start); took > time.Second {
		t.Errorf("three pings took %v", took)
	}
	if got := fmt.Sprint(b.Addresses()); !strings.Contains(got, "198.18.0.3/24") || !strings.Contains(got, "2001:db8::3/64") {
		t.Errorf("addresses of b: %s", got)
	}
}

func TestCableCutAndSilenced(t *testing.T) {
	_, a, b, cable := pair(t)
	carrier := func() string {
		out, err := a.Run(t.Context(), "ip", "link", "show", "eth0")
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(out, "NO-CARRIER") {
			return "lost"
		}
		return "there"
	}
	check := func(when string, reachable bool, wantCarrier string) {
		t.Helper()
		if err := lab.Eventually(timeout, "carrier "+wantCarrier, func() bool { return carrier() == wantCarrier }); err != nil {
			t.Errorf("%s: %v", when, err)
		}
		for h, address := range map[*lab.Host]string{a: "198.18.0.3", b: "198.18.0.2"} {
			forget(t, h)
			if err := ping(h, address); (err == nil) != reachable {
				t.Errorf("%s: ping from %s: %v", when, h.Name(), err)
			}
		}
	}
	check("at first", true, "there")
	cable.Cut()
	check("cut", false, "lost")
	cable.Mend()
	check("mended", true, "there")
	cable.Silence(true)
	check("silenced", false, "there")
	cable.Cut()
	check("silenced and cut", false, "lost")
	cable.Mend()
	check("mended, still silenced", false, "there")
	cable.Silence(false)
	check("heard again", true, "there")
	lab.Need(t, "nft")
	cable.Lose(100)
	check("all lost", false, "there")
	cable.Lose(1)
	cable.Lose(0)
	check("nothing lost", true, "there")
}

func TestDeathTakesAllProcesses(t *testing.T) {
	_, a, b, _ := pair(t)
	daemon := startDaemon(t, a)
	p := a.Start("process", "sleep", "1000")
	other := b.Start("other", "sleep", "1000")
	a.Die()
	if p.Running() || alive(daemon) {
		t.Error("something survived its host")
	}
	if !other.Running() {
		t.Error("a process of another host died too")
	}
	if err := ping(b, "198.18.0.2"); err == nil {
		t.Error("a dead host answers")
	}
	if out, err := a.Run(t.Context(), "ip", "addr", "add", "198.18.0.77/24", "dev", "eth0"); err != nil {
		t.Fatal(err, out)
	}
	a.Revive()
	if a.Has("198.18.0.77") || !a.Has("198.18.0.2") || !a.Has("2001:db8::2") {
		t.Errorf("addresses after the revival: %v", a.Addresses())
	}
	forget(t, b)
	if err := ping(b, "198.18.0.2"); err != nil {
		t.Error(err)
	}
}

// forget lets a host look for its neighbours again: it does so once a second only after it has looked in vain.
func forget(t *testing.T, h *lab.Host) {
	t.Helper()
	if out, err := h.Run(t.Context(), "ip", "neigh", "flush", "all"); err != nil {
		t.Fatal(err, out)
	}
}

// startDaemon starts a process that has no parent in the lab, and returns its number.
func startDaemon(t *testing.T, h *lab.Host) string {
	t.Helper()
	p := h.Start("daemon", "sh", "-c", "setsid sh -c 'echo $$; exec sleep 1000' & wait")
	match, err := p.Expect(`^(\d+)$`, timeout)
	if err != nil {
		t.Fatal(err)
	}
	p.Kill()
	if !alive(match[1]) {
		t.Fatal("the daemon died with its parent")
	}
	return match[1]
}

// alive tells whether a process is there and not a zombie.
func alive(pid string) bool {
	text, err := os.ReadFile("/proc/" + pid + "/stat")
	return err == nil && !strings.Contains(string(text), ") Z ")
}

func TestProcess(t *testing.T) {
	_, a, _, _ := pair(t)
	p := a.StartWith(lab.Settings{Env: []string{"WORD=hello"}, Dir: "/"}, "talk", "sh", "-c", "echo $WORD; pwd; echo hello again; exec sleep 1000")
	for _, want := range []string{"^hello", "^/$", "^hello (again)$"} {
		if _, err := p.Expect(want, timeout); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := p.Expect("hello", 50*time.Millisecond); err == nil || !strings.Contains(err.Error(), "hello again") {
		t.Errorf("a line was seen twice, or the error does not show the output: %v", err)
	}
	if err := p.Stop(timeout); err != nil {
		t.Error(err)
	}
	failing := a.Start("failing", "sh", "-c", "echo oops; exit 3")
	if _, err := failing.Expect("never", timeout); err == nil || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("the end of the process was not noticed: %v", err)
	}
	if err := failing.Wait(timeout); err == nil || failing.ExitCode() != 3 {
		t.Errorf("exit code %d, error %v", failing.ExitCode(), err)
	}
	deaf := a.Start("deaf", "sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done")
	if _, err := deaf.Expect("ready", timeout); err != nil {
		t.Fatal(err)
	}
	if err := deaf.Stop(100 * time.Millisecond); err == nil || deaf.Running() {
		t.Errorf("a deaf process: %v", err)
	}
}

func TestSocketsOfAHost(t *testing.T) {
	_, a, b, _ := pair(t)
	listener, err := b.Listen("tcp", "198.18.0.3:80")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.RemoteAddr) })}
	go server.Serve(listener)
	defer server.Close()
	answer, err := a.HTTP().Get("http://198.18.0.3/")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if body, err := io.ReadAll(answer.Body); err != nil || !strings.HasPrefix(string(body), "198.18.0.2:") {
		t.Errorf("the server saw %s (%v)", body, err)
	}
	if _, err := a.Dial(t.Context(), "tcp", "b:80"); err == nil {
		t.Error("a name was dialled")
	}
	from, err := a.ListenPacket("udp", "198.18.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	to, err := b.ListenPacket("udp", "198.18.0.3:69")
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	if _, err := from.WriteTo([]byte("x"), to.LocalAddr()); err != nil {
		t.Fatal(err)
	}
	to.SetReadDeadline(time.Now().Add(timeout))
	if _, peer, err := to.ReadFrom(make([]byte, 1)); err != nil || peer.(*net.UDPAddr).String() != from.LocalAddr().String() {
		t.Errorf("datagram from %v (%v)", peer, err)
	}
}

func TestCloseLeavesNothing(t *testing.T) {
	if !lab.Wanted() {
		lab.ForTest(t) // skips
	}
	before := namespaces(t)
	l, err := lab.Open(lab.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	lan := l.Segment("lan")
	a := l.Host("a")
	a.Join(lan, "198.18.0.2/24")
	match := startDaemon(t, a)
	made := namespaces(t)
	maps.DeleteFunc(made, func(ns string, _ bool) bool { return before[ns] })
	if len(made) != 2 {
		t.Errorf("a host and a segment made the namespaces %v", made)
	}
	for range 2 {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
	if alive(match) {
		t.Error("a daemon survived")
	}
	if err := lab.Eventually(timeout, "namespaces go", func() error {
		for ns := range namespaces(t) {
			if made[ns] {
				return fmt.Errorf("%s is there", ns)
			}
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

// The test binary is started again for a lab that it has no time to close.
func TestKilledProgramLeavesNothing(t *testing.T) {
	if os.Getenv("LAB_TEST_ABANDON") == "1" {
		h := lab.ForTest(t).Host("a")
		fmt.Printf("daemon %s child %d\n", startDaemon(t, h), h.Start("child", "sleep", "1000").PID())
		select {}
	}
	h := lab.ForTest(t).Host("outer")
	p := h.StartWith(lab.Settings{Env: []string{"LAB_TEST_ABANDON=1", "TMPDIR=" + t.TempDir()}}, "again", os.Args[0], "-test.run=^"+t.Name()+"$")
	match, err := p.Expect(`daemon (\d+) child (\d+)`, timeout)
	if err != nil {
		t.Fatal(err)
	}
	p.Kill()
	for _, pid := range match[1:] {
		if err := lab.Eventually(timeout, "process "+pid+" dies", func() bool { return !alive(pid) }); err != nil {
			t.Error(err)
		}
	}
}

// namespaces is the set of network namespaces that this process's threads and descriptors hold.
func namespaces(t *testing.T) map[string]bool {
	t.Helper()
	set := map[string]bool{}
	note := func(path string) {
		if target, err := os.Readlink(path); err == nil && strings.HasPrefix(target, "net:[") {
			set[target] = true
		}
	}
	for _, dir := range []string{"/proc/self/fd", "/proc/self/task"} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			note(dir + "/" + e.Name())
			note(dir + "/" + e.Name() + "/ns/net")
		}
	}
	return set
}
