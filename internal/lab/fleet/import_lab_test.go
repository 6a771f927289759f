package fleet_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"everboot/internal/lab"
	"everboot/internal/lab/consulagent"
)

// importTime is for a thousand reservations on a busy machine; when each waited until the site view had it they took minutes.
const importTime = 40 * time.Second

// TestImportOfAThousand: reservations are in within seconds, with Consul and without, and all of them are in the site view when the command says so.
func TestImportOfAThousand(t *testing.T) {
	for _, registry := range []string{"consul", "embedded"} {
		t.Run(registry, func(t *testing.T) { importThousand(t, registry) })
	}
}

func importThousand(t *testing.T, registry string) {
	const count = 1000
	l := lab.ForTest(t)
	program, err := binary()
	must(t, err)
	h := l.Host("a")
	h.Join(l.Segment("lan"), "198.18.0.2/20")
	config := filepath.Join(l.Dir(), "a.toml")
	text, _, _ := strings.Cut(strings.Replace(fmt.Sprintf(dhcpOnly, l.Dir()), "198.18.0.0/24", "198.18.0.0/20", 1), "[[device]]") // they are in the registry
	if registry == "consul" {
		text += fmt.Sprintf("[registry]\nkind = \"consul\"\naddress = %q\n", consulagent.Start(t, h).Address)
	}
	must(t, os.WriteFile(config, []byte(text), 0o600))
	h.Start("everboot", program, "appliance", "--config", config)
	everboot := func(args ...string) (string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		return h.Run(ctx, append([]string{program}, args...)...)
	}
	must(t, lab.Eventually(nodeTime, "the registry takes devices", func() error {
		if out, err := everboot("device", "set", "52:54:00:00:00:02"); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}))
	rows := []string{"mac,name,address"}
	for i := range count {
		rows = append(rows, fmt.Sprintf("52:54:00:01:%02x:%02x,d%d,198.18.%d.%d", i>>8, i&255, i, 4+i>>8, i&255))
	}
	file := filepath.Join(l.Dir(), "thousand.csv")
	must(t, os.WriteFile(file, []byte(strings.Join(rows, "\n")+"\n"), 0o600))
	begun := time.Now()
	out, err := everboot("device", "import", "--format", "csv", file)
	took := time.Since(begun)
	t.Logf("%s: %s", took, strings.TrimSpace(out))
	list, _ := everboot("device", "export", "--format", "csv")
	if known := strings.Count(list, ",d"); known != count || err != nil || took > importTime {
		t.Errorf("%d devices after %s, want %d; %v", known, took, count, err)
	}
}
