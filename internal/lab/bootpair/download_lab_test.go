package bootpair_test

import (
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"testing"
	"time"

	"everboot/internal/lab"
	"everboot/internal/lab/bootpair"
)

// TestLabDownloadGoesOn: curl reads 200 MB over HTTP while guard and worker of the floating address's owner die. It learns of it at once, goes on
// with a range at the other appliance, and has the right bytes. It does so, too, where it goes on only if the file has the entity tag that the dead one gave it
// (If-Range): the other got its copy at another time, and has not read it before.
func TestLabDownloadGoesOn(t *testing.T) {
	for name, validated := range map[string]bool{"range": false, "if-range": true} {
		t.Run(name, func(t *testing.T) { downloadGoesOn(t, validated) })
	}
}

func downloadGoesOn(t *testing.T, validated bool) {
	lab.Need(t, "curl")
	want := make([]byte, 200e6)
	rand.Read(want)
	p, _ := started(t, want, "")
	owner, heir := together(t, p)
	var args []string
	if validated {
		var tag string
		if err := lab.Eventually(20*time.Second, "the owner has read its file", func() (err error) {
			if tag, err = p.Tag(bootpair.VIP); err == nil && len(tag) != 34 {
				err = fmt.Errorf("the tag is %s", tag)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		args = []string{"-H", "If-Range: " + tag}
	}
	took, starts, sum, err := p.Download(int64(len(want)), func() error { p.Host[owner].KillAll(); return nil }, args...)
	t.Logf("%v, curl started %d times", took.Round(time.Millisecond), starts)
	if err != nil || sum != sha256.Sum256(want) {
		t.Fatalf("%x, want %x: %v", sum, sha256.Sum256(want), err)
	}
	if starts < 2 {
		t.Error("curl read it in one go: the owner died too late")
	}
	if now, err := p.Owner(); err == nil && now != heir {
		t.Errorf("the owner is %q, want %s", now, heir)
	}
	// A connection that nobody resets hangs for minutes.
	if took > 30*time.Second {
		t.Errorf("it took %v", took)
	}
}
