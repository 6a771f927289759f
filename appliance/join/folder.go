package join

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/google/renameio/v2"

	"everboot/appliance"
	"everboot/internal/durable"
)

// serviceGroup is the group of the user that the package's units run as. It reads what a running appliance needs.
const serviceGroup = "everboot"

// folder is where a node's configuration is made.
type folder string

func (f folder) path(name string) string { return filepath.Join(string(f), name) }

// isFree looks that a configuration can be made here, before anything is asked or made.
func (f folder) isFree() error {
	if _, err := os.Stat(f.path(ConfigFile)); err == nil {
		return fmt.Errorf("%s is there already: this node belongs to a site; move it away to begin anew", f.path(ConfigFile))
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("looking at %s: %w; run this as root", string(f), err)
	}
	for _, name := range []string{peerKeyFile, authorityFile, authorityKey, certificateFile, certificateKey} {
		if _, err := os.Lstat(f.path(name)); err == nil {
			return isThere(f.path(name))
		}
	}
	if err := os.MkdirAll(string(f), 0o750); err != nil {
		return fmt.Errorf("making the folder of the configuration: %w; run this as root", err)
	}
	probe, err := os.CreateTemp(string(f), ".everboot-*")
	if err != nil {
		return fmt.Errorf("writing to %s: %w; run this as root", string(f), err)
	}
	probe.Close()
	return os.Remove(probe.Name())
}

// maxMarks is how many files another node is asked about: an appliance has fewer.
const maxMarks = 64

// marks are those of the files that are here already and that the site may have, too.
func (f folder) marks(token [16]byte) map[string][]byte {
	entries, err := os.ReadDir(string(f))
	if err != nil {
		return nil // what cannot be read is met when it is written
	}
	all := map[string][]byte{}
	for _, e := range entries {
		info, err := os.Stat(f.path(e.Name()))
		if err != nil || !info.Mode().IsRegular() || info.Size() > maxFile || !isFileName(e.Name()) || len(all) == maxMarks {
			continue
		}
		if content, err := os.ReadFile(f.path(e.Name())); err == nil {
			all[e.Name()] = mark(token, content)
		}
	}
	return all
}

func isThere(path string) error {
	return fmt.Errorf("%s is there already, and %s is not: move it away to begin anew", path, ConfigFile)
}

// write writes the files and then the configuration, which is checked before it appears. After an error nothing of it is left. A file that is
// there already is never replaced: it may be somebody's key. One with the same content is as good: a streamer on this node has the same token.
func (f folder) write(files map[string][]byte, config []byte) (err error) {
	var made []string
	defer func() {
		if err != nil {
			for _, path := range made {
				err = errors.Join(err, os.Remove(path))
			}
		}
	}()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if had, err := os.ReadFile(f.path(name)); err == nil && bytes.Equal(bytes.TrimSpace(had), bytes.TrimSpace(files[name])) {
			continue
		}
		if err := f.create(name, files[name]); err != nil {
			return err
		}
		made = append(made, f.path(name))
	}
	draft := "." + ConfigFile + ".draft"
	if err := os.RemoveAll(f.path(draft)); err != nil {
		return err
	}
	if err := f.create(draft, config); err != nil {
		return err
	}
	made = append(made, f.path(draft))
	cfg, err := appliance.Load(f.path(draft))
	if err != nil {
		return fmt.Errorf("checking the new configuration: %w", err)
	}
	if err := makeBootFolder(cfg); err != nil {
		return err
	}
	if err := os.Link(f.path(draft), f.path(ConfigFile)); err != nil { // unlike a rename, it replaces nothing
		return fmt.Errorf("putting the configuration in place: %w", err)
	}
	made = append(made, f.path(ConfigFile))
	if err := durable.SyncDir(string(f)); err != nil {
		return err
	}
	_ = os.Remove(f.path(draft)) // it is the configuration's second name, and harmless
	return nil
}

// makeBootFolder makes the folder of boot files where it belongs to the state. The package has made it already.
func makeBootFolder(c *appliance.Config) error {
	if inside, err := filepath.Rel(c.State, c.TFTP.Root); c.TFTP.Root == "" || err != nil || !filepath.IsLocal(inside) {
		return nil
	}
	if err := os.MkdirAll(c.TFTP.Root, 0o755); err != nil {
		return fmt.Errorf("making the folder of boot files: %w", err)
	}
	return nil
}

// create makes a file that only root and, but for the authority's key, the service may read.
func (f folder) create(name string, content []byte) error {
	file, err := os.OpenFile(f.path(name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return isThere(f.path(name))
	}
	if err != nil {
		return fmt.Errorf("making %s: %w", f.path(name), err)
	}
	_, err = file.Write(content)
	if err == nil && name != authorityKey {
		err = share(file)
	}
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		os.Remove(f.path(name))
		return fmt.Errorf("writing %s: %w", f.path(name), err)
	}
	return nil
}

// share lets the service's group read a file, where there is one and we may give the file to it.
func share(file *os.File) error {
	group, err := user.LookupGroup(serviceGroup)
	if err != nil || os.Geteuid() != 0 {
		return nil // without the package whoever owns the file runs the appliance
	}
	gid, err := strconv.Atoi(group.Gid)
	if err != nil {
		return err
	}
	return errors.Join(file.Chown(-1, gid), file.Chmod(0o640))
}

// replaceKeeping replaces a file as a whole and leaves its owner and its rights as they are; of a symbolic link it replaces what that leads to.
func replaceKeeping(path string, content []byte) error {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	f, err := renameio.NewPendingFile(path, renameio.WithTempDir(filepath.Dir(path)), renameio.WithExistingPermissions())
	if err != nil {
		return err
	}
	defer f.Cleanup()
	if _, err := f.Write(content); err != nil {
		return err
	}
	if err := keepOwner(path, f.File); err != nil {
		return err
	}
	if err := f.CloseAtomicallyReplace(); err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(path))
}

// made lists the paths of what write made.
func (f folder) made(files map[string][]byte) []string {
	list := []string{f.path(ConfigFile)}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		list = append(list, f.path(name))
	}
	return list
}
