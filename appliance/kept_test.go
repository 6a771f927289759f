package appliance

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
)

func TestWhatDevicesRunIsKept(t *testing.T) {
	r := &keptFile{
		path: filepath.Join(t.TempDir(), "running.json"), whole: func() []byte { return []byte("x") }, log: slog.New(slog.DiscardHandler),
		dirty: make(chan struct{}, 1),
	}
	if b, err := r.load(); b != nil || err != nil {
		t.Fatalf("before anything was kept: %q, %v", b, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // what changed last is saved also at the end
	r.changed()
	if err := r.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if b, err := r.load(); string(b) != "x" || err != nil {
		t.Errorf("kept: %q, %v", b, err)
	}
}

// TestWhatDevicesRunIsSavedAgain: a disk that was full for a while costs nothing but that while.
func TestWhatDevicesRunIsSavedAgain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r := &keptFile{
		path: filepath.Join(dir, "running.json"), log: slog.New(slog.DiscardHandler), dirty: make(chan struct{}, 1),
	}
	r.whole = func() []byte { // the first time there is no place for it; the end comes before the second
		if ctx.Err() != nil {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Error(err)
			}
		}
		defer cancel()
		return []byte("x")
	}
	r.changed()
	if err := r.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if b, err := r.load(); string(b) != "x" || err != nil {
		t.Errorf("kept: %q, %v", b, err)
	}
}
