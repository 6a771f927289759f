package bootpair_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"everboot/appliance/web"
	"everboot/internal/lab"
	"everboot/internal/lab/bootpair"
	"everboot/internal/lab/consulagent"
)

// TestLeasesOutliveTheirDisks: one appliance gives an address and dies. The other, which never ran before, starts with an empty disk and no peer: it knows from
// Consul who has that address, gives it to nobody else, and to its client again. Without Consul it goes on, and says how far behind Consul is.
func TestLeasesOutliveTheirDisks(t *testing.T) {
	l := lab.ForTest(t)
	bin, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	p, err := bootpair.New(l, bin, []byte("a boot file"))
	if err != nil {
		t.Fatal(err)
	}
	c1 := l.Host("c1")
	c1.Join(p.LAN, "198.18.0.31/15")
	agent := consulagent.Start(t, c1)
	for _, name := range bootpair.Names {
		f, err := os.OpenFile(p.Config(name), os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(f, "\n[registry]\nkind = \"consul\"\naddress = %q\n\n[[dhcp.subnet]]\nnetwork = \"198.18.0.0/15\"\nrange = \"198.18.4.10-198.18.4.250\"\n", agent.Address)
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	one, two, three := l.Host("one"), l.Host("two"), l.Host("three")
	for _, h := range []*lab.Host{one, two, three} {
		h.Join(p.LAN)
	}

	p.Start("a")
	given := ask(t, one)
	lag := func(name, what string, good func(float64) bool) {
		t.Helper()
		if err := lab.Eventually(30*time.Second, what, func() error {
			n, err := metric(p.Host[name], "everboot_dhcp_registry_lag_seconds")
			if err == nil && !good(n) {
				err = fmt.Errorf("it is %v s behind", n)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	lag("a", "Consul knows of the lease", func(s float64) bool { return s == 0 })
	p.Host["a"].Die()

	p.Start("b")
	if err := lab.Eventually(30*time.Second, "b knows the lease that a gave", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		out, err := p.Host["b"].Run(ctx, bin, "lease", "list", "--json")
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		var list []web.Lease
		if err := json.Unmarshal([]byte(out), &list); err != nil || len(list) != 1 || list[0].Address != given {
			return fmt.Errorf("it knows %s", out)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if got := ask(t, two); got == given {
		t.Errorf("%s was given twice", got)
	}
	if got := ask(t, one); got != given {
		t.Errorf("its client was given %s, and had %s", got, given)
	}
	agent.Kill()
	ask(t, three)
	lag("b", "b says that Consul is behind", func(s float64) bool { return s > 6 })
	agent.Start()
	agent.WaitLeader()
	lag("b", "Consul knows of all leases again", func(s float64) bool { return s == 0 })
}

// ask has a host ask for an address until it gets one.
func ask(t *testing.T, h *lab.Host) (a netip.Addr) {
	t.Helper()
	if err := lab.Eventually(time.Minute, h.Name()+" has an address", func() error {
		lease, err := lab.Udhcpc(h, "eth0")
		a = lease.Addr()
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return a
}

// metric asks an appliance for one of its metrics without a label.
func metric(h *lab.Host, name string) (value float64, err error) {
	client := h.HTTP()
	defer client.CloseIdleConnections()
	r, err := client.Get("http://127.0.0.1:8667/metrics")
	if err != nil {
		return 0, err
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			_, err := fmt.Sscan(rest, &value)
			return value, err
		}
	}
	return 0, fmt.Errorf("there is no metric %s", name)
}
