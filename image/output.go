package image

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/google/renameio/v2"
)

// WriteFile writes a file as a whole: at any moment it is the old one or the new one, and what was written of one that failed is removed. A path
// that is no regular file is refused.
func WriteFile(path string, content io.WriterTo) error {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("%s is no file, and is left as it is; for a disk there is everboot image disk --device", path)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("looking at the output: %w", err)
	}
	f, err := renameio.NewPendingFile(path, renameio.WithPermissions(0o644))
	if err != nil {
		return fmt.Errorf("making %s: %w", path, plainPathError(err))
	}
	defer f.Cleanup() // removes what was not put in place
	if _, err := content.WriteTo(f); err != nil {
		return fmt.Errorf("writing %s: %w; nothing of it is left", path, plainPathError(err))
	}
	if err := f.CloseAtomicallyReplace(); err != nil {
		return fmt.Errorf("writing %s: %w; nothing of it is left", path, plainPathError(err))
	}
	return nil
}

// plainPathError takes the name of a temporary file out of an error: the reader knows another one.
func plainPathError(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}
