// Package durable replaces files so that neither a crash nor a power cut leaves half of one: the content, the name, and then the folder
// that holds the name are on disk before it returns.
package durable

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"
)

// WriteFile makes path a file with these bytes and this mode: at any moment it is the old one or the new one as a whole. What a kill half-way leaves beside it begins with a dot and its name.
func WriteFile(path string, content []byte, mode os.FileMode) error {
	dir := filepath.Dir(path)
	// Without a folder named, renameio may write its temporary file into the system's and rename it across.
	if err := renameio.WriteFile(path, content, mode, renameio.WithTempDir(dir)); err != nil {
		return err
	}
	return SyncDir(dir)
}

// Sweep takes away what writes of path left beside it that were killed half-way. Call it before the file is written for the first time.
func Sweep(path string) {
	left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+"[0-9]*")) // the pattern is ours and good
	for _, old := range left {
		os.Remove(old) // a file that stays does no harm
	}
}

// SyncDir makes what was created, renamed and removed in a folder last: renameio syncs the file, but not the folder.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("syncing the folder %s: %w", dir, err)
	}
	return nil
}
