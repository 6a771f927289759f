package fleet_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"everboot/internal/lab"
)

const dhcpOnly = `node = "a"
interface = "eth0"
state = "%s/state"
[tftp]
enabled = false
[http]
enabled = false
[director]
enabled = false
[[dhcp.subnet]]
network = "198.18.0.0/24"
range = "198.18.0.100-198.18.0.199"
[[device]]
mac = "52:54:00:00:00:01"
name = "t1"
address = "198.18.0.51"
`

// TestBadInput gives an appliance what nobody should: each mistake is refused in one line that names file and line, a configuration before
// anything starts, and an import as a whole: every file of reservations begins with one that is good, and the registry stays what it was.
func TestBadInput(t *testing.T) {
	l := lab.ForTest(t)
	program, err := binary()
	must(t, err)
	h := l.Host("a")
	h.Join(l.Segment("lan"), "198.18.0.2/24")
	good := fmt.Sprintf(dhcpOnly, l.Dir())
	config := filepath.Join(l.Dir(), "a.toml")
	must(t, os.WriteFile(config, []byte(good), 0o600))
	h.Start("everboot", program, "appliance", "--config", config)
	everboot := func(args ...string) (string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), nodeTime)
		defer cancel()
		return h.Run(ctx, append([]string{program}, args...)...)
	}
	must(t, lab.Eventually(nodeTime, "the appliance takes a device", func() error {
		out, err := everboot("device", "set", "52:54:00:00:00:02", "--name", "t2", "--address", "198.18.0.52")
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}))
	known := func() string {
		t.Helper()
		file, err := os.ReadFile(filepath.Join(l.Dir(), "state", "registry.json"))
		must(t, err)
		list, err := everboot("device", "export", "--format", "csv")
		must(t, err)
		return string(file) + list
	}
	must(t, lab.Eventually(10*time.Second, "both devices are known", func() bool {
		all := known()
		return strings.Contains(all, "198.18.0.51") && strings.Count(all, "198.18.0.52") > 1
	}))
	before := known()

	for _, tt := range badInput {
		t.Run(tt.name, func(t *testing.T) {
			path, args := filepath.Join(l.Dir(), "bad.toml"), []string{"check", "--config"}
			text, code := good+tt.text, 2
			if tt.format != "" {
				path, args = filepath.Join(l.Dir(), "bad."+tt.format), []string{"device", "import", "--format", tt.format}
				text, code = tt.text, 1
			}
			must(t, os.WriteFile(path, []byte(text), 0o600))
			out, err := everboot(append(args, path)...)
			if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("exit status %d", code)) {
				t.Errorf("%v, want exit status %d", err, code)
			}
			line := 1 + strings.Count(text[:strings.Index(text, tt.at)], "\n")
			if want := fmt.Sprintf("everboot: %s:%d: ", path, line); !strings.HasPrefix(out, want) || !strings.Contains(out, tt.want) || strings.Count(out, "\n") != 1 {
				t.Errorf("it printed %q; want a line that begins with %q and says %q", out, want, tt.want)
			}
			if after := known(); after != before {
				t.Errorf("the registry was\n%s\nand is\n%s", before, after)
			}
			t.Log(strings.TrimSpace(out))
		})
	}

	// The same file without its mistake is taken: what was refused was refused for that.
	path := filepath.Join(l.Dir(), "good.csv")
	must(t, os.WriteFile(path, []byte("mac,name,address\n52:54:00:00:00:09,t9,198.18.0.59\n"), 0o600))
	if out, err := everboot("device", "import", "--format", "csv", path); err != nil || out != "1 reservations imported\n" {
		t.Errorf("%v: %s", err, out)
	}
	must(t, lab.Eventually(10*time.Second, "it is in the registry", func() bool { return strings.Count(known(), "198.18.0.59") > 1 }))
}

