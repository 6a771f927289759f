// Package everboot holds nothing but the test that keeps the picture of the rooms true.
package everboot

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// rooms never import each other; appliance alone knows them all.
var rooms = []string{"dhcp", "tftp", "health", "vip", "streamer", "image"}

// TestRoomsDoNotImportEachOther reads what each package really depends on.
func TestRoomsDoNotImportEachOther(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}}{{range .Deps}} {{.}}{{end}}`, "./...").CombinedOutput()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, out)
	}
	seen := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		pkg, ok := strings.CutPrefix(fields[0], "everboot/")
		if !ok {
			continue
		}
		room, _, _ := strings.Cut(pkg, "/")
		seen[room] = true
		for _, dep := range fields[1:] {
			dep, ok := strings.CutPrefix(dep, "everboot/")
			if !ok {
				continue
			}
			other, _, _ := strings.Cut(dep, "/")
			if why := forbidden(pkg, room, dep, other); why != "" {
				t.Errorf("%s imports %s: %s", pkg, dep, why)
			}
		}
	}
	for _, room := range rooms {
		if !seen[room] {
			t.Errorf("room %s is not there", room)
		}
	}
}

func forbidden(pkg, room, dep, other string) string {
	switch {
	case slices.Contains(rooms, room) && slices.Contains(rooms, other) && room != other:
		return "rooms do not know each other; put what they share into site"
	case slices.Contains(rooms, room) && (other == "appliance" || other == "cmd"):
		return "a room does not know who joins it"
	case pkg == "site" && other != "site":
		return "site is the vocabulary and does no I/O"
	case room == "site" && other != "site" && dep != "internal/iscsi" && dep != "internal/durable":
		return "a registry knows the vocabulary only"
	case strings.HasPrefix(dep, "internal/lab") && !strings.HasPrefix(pkg, "internal/lab"):
		return "the lab is for tests, the demo and the benchmarks"
	}
	return ""
}
