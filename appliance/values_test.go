package appliance

import (
	"strings"
	"testing"
)

// TestUnreadableSecretIsNotMadeAnew: who may not read the site's token must not be told to write another one over it.
func TestUnreadableSecretIsNotMadeAnew(t *testing.T) {
	folder := t.TempDir()
	for path, advice := range map[string]string{folder + "/missing": "make it with", folder: "run this as its owner"} { // a folder cannot be read, by root neither
		_, err := Secret{path: path}.Read()
		if err == nil || !strings.Contains(err.Error(), advice) {
			t.Errorf("reading %s: %v; want advice to %s", path, err, advice)
		}
	}
}
