package appliance

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

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
	f := &chapFile{path: path}
	if err := f.load(); err != nil {
		t.Fatal(err)
	}
	if c, ok := f.of(site.MAC{0x52, 0x54, 0, 0, 0, 1}); !ok || c.User != "t1" || c.MutualSecret != "secret-of-the-director" {
		t.Errorf("got %+v, %v", c, ok)
	}
	if _, ok := f.of(site.MAC{2}); ok {
		t.Error("a device without a line has secrets")
	}
	for _, bad := range []string{"52:54:00:00:00:01 t1 short", "x t1 secret-of-the-device", "52:54:00:00:00:01 t1", "52:54:00:00:00:01 t1 same-same-same d same-same-same"} {
		write(bad)
		err := (&chapFile{path: path}).load()
		if err == nil || strings.Contains(err.Error(), "secret-of") || strings.Contains(err.Error(), "same-same") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
