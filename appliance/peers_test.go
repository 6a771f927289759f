package appliance

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestBadPeers: each is refused with a word on what to do, before anything starts.
func TestBadPeers(t *testing.T) {
	for peers, want := range map[string]string{
		`addresses = ["198.18.0.10"]`:                 "is the VIP",
		`addresses = ["198.18.0.3", "198.18.0.3"]`:    "stands there twice",
		`addresses = ["2001:db8::3"]`:                 "use the IPv4 address",
		"addresses = [\"198.18.0.3\"]\nkey = \"abc\"": "a secret is named by its file",
	} {
		path := filepath.Join(t.TempDir(), "appliance.toml")
		text := "node = \"a\"\ninterface = \"eth0\"\n[vip]\naddresses = [\"198.18.0.10/24\"]\n[peers]\n" + peers + "\n"
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want it to say %q", peers, err, want)
		}
	}
}
