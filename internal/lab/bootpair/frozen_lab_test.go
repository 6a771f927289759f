package bootpair_test

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"everboot/internal/lab"
	"everboot/internal/lab/bootpair"
)

// TestLabFrozenWorker: a worker that hangs while its guard lives costs the address within a second, and makes no second owner when it wakes.
// Advertisements are authenticated, so that the guard's farewell and what the woken worker says afterwards must both count.
func TestLabFrozenWorker(t *testing.T) {
	p, bin := started(t, []byte("boot"), "authenticate = true\n")
	owner, heir := together(t, p)
	if err := p.SignalWorker(owner, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	// isOwner waits until a node is the only owner, and looks whether it stays that.
	isOwner := func(name string, during time.Duration) {
		t.Helper()
		if err := lab.Eventually(10*time.Second, name+" owns the address alone", func() error {
			now, err := p.Owner()
			if err == nil && now != name {
				err = fmt.Errorf("%q does", now)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(during); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			if now, err := p.Owner(); err != nil || now != name {
				t.Fatalf("the owner is %q, want %s: %v", now, name, err)
			}
		}
	}
	isOwner(heir, 3*time.Second)
	if err := p.SignalWorker(owner, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	isOwner(heir, 2*time.Second)
	if out, err := p.Host[heir].Run(t.Context(), bin, "vip", "release"); err != nil { // to the woken one
		t.Errorf("%v: %s", err, out)
	}
	isOwner(owner, time.Second)
	// The next worker counts on from where this one and the guard were.
	if err := p.KillWorker(owner); err != nil {
		t.Fatal(err)
	}
	err := lab.Eventually(30*time.Second, "the new worker is a backup", func() error {
		s, err := p.Status(owner)
		if err == nil && (len(s.VIPs) != 1 || s.VIPs[0].State != "backup" || s.VIPs[0].Owner == "") {
			err = fmt.Errorf("it says %+v", s.VIPs)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if out, err := p.Host[heir].Run(t.Context(), bin, "vip", "release"); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	isOwner(owner, time.Second)
	for _, name := range bootpair.Names {
		s, err := p.Status(name)
		if err != nil || len(s.VIPs) != 1 {
			t.Fatalf("%v, %v", s.VIPs, err)
		}
		for odd, n := range s.VIPs[0].Odd {
			if strings.HasPrefix(odd, "dropped: ") && n > 0 {
				t.Errorf("%s has %d of %q", name, n, odd)
			}
		}
	}
}
