package fleet_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"everboot/internal/lab"
)

const applianceConfig = `node = "a"
interface = "eth0"
state = "%[1]s/state"
[vip]
addresses = ["198.18.0.10/24"]
[[dhcp.subnet]]
network = "198.18.0.0/24"
range = "198.18.0.100-198.18.0.199"
[[device]]
mac = "52:54:00:00:00:01"
address = "198.18.0.51"
`

// TestHostThatIsNotReady looks that check and appliance say in one line what is wrong with the host and what to do, end with 1, and
// change nothing.
func TestHostThatIsNotReady(t *testing.T) {
	l := lab.ForTest(t)
	program, err := binary()
	must(t, err)
	lan := l.Segment("lan")
	tests := []struct {
		name    string
		config  func(text string) string
		prepare func(t *testing.T, h *lab.Host)
		as      []string // before the command
		want    string   // in one line
	}{
		{name: "good"},
		{name: "no-interface", config: replaced(`"eth0"`, `"eth7"`), want: "interface eth7 does not exist; this host has: lo, eth0"},
		{name: "port-67", prepare: taken("0.0.0.0:67"), want: "67"},
		{name: "port-69", prepare: taken("0.0.0.0:69"), want: "69"},
		{name: "no-rights", as: []string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all"}, want: "CAP_NET_RAW"},
		{name: "no-boot-files", config: func(text string) string { return text + "[tftp]\nipxe = \"/nowhere\"\n" }, want: "undionly.kpxe"},
		{name: "vip-elsewhere", config: replaced("198.18.0.10/24", "198.19.7.10/24"), want: "198.19.7.10"},
		{name: "no-token", config: func(text string) string {
			return text + "[api]\nlisten = \":8667\"\ntoken = \"file:/nowhere/api.token\"\n"
		}, want: "/nowhere/api.token"},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := l.Host(tt.name)
			h.Join(lan, fmt.Sprintf("198.18.0.%d/24", 20+i))
			if tt.prepare != nil {
				tt.prepare(t, h)
			}
			dir, err := os.MkdirTemp("", "everboot-check-") // others than root must be able to enter it
			must(t, err)
			t.Cleanup(func() { os.RemoveAll(dir) })
			must(t, os.Chmod(dir, 0o755))
			text := fmt.Sprintf(applianceConfig, dir)
			if tt.config != nil {
				text = tt.config(text)
			}
			path := filepath.Join(dir, "a.toml")
			must(t, os.WriteFile(path, []byte(text), 0o644))
			reachable := filepath.Join(dir, "everboot")
			must(t, exec.Command("cp", program, reachable).Run())
			before := fmt.Sprint(h.Addresses())
			commands := []string{"check", "appliance"}
			if tt.want == "" {
				commands = commands[:1]
			}
			for _, command := range commands {
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				argv := append(append([]string{}, tt.as...), reachable, command, "--config", path)
				out, err := h.Run(ctx, argv...)
				if tt.want == "" {
					must(t, err)
					continue
				}
				judgeRefusal(t, command, out, err, tt.want)
			}
			if after := fmt.Sprint(h.Addresses()); after != before {
				t.Errorf("addresses were %s, are %s", before, after)
			}
			if _, err := os.Stat(filepath.Join(dir, "state")); err == nil {
				t.Error("the state folder was made")
			}
			if left := h.PIDs(); len(left) > 0 {
				t.Errorf("processes %v are left", left)
			}
		})
	}
}

func judgeRefusal(t *testing.T, command, out string, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), "exit status 1") {
		t.Errorf("%s: %v, want exit status 1\n%s", command, err, out)
	}
	found := false
	for line := range strings.Lines(out) {
		if !strings.HasPrefix(line, "everboot: ") {
			t.Errorf("%s printed %q", command, line)
		}
		found = found || strings.Contains(line, want)
	}
	if !found {
		t.Errorf("%s says nothing of %q:\n%s", command, want, out)
	}
	t.Logf("%s: %s", command, strings.TrimSpace(out))
}

func replaced(from, to string) func(string) string {
	return func(text string) string { return strings.ReplaceAll(text, from, to) }
}

// taken holds a UDP port of the host until the test ends.
func taken(address string) func(*testing.T, *lab.Host) {
	return func(t *testing.T, h *lab.Host) {
		c, err := h.ListenPacket("udp4", address)
		must(t, err)
		t.Cleanup(func() { c.Close() })
	}
}

// TestCheckNamesOtherDHCPServers: one that gives addresses on the segment is a finding, but with --quick and for an appliance that does not serve DHCP itself.
// Who may not look is told so.
func TestCheckNamesOtherDHCPServers(t *testing.T) {
	l := lab.ForTest(t)
	program, err := binary()
	must(t, err)
	lan, h, other := l.Segment("lan"), l.Host("a"), l.Host("other")
	h.Join(lan, "198.18.0.2/24")
	mac := other.Join(lan, "198.18.0.5/24").MAC()
	lab.Dnsmasq(other, "--dhcp-range=198.18.0.200,198.18.0.210,255.255.255.0,1h")

	serves, path := fmt.Sprintf(applianceConfig, l.Dir()), filepath.Join(l.Dir(), "a.toml")
	check := func(text string, as []string, args ...string) (string, error) {
		must(t, os.WriteFile(path, []byte(text), 0o644))
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		return h.Run(ctx, append(append(as, program, "check", "--config", path), args...)...)
	}
	out, err := check(serves, nil)
	judgeRefusal(t, "check", out, err, fmt.Sprintf(`another DHCP server, 198.18.0.5 (from 198.18.0.5, MAC %s), gives addresses on this segment: switch it off, or set dhcp.mode = "proxy"`, mac))
	if strings.Count(out, "\n") != 1 {
		t.Errorf("it says more:\n%s", out)
	}
	for _, c := range []struct {
		text string
		args []string
	}{{serves, []string{"--quick"}}, {serves + "[dhcp]\nsearch = false\n", nil}, {"node = \"a\"\ninterface = \"eth0\"\n[dhcp]\nmode = \"proxy\"\n", nil}} {
		if out, err := check(c.text, nil, c.args...); err != nil {
			t.Errorf("%q of\n%s\nsays %s", c.args, c.text, out)
		}
	}
	out, err = check(serves, []string{"setpriv", "--bounding-set=-net_raw", "--inh-caps=-all"})
	judgeRefusal(t, "check", out, err, "nobody has looked for other DHCP servers on eth0")
}
