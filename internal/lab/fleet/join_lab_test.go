package fleet_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"everboot/appliance/web"
	"everboot/internal/lab"
)

// newcomer is a host on which everboot was never set up.
type newcomer struct {
	*lab.Host
	program, dir string
}

func (n newcomer) file(name string) string { return filepath.Join(n.dir, name) }

// own are the flags that two nodes of one file system need.
func (n newcomer) own() []string {
	return []string{"--dir", n.dir, "--state", n.file("state"), "--node", n.Name()}
}

func (n newcomer) run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	return n.Run(ctx, append([]string{n.program}, args...)...)
}

// TestInitAndJoinMakeAPair: the first node makes the site and prints a line; the second is given it; both then form a pair that owns one floating
// address, share what is under way, and outlive each other. The line opens nothing a second time.
func TestInitAndJoinMakeAPair(t *testing.T) {
	l := lab.ForTest(t)
	program, err := binary()
	must(t, err)
	lan := l.Segment("lan")
	nodes := map[string]newcomer{}
	for i, name := range []string{"a", "b", "c"} {
		h := l.Host(name)
		h.Join(lan, fmt.Sprintf("198.18.0.%d/24", 2+i))
		nodes[name] = newcomer{h, program, filepath.Join(l.Dir(), name)}
	}
	a, b, c := nodes["a"], nodes["b"], nodes["c"]

	args := append([]string{program, "init", "--site", "berlin", "--interface", "eth0", "--vip", "198.18.0.10/24", "--subnet", "198.18.0.0/24", "--range", "198.18.0.100-198.18.0.199"}, a.own()...)
	waits := a.Start("init", args...)
	match, err := waits.Expect(`(?m)^everboot join (eb1\.\S+)$`, 30*time.Second)
	must(t, err)
	line := match[1]
	out, err := b.run(t, append([]string{"join", line}, b.own()...)...)
	if err != nil || !strings.Contains(out, "b is an appliance of site berlin now") {
		t.Fatalf("%v\n%s", err, out)
	}
	must(t, waits.Wait(15*time.Second))
	if out, err := c.run(t, append([]string{"join", line}, c.own()...)...); err == nil || !strings.Contains(out, "everboot invite") {
		t.Errorf("the same line a second time: %v\n%s", err, out)
	}
	sameSecretsOwnRest(t, a, b)

	for _, n := range []newcomer{a, b} {
		n.Start("everboot", program, "appliance", "--config", n.file("appliance.toml"))
	}
	for _, n := range []newcomer{a, b} {
		must(t, lab.Eventually(nodeTime, n.Name()+" sees its peer", func() error { return n.seesPeer(t) }))
	}
	var owner, other newcomer
	must(t, lab.Eventually(nodeTime, "one of them owns the VIP", func() error {
		owner, other = a, b
		if b.Has("198.18.0.10") {
			owner, other = b, a
		}
		if !owner.Has("198.18.0.10") || other.Has("198.18.0.10") {
			return fmt.Errorf("a has %v, b has %v", a.Addresses(), b.Addresses())
		}
		return nil
	}))
	owner.KillAll()
	must(t, lab.Eventually(nodeTime, "the other owns the VIP", func() error {
		if !other.Has("198.18.0.10") {
			return fmt.Errorf("it has %v", other.Addresses())
		}
		return nil
	}))
}

func (n newcomer) seesPeer(t *testing.T) error {
	out, err := n.run(t, "status", "--json", "--token-file", n.file("api.token"))
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	var s web.Status
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		return err
	}
	if len(s.Peers) != 1 || !s.Peers[0].Alive {
		return fmt.Errorf("peers: %+v", s.Peers)
	}
	return nil
}

func sameSecretsOwnRest(t *testing.T, a, b newcomer) {
	t.Helper()
	for name, same := range map[string]bool{"peer.key": true, "api.token": true, "ca.pem": true, "ca.key": true, "node.key": false, "node.pem": false} {
		of, err := os.ReadFile(a.file(name))
		must(t, err)
		other, err := os.ReadFile(b.file(name))
		must(t, err)
		if bytes.Equal(of, other) != same {
			t.Errorf("%s: the same on both: %v, want %v", name, !same, same)
		}
	}
	text, err := os.ReadFile(b.file("appliance.toml"))
	must(t, err)
	for _, never := range []string{"'a'", "priority = 110", "'198.18.0.3'", a.dir} {
		if strings.Contains(string(text), never) {
			t.Errorf("b's configuration has %s:\n%s", never, text)
		}
	}
}
