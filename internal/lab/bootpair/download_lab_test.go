package bootpair_test

import (
	"crypto/rand"
	"crypto/sha256"
	"testing"
	"time"

	"everboot/internal/lab"
)

// TestLabDownloadGoesOn: curl reads 200 MB over HTTP while guard and worker of the floating address's owner die. It learns of it at once, goes on
// with a range at the other appliance, and has the right bytes.
func TestLabDownloadGoesOn(t *testing.T) {
	lab.Need(t, "curl")
	want := make([]byte, 200e6)
	rand.Read(want)
	p, _ := started(t, want, "")
	owner, heir := together(t, p)
	took, starts, sum, err := p.Download(int64(len(want)), func() error { p.Host[owner].KillAll(); return nil })
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
