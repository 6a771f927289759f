package durable

import (
	"os"
	"path/filepath"
	"testing"
)

// TestWriteFile: a file is replaced as a whole, has the mode asked for, and nothing stays beside it.
func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "view.json")
	for _, text := range []string{"first, and longer", "second"} {
		if err := WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != text {
			t.Errorf("reads %q, %v; want %q", got, err, text)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// TestWriteFileKeepsTheOldOne: a file that cannot be written leaves the old one as it was.
func TestWriteFileKeepsTheOldOne(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "kept", "view.json")
	if err := os.MkdirAll(path, 0o755); err != nil { // a folder stands where the file would go
		t.Fatal(err)
	}
	if err := WriteFile(path, []byte("new"), 0o600); err == nil {
		t.Fatal("a folder was replaced by a file")
	}
	if info, err := os.Stat(path); err != nil || !info.IsDir() {
		t.Errorf("what was there is %v, %v", info, err)
	}
	if err := WriteFile(filepath.Join(dir, "gone", "view.json"), nil, 0o600); err == nil {
		t.Error("a file in a folder that is not there was written")
	}
}
