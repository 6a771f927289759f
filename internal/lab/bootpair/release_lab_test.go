package bootpair_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"testing"
	"time"

	"everboot/internal/lab"
	"everboot/internal/lab/bootpair"
	"everboot/internal/lab/tftpload"
)

// TestLabRelease: the command moves the address while clients read; an appliance that does not own it says so, and one that is alone
// keeps it.
func TestLabRelease(t *testing.T) {
	want := make([]byte, 1<<20)
	rand.Read(want)
	p, bin := started(t, want, "")
	owner, heir := together(t, p)
	release := func(name string) (string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		return p.Host[name].Run(ctx, bin, "vip", "release")
	}
	if out, err := release(heir); err == nil || !strings.Contains(out, "does not own") {
		t.Errorf("release by who does not own the address: %v, %q", err, out)
	}
	r, err := p.Load(tftpload.Options{Clients: 20, Want: want, Block: 1432, Firmware: bootpair.Firmware, Timeout: 60 * time.Second}, func() {
		if out, err := release(owner); err != nil {
			t.Errorf("release by the owner: %v, %q", err, out)
		}
		if now, err := p.Owner(); err != nil || now != heir { // it is true when the command has returned
			t.Errorf("the owner is %q, want %s: %v", now, heir, err)
		}
	})
	t.Logf("while clients read: %v", r)
	if err != nil || r.Complete != 20 || r.Failed != 0 {
		t.Errorf("while clients read: %v, %v", r, err)
	}
	if err := p.Stop(owner); err != nil {
		t.Error(err)
	}
	if out, err := release(heir); err == nil || !strings.Contains(out, "no other node") {
		t.Errorf("release by who is alone: %v, %q", err, out)
	}
	if now, err := p.Owner(); err != nil || now != heir {
		t.Errorf("the owner is %q, want %s: %v", now, heir, err)
	}
	if err := p.Stop(heir); err != nil {
		t.Error(err)
	}
	startsWhereTheAddressIsInUse(t, p, owner)
}

// startsWhereTheAddressIsInUse starts an appliance while a host that knows nothing of VRRP has the address.
func startsWhereTheAddressIsInUse(t *testing.T, p *bootpair.Pair, name string) {
	t.Helper()
	other := func(change string) {
		if out, err := p.Client.Run(t.Context(), "ip", "address", change, bootpair.VIP+"/32", "dev", "eth0"); err != nil {
			t.Fatalf("ip address %s: %v, %s", change, err, out)
		}
	}
	other("add")
	p.Start(name)
	err := lab.Eventually(30*time.Second, "the appliance says that the address is in use", func() error {
		s, err := p.Status(name)
		if err == nil && (len(s.VIPs) == 0 || s.VIPs[0].Odd["in_use"] == 0) {
			err = fmt.Errorf("it says %+v", s.VIPs)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if p.Host[name].Has(bootpair.VIP) {
		t.Error("the address has two owners")
	}
	other("del")
	err = lab.Eventually(10*time.Second, "the appliance has the address that is free", func() error {
		_, err := p.Owner()
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
