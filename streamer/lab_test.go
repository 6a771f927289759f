package streamer_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"everboot/internal/iscsi"
	"everboot/internal/lab"
	"everboot/site"
	"everboot/streamer"
)

func TestLabSameDiskEverywhere(t *testing.T) {
	f := newFarm(t, false, false)
	see := func(address string) (pages [][]byte) {
		s, err := f.dial(t.Context(), address)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		b, err := s.Inquiry(t.Context())
		pages = append(pages, b)
		for _, page := range []byte{0x80, 0x83, 0xb0, 0xb1, 0xb2} {
			if err == nil {
				b, err = s.InquiryPage(t.Context(), page)
				pages = append(pages, b)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := s.Keys.Get("DefaultTime2Wait"); ok && got != "0" {
			t.Errorf("%s: DefaultTime2Wait is %s", address, got)
		}
		var refused *iscsi.SCSIError
		_, err = s.Do(t.Context(), iscsi.WriteCommand(0, make([]byte, 512), 512))
		if !errors.As(err, &refused) || refused.Key != iscsi.SenseDataProtect {
			t.Errorf("%s: a write is answered with %v", address, err)
		}
		if b, err := s.ReadBlocks(t.Context(), 0, 8); err != nil || !bytes.Equal(b, f.content[:4096]) {
			t.Errorf("%s: block 0: %v", address, err)
		}
		return pages
	}
	first, second := see("198.18.0.21:3260"), see("198.18.0.22:3260")
	for i := range first {
		if !bytes.Equal(first[i], second[i]) {
			t.Errorf("INQUIRY %d differs:\n%x\n%x", i, first[i], second[i])
		}
	}
	name := site.InitiatorName(t1)
	out, err := f.client.Run(t.Context(), "iscsi-ls", "-i", name, "-s", "iscsi://"+portal)
	if err != nil || !strings.Contains(out, "Target:"+f.iqn()+" Portal:"+portal) || !strings.Contains(out, "Size:7M") {
		t.Errorf("iscsi-ls through the director: %v\n%s", err, out)
	}
	out, err = f.client.Run(t.Context(), "iscsi-readcapacity16", "-i", name, "iscsi://"+portal+"/"+f.iqn()+"/1")
	if err != nil || !strings.Contains(out, "8388608") {
		t.Errorf("iscsi-readcapacity16 through the director: %v\n%s", err, out)
	}
}

func TestLabStreamerKilled(t *testing.T) {
	for _, tt := range []struct {
		name string
		kill func(f *farm, name string)
	}{
		{"the target program", func(f *farm, name string) { f.killEngine(name) }},
		{"the agent", func(f *farm, name string) {
			engine := f.enginePID(name)
			f.agents[name].Kill()
			f.t.Cleanup(func() { gone(f.t, engine) })
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFarm(t, false, false)
			r := f.during(func() {
				name := f.serving(t1)
				tt.kill(f, name)
				eventuallyLong(t, "the reader is elsewhere", func() bool { s := f.serving(t1); return s != "" && s != name })
			})
			if r.stall > allowed || r.logins != 2 {
				t.Errorf("longest stall %v with %d logins, want under %v with 2", r.stall, r.logins, allowed)
			}
		})
	}
}

// TestLabLibiscsiFailsOver: another initiator than ours, with 32 commands under way.
func TestLabLibiscsiFailsOver(t *testing.T) {
	f := newFarm(t, false, false)
	perf := f.client.Start("perf", "iscsi-perf", "-i", site.InitiatorName(t1), "iscsi://"+portal+"/"+f.iqn()+"/1")
	defer perf.Kill()
	eventuallyLong(t, "libiscsi reads", func() bool { s := f.director.Sessions(); return len(s) == 1 && s[0].BytesOut > 1<<20 })
	name := f.serving(t1)
	f.killEngine(name)
	eventuallyLong(t, "libiscsi reads elsewhere", func() bool {
		s := f.director.Sessions()
		return len(s) == 1 && s[0].Streamer != name && s[0].BytesOut > 1<<20
	})
	if !perf.Running() {
		t.Errorf("iscsi-perf gave up:\n%s", perf.Log())
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var closed time.Time
	for _, e := range f.events {
		if e.What == "failover" || e.What == "login" && !closed.IsZero() {
			t.Logf("%s: %s", e.What, e.Detail)
			if away := e.At.Sub(closed); !closed.IsZero() && away > allowed {
				t.Errorf("libiscsi was away for %v", away)
			}
		}
		if e.What == "closed" {
			closed = e.At
		}
	}
}

func TestLabOtherDigestIsNeverPicked(t *testing.T) {
	f := newFarm(t, false, true)
	f.during(func() {})
	f.agents["s1"].Kill()
	if _, err := f.dial(t.Context(), portal); err == nil {
		t.Error("a login succeeded")
	}
	if reasons := f.director.Stats().Logins; reasons[site.NoHealthyStreamer]+reasons[site.DigestDiffers] != 1 {
		t.Errorf("reasons: %v", reasons)
	}
	for _, e := range f.events {
		if e.What == "login" && !strings.Contains(e.Detail, "from s1") {
			t.Errorf("event: %v", e)
		}
	}
}

func TestLabDrain(t *testing.T) {
	f := newFarm(t, false, false)
	r := f.during(func() {
		name := f.serving(t1)
		if err := os.WriteFile(filepath.Join(f.state[name], "wanted"), []byte(site.Draining), 0o644); err != nil {
			t.Fatal(err)
		}
		eventuallyLong(t, "the session moves", func() bool { s := f.serving(t1); return s != "" && s != name })
		if err := os.WriteFile(filepath.Join(f.state[name], "wanted"), []byte(site.Active), 0o644); err != nil {
			t.Fatal(err)
		}
		eventuallyLong(t, "it is active again", func() bool { return f.view.Load().Streamers[name].State == site.Active })
		name = f.serving(t1)
		start, engine := time.Now(), f.enginePID(name)
		if err := f.agents[name].Stop(8 * time.Second); err != nil {
			t.Errorf("stopping the agent: %v", err)
		}
		gone(t, engine)
		t.Logf("the agent stopped in %v", time.Since(start))
		if _, ok := f.announced(name); ok {
			t.Error("it is still announced")
		}
	})
	if r.stall > allowed || r.logins != 3 {
		t.Errorf("longest stall %v with %d logins, want under %v with 3", r.stall, r.logins, allowed)
	}
}

// TestLabStreamerFallsSilent: nobody tells the director that the streamer's cable is cut; its own keepalive does.
func TestLabStreamerFallsSilent(t *testing.T) {
	f := newFarm(t, false, false)
	r := f.during(func() {
		name := f.serving(t1)
		f.cables[name].Silence(true)
		eventuallyLong(t, "the session moves", func() bool { s := f.serving(t1); return s != "" && s != name })
	})
	if r.stall > 4*time.Second || r.logins != 2 {
		t.Errorf("longest stall %v with %d logins, want under 4 s with 2", r.stall, r.logins)
	}
}

func TestLabReplicaWrittenOverIsWithdrawn(t *testing.T) {
	f := newFarm(t, false, false)
	r := f.during(func() {
		name := f.serving(t1)
		path := filepath.Join(f.state[name], "store/debian/1/disk.raw")
		now := time.Now() // the content stays, so that the reader has nothing to complain about
		if err := os.Chtimes(path, now, now); err != nil {
			t.Fatal(err)
		}
		eventuallyLong(t, "the session moves", func() bool { s := f.serving(t1); return s != "" && s != name })
		eventuallyLong(t, "the replica is read and served again", func() bool {
			s, ok := f.announced(name)
			return ok && len(s.Replicas) == 1
		})
		folder := filepath.Join(f.state[name], "store/windows/3")
		if err := os.MkdirAll(folder, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(folder, "disk.raw.partial"), make([]byte, 1<<20), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(folder, "disk.raw.partial"), filepath.Join(folder, "disk.raw")); err != nil {
			t.Fatal(err)
		}
		eventuallyLong(t, "a new replica is served too", func() bool {
			s, ok := f.announced(name)
			return ok && len(s.Replicas) == 2
		})
	})
	if r.stall > 2*allowed { // tgt ends the commands under way first
		t.Errorf("longest stall %v", r.stall)
	}
}

func TestLabPortTaken(t *testing.T) {
	l := lab.ForTest(t)
	lab.Need(t, "tgtd", "tgtadm")
	host := l.Host("s1")
	host.Join(l.Segment("lan"), "198.18.0.21/24")
	taken, err := host.Listen("tcp", "198.18.0.21:3260")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	settings := fmt.Sprintf(`{"Node": "s1", "Address": "198.18.0.21:3260", "Store": %q, "State": %[1]q}`, t.TempDir())
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	agent := host.StartWith(lab.Settings{Env: []string{envAgent + "=" + settings}}, "agent", self)
	agent.Wait(patience)
	if agent.ExitCode() != 1 || !strings.Contains(agent.Log(), "198.18.0.21:3260") || !strings.Contains(agent.Log(), "port free") {
		t.Errorf("exit code %d:\n%s", agent.ExitCode(), agent.Log())
	}
}

// TestLabCHAP: libiscsi proves who it is to the director, and goes on with a tgtd that knows nothing of it.
func TestLabCHAP(t *testing.T) {
	f := newFarm(t, false)
	f.secrets.Store(&streamer.CHAP{User: "t1", Secret: "secret-of-the-device", MutualUser: "director", MutualSecret: "secret-of-the-director"})
	read := func(user string) (string, error) {
		return f.client.Run(t.Context(), "iscsi-readcapacity16", "-i", site.InitiatorName(t1), "iscsi://"+user+portal+"/"+f.iqn()+"/1")
	}
	if out, err := read("t1%secret-of-the-device@"); err != nil || !strings.Contains(out, "8388608") {
		t.Errorf("with the secret: %v\n%s", err, out)
	}
	for _, user := range []string{"t1%not-the-secret-at-all@", ""} {
		if out, err := read(user); err == nil {
			t.Errorf("without the secret: %s", out)
		}
	}
	if n := f.director.Stats().Logins[site.NotAuthenticated]; n != 2 {
		t.Errorf("%d logins refused, want 2", n)
	}
}
