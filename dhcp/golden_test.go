package dhcp

import (
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"everboot/internal/golden"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// captured returns what real clients sent, by name.
func captured(t testing.TB) map[string][]byte {
	t.Helper()
	files, err := filepath.Glob("testdata/*.hex")
	if err != nil || len(files) == 0 {
		t.Fatalf("no captured messages: %v", err)
	}
	messages := make(map[string][]byte)
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		_, digits, _ := strings.Cut(string(text), "\n") // after the comment
		b, err := hex.DecodeString(strings.Join(strings.Fields(digits), ""))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		messages[strings.TrimSuffix(filepath.Base(name), ".hex")] = b
	}
	return messages
}

// TestCaptured: what real clients sent, and what they are answered.
func TestCaptured(t *testing.T) {
	for name, b := range captured(t) {
		t.Run(name, func(t *testing.T) {
			q, err := dhcpv4.FromBytes(b)
			if err != nil {
				t.Fatal(err)
			}
			p, e := Handle(epoch, testView(), q, NewState(alone()))
			if p == nil {
				t.Fatal(e.Decision)
			}
			wellFormed(t, q, p, "198.18.0.2")
			d := e.Decision
			golden.Compare(t, name+".txt", d.String()+"\nclient "+string(d.Client)+", to "+destinationOf(q, p, alone().Subnets[0].Network).addr.String()+"\n"+p.Summary())
		})
	}
}
