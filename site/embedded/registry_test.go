package embedded

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"everboot/site"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("EVERBOOT_TEST_PUT"); dir != "" {
		putUntilKilled(dir)
	}
	goleak.VerifyTestMain(m)
}

const (
	mac1 = "52:54:00:00:00:01"
	mac2 = "52:54:00:00:00:02"
)

func TestPutAndDeleteReachTheContentAndTheDisk(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	r, changes := start(t, Config{Dir: dir})
	if first := <-changes; len(first.content.Devices) != 0 || !first.about.Reachable || first.about.Kind != "embedded" {
		t.Fatalf("at the start: %+v", first)
	}
	for _, o := range []struct {
		kind       site.Kind
		key, value string
	}{
		{site.KindDevice, mac2, `{"mac":"` + mac2 + `"}`},
		{site.KindDevice, mac1, `{"mac":"` + mac1 + `","name":"t1","vdisk":"debian"}`},
		{site.KindCollection, "lab", `{"name":"lab"}`},
		{site.KindVDisk, "debian", `{"name":"debian"}`},
		{site.KindStreamerState, "s1", `"draining"`},
	} {
		if err := r.Put(ctx, o.kind, o.key, []byte(o.value)); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Delete(ctx, site.KindDevice, mac2); err != nil {
		t.Fatal(err)
	}
	if err := r.Delete(ctx, site.KindDevice, mac2); err != nil {
		t.Errorf("deleting what is gone: %v", err)
	}
	var last told
	for range 5 { // the wish changes no content: its streamer is not there
		last = <-changes
	}
	if c := last.content; len(c.Devices) != 1 || c.Devices[0].Name != "t1" || len(c.Collections) != 1 || len(c.VDisks) != 1 {
		t.Errorf("content: %+v", c)
	}
	o, _, err := file{dir}.load()
	if err != nil {
		t.Fatal(err)
	}
	if len(o.Devices) != 1 || o.Wishes["s1"].State != site.Draining || o.Wishes["s1"].Stamp == 0 {
		t.Errorf("on disk: %+v", o)
	}
	raw, err := os.ReadFile(filepath.Join(dir, "registry.json"))
	if err != nil || !strings.HasPrefix(string(raw), "{\n\t\"format\": 1,\n") {
		t.Errorf("a person cannot read %q (%v)", raw, err)
	}
}

func TestStaticObjectsWin(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	if err := (file{dir}).save(objects{Devices: map[string]site.Device{mac1: device(mac1, "stored")}}); err != nil {
		t.Fatal(err)
	}
	r, changes := start(t, Config{Dir: dir, StaticFile: "/etc/everboot/appliance.toml", Static: site.Content{
		Devices: []site.Device{device(mac1, "written")}, VDisks: []site.VDisk{{Name: "debian"}}, Collections: []site.Collection{{Name: "lab"}},
	}})
	if c := (<-changes).content; len(c.Devices) != 1 || c.Devices[0].Name != "written" {
		t.Errorf("content: %+v", c)
	}
	for kind, o := range map[site.Kind][2]string{
		site.KindDevice: {mac1, `{"mac":"` + mac1 + `"}`}, site.KindVDisk: {"debian", `{"name":"debian"}`}, site.KindCollection: {"lab", `{"name":"lab"}`},
	} {
		for what, err := range map[string]error{"put": r.Put(ctx, kind, o[0], []byte(o[1])), "delete": r.Delete(ctx, kind, o[0])} {
			if err == nil || !strings.Contains(err.Error(), "is written in /etc/everboot/appliance.toml") {
				t.Errorf("%s of a static %s: %v", what, kind, err)
			}
		}
	}
}

func TestBadObjectsAreRefused(t *testing.T) {
	r, _ := start(t, Config{})
	for _, o := range []struct {
		kind       site.Kind
		key, value string
	}{
		{site.KindDevice, mac1, `{`},
		{site.KindDevice, mac1, `{"mac":"` + mac2 + `"}`},
		{site.KindVDisk, "debian", `{"name":"other"}`},
		{site.KindStreamerState, "s1", `"asleep"`},
		{"leases", "x", `{}`},
	} {
		if err := r.Put(t.Context(), o.kind, o.key, []byte(o.value)); err == nil {
			t.Errorf("put of %s %s = %s was taken", o.kind, o.key, o.value)
		}
	}
	for _, o := range []struct {
		kind site.Kind
		key  string
	}{
		{"leases", "x"}, {site.KindDevice, strings.ReplaceAll(mac1, ":", "-")}, {site.KindDevice, "52:54:00:00:00:0B"}, {site.KindDevice, "t1"}, {site.KindCollection, "Lab"},
		{site.KindVDisk, ""}, {site.KindStreamerState, "s 1"},
	} {
		if err := r.Delete(t.Context(), o.kind, o.key); err == nil {
			t.Errorf("%s %q, which is none, can be deleted", o.kind, o.key)
		}
	}
}

func TestConfigIsChecked(t *testing.T) {
	dir := t.TempDir()
	for name, tt := range map[string]struct {
		cfg  Config
		want string
	}{
		"no folder":     {Config{Site: "berlin"}, "give a folder"},
		"no site":       {Config{Dir: dir}, "site name"},
		"negative TTL":  {Config{Dir: dir, Site: "berlin", TTL: -1}, "TTL"},
		"device twice":  {Config{Dir: dir, Site: "berlin", StaticFile: "a.toml", Static: site.Content{Devices: []site.Device{device(mac1, "a"), device(mac1, "b")}}}, "a.toml: device " + mac1 + " is there twice"},
		"bad device":    {Config{Dir: dir, Site: "berlin", Static: site.Content{Devices: []site.Device{{}}}}, "is not the address of one machine"},
		"bad streamer":  {Config{Dir: dir, Site: "berlin", Static: site.Content{Streamers: []site.Streamer{{Name: "s1", Site: "paris"}}}}, "site"},
		"bad vDisk":     {Config{Dir: dir, Site: "berlin", Static: site.Content{VDisks: []site.VDisk{{Name: "a b"}}}}, "vDisk name"},
		"no collection": {Config{Dir: dir, Site: "berlin", Static: site.Content{Collections: []site.Collection{{}}}}, "collection name"},
	} {
		if _, err := New(tt.cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want an error with %q", name, err, tt.want)
		}
	}
}

// TestFileOfANewerEverboot: who goes back to an older everboot starts, is told what it does not know, and loses nothing.
func TestFileOfANewerEverboot(t *testing.T) {
	dir := t.TempDir()
	raw := `{"format":1,"devices":{"` + mac1 + `":{"mac":"` + mac1 + `","name":"t1","colour":"red"}}}`
	if err := os.WriteFile(filepath.Join(dir, "registry.json"), []byte(raw), 0o600); err != nil {
		t.Fatal(err)
	}
	o, leftOut, err := file{dir}.load()
	if err != nil || o.Devices[mac1].Name != "t1" || leftOut == nil || !strings.Contains(leftOut.Error(), "colour") {
		t.Errorf("read %+v, left out %v, %v", o.Devices, leftOut, err)
	}
	if kept, err := os.ReadFile(filepath.Join(dir, "registry.json.before")); err != nil || string(kept) != raw {
		t.Errorf("kept %q, %v", kept, err)
	}
}

func TestDamagedFileSaysWhatToDo(t *testing.T) {
	for name, tt := range map[string]struct{ raw, want string }{
		"empty":           {"", "at byte 0"},
		"cut off":         {`{"format":1,"devices":{"52:54`, "unexpected EOF"},
		"two values":      {`{"format":1}{}`, "more than one JSON value"},
		"other format":    {`{"format":2}`, "its format is 2"},
		"key and MAC":     {`{"format":1,"devices":{"` + mac2 + `":{"mac":"` + mac1 + `","name":"t1"}}}`, "its key is"},
		"unknown state":   {`{"format":1,"streamer-states":{"s1":{"state":"asleep","stamp":1}}}`, "asleep"},
		"null characters": {"\x00\x00\x00\x00", "invalid character"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "registry.json")
			if err := os.WriteFile(path, []byte(tt.raw), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := New(Config{Dir: dir, Site: "berlin"})
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "move it away") {
				t.Errorf("got %v, want an error with %q, the path and what to do", err, tt.want)
			}
		})
	}
}