// badInput are mistakes: what stands in a configuration after one that is good, or a file of reservations; and at, which is in the first line
// that is wrong and in none before it.
var badInput = []struct{ name, format, text, at, want string }{
	{"overlapping subnets", "", "[[dhcp.subnet]] # second\nnetwork = \"198.18.0.128/25\"\nrange = \"198.18.0.150-198.18.0.160\"\n",
		"[[dhcp.subnet]] # second", "dhcp.subnet 198.18.0.128/25 overlaps dhcp.subnet 198.18.0.0/24; make them disjoint"},
	{"a range outside its net", "", "\n[[dhcp.subnet]] # second\nnetwork = \"198.19.0.0/24\"\nrange = \"198.19.1.1-198.19.1.9\"\n",
		"[[dhcp.subnet]] # second", "dhcp.subnet 198.19.0.0/24: range 198.19.1.1-198.19.1.9 is not inside the network"},
	{"a range that ends before it starts", "", "[[dhcp.subnet]]\nnetwork = \"198.19.0.0/24\"\nrange = \"198.19.0.9-198.19.0.1\"\n",
		"198.19.0.9-", "ends before it starts"},
	{"an address reserved twice in the configuration", "", "[[device]] # second\nmac = \"52:54:00:00:00:05\"\naddress = \"198.18.0.51\"\n",
		"[[device]] # second", "its address 198.18.0.51 is also that of device 1 (52:54:00:00:00:01)"},
	{"a device twice in the configuration", "", "[[device]] # second\nmac = \"52-54-00-00-00-01\"\naddress = \"198.18.0.55\"\n",
		"[[device]] # second", "its MAC is also that of device 1"},
	{"a reservation outside every subnet", "", "[[device]] # second\nmac = \"52:54:00:00:00:05\"\naddress = \"198.19.0.55\"\n",
		"[[device]] # second", "its address 198.19.0.55 is in no [[dhcp.subnet]]"},

	{"a broken line of dhcpd", "isc", "host t5 { hardware ethernet 52:54:00:00:00:05; fixed-address 198.18.0.55; }\nhost t6 { hardware ethernet 52:54:00:00:00:06;\n",
		"host t6", "host t6 has no closing }"},
	{"a broken line of Kea", "kea", "{\"reservations\": [\n{\"hw-address\": \"52:54:00:00:00:05\", \"ip-address\": \"198.18.0.55\"},\n{\"hw-address\": }]}\n",
		"{\"hw-address\": }", "invalid character '}'"},
	{"a broken line of dnsmasq", "dnsmasq", "dhcp-host=52:54:00:00:00:05,198.18.0.55,t5\ndhcp-host=52:54:00:00:00:06,t6\n",
		"dhcp-host=52:54:00:00:00:06", "has no MAC and address"},
	{"a broken line of CSV", "csv", "mac,name,address\n52:54:00:00:00:05,t5,198.18.0.55\n52:54:00:00:00:06,t6\n",
		"52:54:00:00:00:06", "wrong number of fields"},

	{"twice in one file of dhcpd", "isc", "host t5 { hardware ethernet 52:54:00:00:00:05; fixed-address 198.18.0.55; }\nhost t6 { hardware ethernet 52:54:00:00:00:06; fixed-address 198.18.0.55; }\n",
		"host t6", "198.18.0.55 stands at line 1 already"},
	{"twice in one file of Kea", "kea", "{\"reservations\": [\n{\"hw-address\": \"52:54:00:00:00:05\", \"ip-address\": \"198.18.0.55\"},\n{\"hw-address\": \"52:54:00:00:00:05\", \"ip-address\": \"198.18.0.56\"}]}\n",
		"{\"hw-address\": \"52:54:00:00:00:05\", \"ip-address\": \"198.18.0.56\"", "52:54:00:00:00:05 stands at line 2 already"},
	{"twice in one file of dnsmasq", "dnsmasq", "dhcp-host=52:54:00:00:00:05,198.18.0.55\n# again\ndhcp-host=52:54:00:00:00:06,198.18.0.55\n",
		"dhcp-host=52:54:00:00:00:06", "198.18.0.55 stands at line 1 already"},
	{"twice in one file of CSV", "csv", "mac,name,address\n52:54:00:00:00:05,t5,198.18.0.55\n52:54:00:00:00:06,t5,198.18.0.56\n",
		"52:54:00:00:00:06", "name t5 stands at line 2 already"},

	{"an address of the registry, from dhcpd", "isc", "host t5 { hardware ethernet 52:54:00:00:00:05; fixed-address 198.18.0.55; }\nhost t6 { hardware ethernet 52:54:00:00:00:06; fixed-address 198.18.0.52; }\n",
		"host t6", "its address 198.18.0.52 is that of device 52:54:00:00:00:02 of the site"},
	{"an address of the registry, from Kea", "kea", "{\"reservations\": [\n{\"hw-address\": \"52:54:00:00:00:05\", \"ip-address\": \"198.18.0.55\"},\n{\"hw-address\": \"52:54:00:00:00:06\", \"ip-address\": \"198.18.0.52\"}]}\n",
		"52:54:00:00:00:06", "its address 198.18.0.52 is that of device 52:54:00:00:00:02 of the site"},
	{"an address of the registry, from dnsmasq", "dnsmasq", "dhcp-host=52:54:00:00:00:05,198.18.0.55\ndhcp-host=52:54:00:00:00:06,198.18.0.52\n",
		"dhcp-host=52:54:00:00:00:06", "its address 198.18.0.52 is that of device 52:54:00:00:00:02 of the site"},
	{"an address of the configuration, from CSV", "csv", "mac,name,address\n52:54:00:00:00:05,t5,198.18.0.55\n52:54:00:00:00:06,t6,198.18.0.51\n",
		"52:54:00:00:00:06", "its address 198.18.0.51 is that of device 52:54:00:00:00:01 of the site"},
	{"a name of the registry, from CSV", "csv", "mac,name,address\n52:54:00:00:00:05,t5,198.18.0.55\n52:54:00:00:00:06,t2,198.18.0.56\n",
		"52:54:00:00:00:06", "its name t2 is that of device 52:54:00:00:00:02 of the site"},
}
