package bootpair_test

import (
	"bytes"
	"crypto/rand"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"everboot/internal/lab"
	"everboot/internal/lab/bootpair"
)

// TestLabOtherFileBeginsAnew: the owner of the floating address dies when its clients have its OACK and no block; who takes over has another file of
// that name and size. Its clients get that file whole.
func TestLabOtherFileBeginsAnew(t *testing.T) {
	lab.Need(t, "busybox", "curl", "nft")
	old, want := make([]byte, 300000), make([]byte, 300000)
	rand.Read(old)
	rand.Read(want)
	p, _ := started(t, old, "")
	owner, heir := together(t, p)
	p.LAN.Capture("other-file")
	if err := os.WriteFile(filepath.Join(p.Lab.Dir(), heir, "boot", bootpair.FileName), want, 0o644); err != nil {
		t.Fatal(err)
	}
	// The owner hears no ACKs of these clients: they come no further than its OACK.
	for _, rule := range []string{
		"add table ip acks", "add chain ip acks in { type filter hook input priority 0; }",
		"add rule ip acks in ip saddr " + p.From[0].String() + " udp dport 69 @th,64,16 4 drop",
	} {
		if out, err := p.Host[owner].Run(t.Context(), "nft", rule); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	var group sync.WaitGroup
	for name, argv := range map[string][]string{
		"busybox": {"busybox", "tftp", "-g", "-b", "1428", "-r", bootpair.FileName, "-l", "OUT", bootpair.VIP},
		"curl":    {"curl", "-sSf", "-m", "60", "-o", "OUT", "tftp://" + bootpair.VIP + "/" + bootpair.FileName},
	} {
		out := filepath.Join(t.TempDir(), name)
		argv[slices.Index(argv, "OUT")] = out
		group.Go(func() {
			said, err := p.Client.Run(t.Context(), argv...)
			got, _ := os.ReadFile(out)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: %d bytes of %d, the old file's %t, %v: %s", name, len(got), len(want), bytes.Equal(got, old), err, said)
			}
		})
	}
	time.Sleep(time.Second) // both have asked by then, and the heir was told
	p.Host[owner].KillAll()
	group.Wait()
	seen, err := p.LAN.TFTPSeen()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range seen {
		if s.File == bootpair.FileName && s.Err != nil {
			t.Errorf("%v: %v", s.Client, s.Err)
		}
	}
}