func TestFullDiskKeepsTheOldState(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	r, changes := start(t, Config{Dir: dir})
	<-changes
	if err := os.Remove(dir); err != nil { // as good as full: no file can be made
		t.Fatal(err)
	}
	if err := r.Put(t.Context(), site.KindVDisk, "debian", []byte(`{"name":"debian"}`)); err == nil || !strings.Contains(err.Error(), "saving the registry") {
		t.Errorf("got %v", err)
	}
	if _, err := r.Announce(t.Context(), streamer("s1")); err != nil {
		t.Errorf("an announcement needs no disk: %v", err)
	}
	if c := (<-changes).content; len(c.VDisks) != 0 || len(c.Streamers) != 1 {
		t.Errorf("content: %+v", c)
	}
}

func TestManyPutsShareWrites(t *testing.T) {
	dir := t.TempDir()
	r, _ := start(t, Config{Dir: dir})
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			name := fmt.Sprintf("v%d", i)
			if err := r.Put(t.Context(), site.KindVDisk, name, []byte(`{"name":"`+name+`"}`)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if o, _, err := (file{dir}).load(); err != nil || len(o.VDisks) != 200 {
		t.Errorf("%d of 200 on disk (%v)", len(o.VDisks), err)
	}
}

func TestStoppedRegistryAnswers(t *testing.T) {
	r, err := New(Config{Dir: t.TempDir(), Site: "berlin"})
	if err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Put(short, site.KindVDisk, "debian", []byte(`{"name":"debian"}`)); err == nil {
		t.Error("put before Run was taken")
	}
	if err := r.Run(short, func(site.Content, site.Registry) {}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Announce(t.Context(), streamer("s1")); err == nil {
		t.Error("announcement after Run was taken")
	}
	if err := r.Run(t.Context(), nil); err == nil {
		t.Error("Run ran twice")
	}
}

func TestStreamerLeavesAfterTheTTL(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		r, changes := start(t, Config{Dir: dir})
		<-changes
		begin := time.Now()
		announce := func(name string) {
			if _, err := r.Announce(t.Context(), streamer(name)); err != nil {
				t.Fatal(err)
			}
		}
		announce("s1")
		announce("s2")
		for range 4 { // s1 goes silent, s2 goes on
			time.Sleep(3 * time.Second)
			announce("s2")
		}
		var log []string
		for len(changes) > 0 {
			log = append(log, names((<-changes).content.Streamers))
		}
		if got, want := strings.Join(log, ", "), "s1=active, s1=active s2=active, s2=active"; got != want {
			t.Errorf("told %q, want %q", got, want)
		}
		if last := <-changes; len(last.content.Streamers) != 0 {
			t.Errorf("told %s", names(last.content.Streamers))
		}
		if got := time.Since(begin); got != 12*time.Second+DefaultTTL {
			t.Errorf("s2 left %s after the start, want 22s", got)
		}
	})
}

