package bootpair_test

import (
	"crypto/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"everboot/internal/lab"
	"everboot/internal/lab/bootpair"
	"everboot/internal/lab/tftpload"
)

func TestMain(m *testing.M) {
	code := lab.TestMain(m)
	os.RemoveAll(built)
	os.Exit(code)
}

// built is the folder that binary made; empty: none.
var built string

// binary builds everboot as it is released, once a run.
var binary = sync.OnceValues(func() (_ string, err error) {
	if built, err = os.MkdirTemp("", "everboot-"); err != nil {
		return "", err
	}
	out := filepath.Join(built, "everboot")
	cmd := exec.Command("go", "build", "-o", out, "everboot/cmd/everboot")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	return out, cmd.Run()
})

// started is a pair of appliances that serve a file. What is said of the floating address is added to their configuration.
func started(t *testing.T, content []byte, vip string) (p *bootpair.Pair, bin string) {
	t.Helper()
	l := lab.ForTest(t)
	bin, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	if p, err = bootpair.New(l, bin, content); err != nil {
		t.Fatal(err)
	}
	for _, name := range bootpair.Names {
		text, err := os.ReadFile(p.Config(name))
		if err != nil {
			t.Fatal(err)
		}
		more := strings.Replace(string(text), "[vip]\n", "[vip]\n"+vip, 1)
		if err := os.WriteFile(p.Config(name), []byte(more), 0o644); err != nil {
			t.Fatal(err)
		}
		p.Start(name)
	}
	return p, bin
}

// together waits until both know each other, and tells who owns the address.
func together(t *testing.T, p *bootpair.Pair) (owner, heir string) {
	t.Helper()
	if err := p.AwaitTogether(60 * time.Second); err != nil {
		t.Fatal(err)
	}
	owner, err := p.Owner()
	if err != nil {
		t.Fatal(err)
	}
	heir = bootpair.Names[0]
	if heir == owner {
		heir = bootpair.Names[1]
	}
	return owner, heir
}

// TestLabTransfersGoOn: 100 clients in lockstep, with iPXE's and with EDK2's timers and rules, read a file while the floating address
// moves: its owner's worker is killed, its cable is cut, it is stopped. Each reads every byte without beginning again.
func TestLabTransfersGoOn(t *testing.T) {
	want := make([]byte, 1<<20)
	rand.Read(want)
	p, _ := started(t, want, "")
	for _, c := range []struct {
		name  string
		move  func(owner string) error
		after func(owner string)
	}{
		{"worker killed", p.KillWorker, nil},
		{"cable cut", func(owner string) error { p.Host[owner].Cables()[0].Cut(); return nil }, func(owner string) { p.Host[owner].Cables()[0].Mend() }},
		{"stopped", p.Stop, p.Start},
	} {
		if err := p.AwaitTogether(60 * time.Second); err != nil {
			t.Fatal(err)
		}
		owner, err := p.Owner()
		if err != nil {
			t.Fatal(err)
		}
		r, err := p.Load(tftpload.Options{Clients: 100, Want: want, Block: 1432, Firmware: bootpair.Firmware, Timeout: 60 * time.Second}, func() {
			if err := c.move(owner); err != nil {
				t.Error(err)
			}
		})
		t.Logf("%s: %v", c.name, r)
		if err != nil || r.Complete != 100 || r.Failed != 0 {
			t.Errorf("%s: %v, %v", c.name, r, err)
		}
		if c.after != nil {
			c.after(owner)
		}
	}
}
