package appliance

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"everboot/site"
)

func TestCHAPFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "chap")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("# devices\n52:54:00:00:00:01 t1 secret-of-the-device d secret-of-the-director\n\n52:54:00:00:00:02 t2 another-long-secret\n")
	f := &chapFile{path: path, log: slog.New(slog.DiscardHandler)}
	if err := f.load(); err != nil {
		t.Fatal(err)
	}
	if c, ok := f.of(site.MAC{0x52, 0x54, 0, 0, 0, 1}); !ok || c.User != "t1" || c.MutualSecret != "secret-of-the-director" {
		t.Errorf("got %+v, %v", c, ok)
	}
	if _, ok := f.of(site.MAC{2}); ok {
		t.Error("a device without a line has secrets")
	}
	for _, bad := range []string{"52:54:00:00:00:01 t1 short", "x t1 secret-of-the-device", "52:54:00:00:00:01 t1", "52:54:00:00:00:01 t1 same-same-same d same-same-same",
		"52:54:00:00:00:01 t1 same-same-same\n52:54:00:00:00:02 t2 another-secret-of d same-same-same"} {
		write(bad)
		err := (&chapFile{path: path}).load()
		if err == nil || strings.Contains(err.Error(), "secret-of") || strings.Contains(err.Error(), "same-same") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// TestCHAPFailsClosed: a device whose line cannot be read, or is being written, is not one without a line.
func TestCHAPFailsClosed(t *testing.T) {
	const line = "52:54:00:00:00:01 t1 secret-of-the-device\n"
	mac := site.MAC{0x52, 0x54, 0, 0, 0, 1}
	old := time.Now().Add(-time.Hour)
	for _, tt := range []struct {
		name, text string
		at         time.Time // of the change; zero: now
		told       bool
	}{
		{"a line that is too long", "#" + strings.Repeat("x", 70000) + "\n" + line, old.Add(time.Minute), true},
		{"a line that is wrong", "x\n", old.Add(time.Minute), true},
		{"emptied a moment ago", "", time.Time{}, false},
		{"of the same time", "52:54:00:00:00:01 t1 a-newer-secret-of-the-device\n", old, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "chap")
			write := func(text string, at time.Time) {
				if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
				if err := os.Chtimes(path, at, at); err != nil {
					t.Fatal(err)
				}
			}
			var log strings.Builder
			f := &chapFile{path: path, log: slog.New(slog.NewTextHandler(&log, nil))}
			write(line, old)
			f.of(mac)
			if tt.at.IsZero() { // not when the table was made: what came in between takes its time
				tt.at = time.Now()
			}
			write(tt.text, tt.at)
			f.of(mac)
			c, ok := f.of(mac)
			if !ok || strings.HasPrefix(tt.text, "52:") && c.Secret != "a-newer-secret-of-the-device" {
				t.Errorf("got %+v, %v", c, ok)
			}
			if n := strings.Count(log.String(), "level=ERROR"); n > 1 || (n == 1) != tt.told || strings.Contains(log.String(), "secret-of") {
				t.Errorf("the log says %q", log.String())
			}
		})
	}
}
