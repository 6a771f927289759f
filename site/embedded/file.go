package embedded

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"everboot/internal/durable"
	"everboot/site"
)

const (
	fileName = "registry.json"
	// fileFormat is the only format so far. A later everboot that changes the meaning of a key raises it.
	fileFormat = 1
)

// file is where the objects are kept.
type file struct{ dir string }

// onDisk is what the file looks like.
type onDisk struct {
	Format int `json:"format"`
	objects
}

func (f file) path() string { return filepath.Join(f.dir, fileName) }

// load reads the objects; that there is no file means that there are none. The second value says what was left out of a file that a newer
// everboot has written, or an editor: the file as it was is kept beside it.
func (f file) load() (o objects, leftOut, err error) {
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return objects{}, nil, fmt.Errorf("making the registry's folder: %w", err)
	}
	durable.Sweep(f.path())
	raw, err := os.ReadFile(f.path())
	if errors.Is(err, fs.ErrNotExist) {
		return objects{}, nil, nil
	}
	if err != nil {
		return objects{}, nil, fmt.Errorf("reading the registry: %w", err)
	}
	if o, err = decode(raw, strict); err == nil {
		return o, nil, nil
	}
	leftOut = err
	if o, err = decode(raw, lenient); err != nil {
		return objects{}, nil, fmt.Errorf("%s is damaged: %w; mend it with an editor, or copy it from another appliance of the site, "+
			"or move it away to start with the objects of the configuration file alone", f.path(), err)
	}
	before := f.path() + ".before"
	if err := durable.WriteFile(before, raw, 0o600); err != nil {
		return objects{}, nil, fmt.Errorf("keeping %s, which has keys that this everboot does not know, as %s: %w", f.path(), before, err)
	}
	return o, fmt.Errorf("%s: %w; what this everboot does not know is left out, and kept in %s", f.path(), leftOut, before), nil
}

const (
	strict  = true
	lenient = false
)

// decode reads the file, strictly or without what it does not know, and checks every object as if it were put.
func decode(raw []byte, strictly bool) (objects, error) {
	var d onDisk
	dec := json.NewDecoder(bytes.NewReader(raw))
	if strictly {
		dec.DisallowUnknownFields()
	}
	if err := dec.Decode(&d); err != nil {
		return objects{}, fmt.Errorf("at byte %d: %w", dec.InputOffset(), err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return objects{}, fmt.Errorf("at byte %d: there is more than one JSON value", dec.InputOffset())
	}
	if d.Format != fileFormat {
		return objects{}, fmt.Errorf("its format is %d and this everboot reads %d only: a newer one wrote it", d.Format, fileFormat)
	}
	err := errors.Join(checkAll(site.KindDevice, d.Devices), checkAll(site.KindCollection, d.Collections), checkAll(site.KindVDisk, d.VDisks))
	for name, w := range d.Wishes {
		err = errors.Join(err, checkAll(site.KindStreamerState, map[string]site.StreamerState{name: w.State}))
	}
	return d.objects, err
}

func checkAll[V any](kind site.Kind, objects map[string]V) error {
	for key, v := range objects {
		value, err := json.Marshal(v)
		if err != nil {
			return fmt.Errorf("checking %s: %w", key, err)
		}
		if err := new(site.Content).AddObject(kind, key, value); err != nil {
			return err
		}
	}
	return nil
}

// save replaces the file. It is on disk, and found there after a power cut, when save returns nil.
func (f file) save(o objects) error {
	raw, err := json.MarshalIndent(onDisk{Format: fileFormat, objects: o}, "", "\t")
	if err != nil {
		return fmt.Errorf("saving the registry: %w", err)
	}
	raw = append(raw, '\n')
	if err := durable.WriteFile(f.path(), raw, 0o600); err != nil {
		return fmt.Errorf("saving the registry: %w", err)
	}
	return nil
}