func TestContentIsToldOnlyWhenItChanges(t *testing.T) {
	r, changes := start(t, Config{})
	<-changes
	for range 3 {
		if _, err := r.Announce(t.Context(), streamer("s1")); err != nil {
			t.Fatal(err)
		}
		if err := r.Put(t.Context(), site.KindVDisk, "debian", []byte(`{"name":"debian"}`)); err != nil {
			t.Fatal(err)
		}
	}
	busy := streamer("s1")
	busy.Sessions = 7
	if _, err := r.Announce(t.Context(), busy); err != nil {
		t.Fatal(err)
	}
	if err := r.Withdraw(t.Context(), "s1"); err != nil {
		t.Fatal(err)
	}
	if err := r.Withdraw(t.Context(), "s1"); err != nil {
		t.Fatal(err)
	}
	for _, want := range []int{1, 1, 1, 0} { // s1, debian, sessions, withdrawn
		if got := <-changes; len(got.content.Streamers) != want {
			t.Errorf("%d streamers, want %d", len(got.content.Streamers), want)
		}
	}
	if len(changes) != 0 {
		t.Errorf("told %d times too often", len(changes))
	}
}

func TestStaticStreamerUntilItAnnouncesItself(t *testing.T) {
	written := streamer("s1")
	written.State, written.Replicas = "", nil
	r, changes := start(t, Config{Static: site.Content{Streamers: []site.Streamer{written}}})
	if c := (<-changes).content; names(c.Streamers) != "s1=active" || len(c.Streamers[0].Replicas) != 0 {
		t.Errorf("written: %+v", c.Streamers)
	}
	if _, err := r.Announce(t.Context(), streamer("s1")); err != nil {
		t.Fatal(err)
	}
	if c := (<-changes).content; len(c.Streamers) != 1 || len(c.Streamers[0].Replicas) != 1 {
		t.Errorf("announced: %+v", c.Streamers)
	}
}

// putUntilKilled runs in a process of its own: it puts vDisks v0, v1, … and prints each name once Put has returned.
func putUntilKilled(dir string) {
	r, err := New(Config{Dir: dir, Site: "berlin"})
	if err != nil {
		panic(err)
	}
	go r.Run(context.Background(), func(site.Content, site.Registry) {})
	for i := 0; ; i++ {
		name := fmt.Sprintf("v%d", i)
		if err := r.Put(context.Background(), site.KindVDisk, name, []byte(`{"name":"`+name+`"}`)); err != nil {
			panic(err)
		}
		fmt.Println(name)
	}
}

func TestWhatWasPutSurvivesKill(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for round := range 5 {
		dir := t.TempDir()
		cmd := exec.Command(exe)
		cmd.Env = append(os.Environ(), "EVERBOOT_TEST_PUT="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		acknowledged, line := 0, ""
		for acknowledged < 20+round*7 {
			if _, err := fmt.Fscanln(out, &line); err != nil {
				t.Fatal(err)
			}
			acknowledged++
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for { // what it printed before it died counts too
			if _, err := fmt.Fscanln(out, &line); err != nil {
				break
			}
			acknowledged++
		}
		_ = cmd.Wait() // says "killed"
		o, _, err := file{dir}.load()
		if err != nil {
			t.Fatal(err)
		}
		if n := len(o.VDisks); n < acknowledged || n > acknowledged+1 {
			t.Errorf("round %d: %d vDisks on disk, %d were acknowledged", round, n, acknowledged)
		}
	}
}
