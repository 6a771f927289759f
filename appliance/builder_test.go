package appliance

import (
	"context"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"everboot/site"
)

var quiet = slog.New(slog.DiscardHandler)

func testConfig(t *testing.T) *Config {
	t.Helper()
	c := defaultConfig()
	c.Node, c.Site, c.Interface, c.State = "a", "berlin", "lo", t.TempDir()
	return &c
}

func observed() site.Observed {
	return site.Observed{Boot: site.BootService{Address: netip.MustParseAddr("198.18.0.10")}}
}

// running starts a builder and its saver, and returns it with what stops both.
func running(t *testing.T, c *Config) (*builder, context.Context, func()) {
	t.Helper()
	b, err := newBuilder(c, observed(), quiet, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{}, 2)
	go func() { _ = b.Run(ctx, observed()); done <- struct{}{} }()
	go func() { _ = b.Save(ctx); done <- struct{}{} }()
	return b, ctx, func() { cancel(); <-done; <-done }
}

func oneStreamer() site.Content {
	return site.Content{Streamers: []site.Streamer{{Name: "s1", Site: "berlin", Power: 1, State: site.Active}}}
}

// TestViewSurvivesARestartWithoutTheRegistry: what the registry said before is served from, marked as from disk, with no streamer up until our own probe
// says so.
func TestViewSurvivesARestartWithoutTheRegistry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testConfig(t)
		b, ctx, stop := running(t, c)
		b.registryChanged(ctx, oneStreamer(), site.Registry{Kind: "consul", Reachable: true})
		b.probed(ctx, "streamer/s1", site.Check{Health: site.Up})
		synctest.Wait()
		if v := b.View(); v.Streamers["s1"].Check.Health != site.Up || v.FromDisk {
			t.Errorf("before: %+v", v)
		}
		time.Sleep(2 * savePace)
		stop()

		b, ctx, stop = running(t, c)
		defer stop()
		synctest.Wait()
		v := b.View()
		if s, ok := v.Streamers["s1"]; !ok || s.Check.Health != site.Unknown || !v.FromDisk || v.Registry.Reachable {
			t.Errorf("after: streamer %+v (%v), from disk %v, registry %+v", s, ok, v.FromDisk, v.Registry)
		}
		b.registryChanged(ctx, site.Content{}, site.Registry{Kind: "consul", Error: "connection refused"})
		synctest.Wait()
		if v := b.View(); len(v.Streamers) != 1 || !v.FromDisk || v.Registry.Error == "" {
			t.Errorf("a registry that cannot be reached changed what we know: %+v", v)
		}
		b.registryChanged(ctx, oneStreamer(), site.Registry{Kind: "consul", Reachable: true})
		synctest.Wait()
		if v := b.View(); v.FromDisk || !v.Registry.Reachable {
			t.Errorf("after the registry spoke: from disk %v, %+v", v.FromDisk, v.Registry)
		}
	})
}

// TestLastChangeIsSaved: a stop that follows on a change within the pace of saving must not lose it.
func TestLastChangeIsSaved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testConfig(t)
		b, ctx, stop := running(t, c)
		b.registryChanged(ctx, oneStreamer(), site.Registry{Kind: "consul", Reachable: true})
		synctest.Wait()
		b.registryChanged(ctx, site.Content{Devices: []site.Device{{MAC: site.MAC{2}}}}, site.Registry{Kind: "consul", Reachable: true})
		synctest.Wait()
		stop()
		if saved, err := loadView(b.path); err != nil || len(saved.Devices) != 1 {
			t.Errorf("saved: %+v, %v", saved, err)
		}
	})
}

// TestViewIsSavedOnceTheDiskTakesIt: even if the view does not change again.
func TestViewIsSavedOnceTheDiskTakesIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testConfig(t)
		c.State = filepath.Join(c.State, "full")
		b, ctx, stop := running(t, c)
		defer stop()
		b.registryChanged(ctx, oneStreamer(), site.Registry{Kind: "consul", Reachable: true})
		time.Sleep(3 * savePace)
		if err := os.Mkdir(c.State, 0o700); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * savePace)
		if saved, err := loadView(b.path); err != nil || len(saved.Streamers) != 1 {
			t.Errorf("saved: %+v, %v", saved, err)
		}
	})
}

// TestNobodyWaitsForABuilderThatHasEnded: rooms stop together with it and may have more to say than its inbox takes.
func TestNobodyWaitsForABuilderThatHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _, stop := running(t, testConfig(t))
		stop()
		for range cap(b.inbox) + 1 { // synctest reports a deadlock
			b.probed(context.Background(), checkBootHTTP, site.Check{Health: site.Down})
		}
	})
}

func TestViewEpochRisesOnlyWithAChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, ctx, stop := running(t, testConfig(t))
		defer stop()
		for range 3 {
			b.registryChanged(ctx, oneStreamer(), site.Registry{Kind: "embedded", Reachable: true})
			synctest.Wait()
		}
		if v := b.View(); v.Epoch != 1 {
			t.Errorf("epoch %d after three equal answers of the registry, want 1", v.Epoch)
		}
	})
}

func TestBrokenOrForeignViewDoesNotKeepAnApplianceFromStarting(t *testing.T) {
	for name, text := range map[string]string{"broken": `{"site": "ber`, "empty": "", "foreign": `{"site": "munich", "streamers": {"m1": {}}}`} {
		t.Run(name, func(t *testing.T) {
			c := testConfig(t)
			path := filepath.Join(c.State, "view.json")
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			b, err := newBuilder(c, observed(), quiet, time.Now)
			if err != nil {
				t.Fatal(err)
			}
			if v := b.View(); v.Site != "berlin" || v.FromDisk || len(v.Streamers) != 0 {
				t.Errorf("view %+v", v)
			}
			if _, err := os.Stat(path + ".broken"); (err == nil) != (name != "foreign") {
				t.Errorf("put aside: %v", err == nil)
			}
		})
	}
}
