package appliance

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"
)

func TestWhatDevicesRunIsKept(t *testing.T) {
	r := &runningFile{
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
