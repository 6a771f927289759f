package streamer_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"everboot/streamer"
)

func TestStore(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a[b]*") // no pattern
	store := streamer.NewStore(dir, slog.New(slog.DiscardHandler))
	if disks, err := store.Scan(); err != nil || len(disks) != 0 {
		t.Errorf("no store yet: %v, %v", disks, err)
	}
	path := putDisk(t, dir, "debian", "2", 0)
	putDisk(t, dir, "debian", "10", 1)
	putDisk(t, dir, "Debian", "1", 2)
	putDisk(t, dir, "debian", "0", 3)
	odd := putDisk(t, dir, "odd", "1", 4)
	if err := os.Truncate(odd, 1000); err != nil {
		t.Fatal(err)
	}
	disks, err := store.Scan()
	if err != nil || len(disks) != 2 || disks[0].Version != 2 || disks[1].Version != 10 || disks[0].Path != path {
		t.Fatalf("got %+v, %v", disks, err)
	}
	if _, ok := store.Known(disks[0]); ok {
		t.Error("known before it was read")
	}
	digest, err := store.Digest(t.Context(), disks[0])
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := store.Known(disks[0]); !ok || got != digest {
		t.Errorf("known: %s, %v", got, ok)
	}
	if other, err := store.Digest(t.Context(), disks[1]); err != nil || other == digest {
		t.Errorf("other content: %s, %v", other, err)
	}
	if err := os.Chtimes(path, time.Now(), time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	changed, err := store.Scan()
	if err != nil || changed[0] == disks[0] {
		t.Fatalf("the change is not seen: %v, %v", changed, err)
	}
	if _, ok := store.Known(changed[0]); ok {
		t.Error("the manifest is stale")
	}
	if again, err := store.Digest(t.Context(), changed[0]); err != nil || again != digest {
		t.Errorf("same content, other time: %s, %v; want %s", again, err, digest)
	}
	if err := os.WriteFile(filepath.Join(dir, "debian/2/manifest.json"), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, ok := store.Known(changed[0]); ok {
		t.Error("a broken manifest is believed")
	}
}

// Of the streamers that have one folder, one reads a new replica; the others take its word, and read by themselves if it dies.
func TestSharedStoreIsReadOnce(t *testing.T) {
	dir := t.TempDir()
	path := putDisk(t, dir, "debian", "1", 0)
	store := streamer.NewStore(dir, slog.New(slog.DiscardHandler))
	store.Shared = true
	disks, err := store.Scan()
	if err != nil || len(disks) != 1 {
		t.Fatal(disks, err)
	}
	other, err := os.Create(filepath.Join(filepath.Dir(path), ".reading"))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Flock(int(other.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if d, err := store.Digest(t.Context(), disks[0]); err == nil || !strings.Contains(err.Error(), "another streamer") {
		t.Errorf("read beside another: %q, %v", d, err)
	}
	other.Close()
	digest, err := store.Digest(t.Context(), disks[0])
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(filepath.Dir(path), ".reading")); err != nil || info.Mode().Perm() != 0o666 {
		t.Errorf("streamers with another user cannot lock it: %v, %v", info.Mode(), err)
	}
	manifest := filepath.Join(filepath.Dir(path), "manifest.json")
	text, err := os.ReadFile(manifest)
	if err != nil {
		t.Fatal(err)
	}
	word := strings.Repeat("ab", 32) // of one that was faster; nobody reads the disk again
	if err := os.WriteFile(manifest, []byte(strings.ReplaceAll(string(text), string(digest), word)), 0o644); err != nil {
		t.Fatal(err)
	}
	if again, err := store.Digest(t.Context(), disks[0]); err != nil || string(again) != word {
		t.Errorf("got %s, %v", again, err)
	}
}

// TestContentDigest: the digest of a content is the same on every machine and in every version of this program. If this fails
// replicas of running sites stop to match.
func TestContentDigest(t *testing.T) {
	path := putDisk(t, t.TempDir(), "debian", "1", 0)
	const want = "0125c320eb4923eb668df326bbfb299d0b00a8fadb1fdbdeb464ce346033581f"
	if got, err := streamer.ContentDigest(t.Context(), path, nil); err != nil || got != want {
		t.Errorf("got %s, %v", got, err)
	}
}
