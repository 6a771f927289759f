package appliance

import (
	"os"
	"path/filepath"
	"testing"
)

// TestSeveralIPv6SubnetsLoad: which of them is the interface's is for the host to say, and no reason to refuse the file.
func TestSeveralIPv6SubnetsLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.toml")
	text := "node = \"a\"\ninterface = \"eth0\"\n[[dhcp.subnet]]\nnetwork = \"2001:db8::/64\"\n[[dhcp.subnet]]\nnetwork = \"2001:db8:7::/64\"\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err != nil {
		t.Error(err)
	}
}
