package fleet_test

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"everboot/internal/lab"
)

// nodeImage is the VM image to test, or the test is skipped.
func nodeImage(t *testing.T) string {
	t.Helper()
	path := os.Getenv(envImage)
	if path == "" {
		t.Skip("needs " + envImage + ", a VM image, and some minutes: make test-image")
	}
	return path
}

// TestApplianceImageIsNobodys looks into the root of the VM image: what tells one machine from another is not there before its first boot, nor can anybody log in.
func TestApplianceImageIsNobodys(t *testing.T) {
	path := nodeImage(t)
	host := lab.ForTest(t).Host("builder")
	lab.Need(t, "partx", "debugfs")
	run := func(argv ...string) string {
		out, err := host.Run(t.Context(), argv...)
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return out
	}
	start, err := strconv.ParseInt(strings.TrimSpace(run("partx", "--noheadings", "--output", "START", "--nr", "3", path)), 10, 64)
	must(t, err)
	ask := func(question string) string {
		return run("debugfs", "-R", question, fmt.Sprintf("%s?offset=%d", path, start*512))
	}
	for file, want := range map[string]bool{
		"/etc/machine-id": true, "/etc/ssh/sshd_config": true, "/usr/bin/everboot": true,
		"/etc/ssh/ssh_host_rsa_key": false, "/etc/ssh/ssh_host_ecdsa_key": false, "/etc/ssh/ssh_host_ed25519_key": false, "/etc/hostname": false, "/var/lib/dbus/machine-id": false,
		"/var/lib/systemd/random-seed": false, "/var/lib/cloud": false, "/root/.ssh/authorized_keys": false, "/etc/everboot/appliance.toml": false, "/etc/everboot/api.token": false, "/etc/everboot/peer.key": false, "/etc/everboot/ca.key": false,
	} {
		if has := !strings.Contains(ask("stat "+file), "not found"); has != want {
			t.Errorf("%s is in the image: %v, want %v", file, has, want)
		}
	}
	if out := ask("stat /etc/machine-id"); !regexp.MustCompile(`Size: 0\n`).MatchString(out) {
		t.Errorf("/etc/machine-id is not empty:\n%s", out)
	}
	for _, m := range regexp.MustCompile(`(?m)^([^:\s]+):([^:]*):`).FindAllStringSubmatch(ask("cat /etc/shadow"), -1) {
		if m[2] != "*" && !strings.HasPrefix(m[2], "!") {
			t.Errorf("%s has the password %q", m[1], m[2])
		}
	}
}

// TestApplianceConsole sets a machine of the VM image up on its serial console, as one does who has no config drive: on a network without DHCP. Its floating address answers then,
// and whoever chose the password logs in. Where the image has a Consul agent, that runs once it has a configuration, and not before.
func TestApplianceConsole(t *testing.T) {
	path := nodeImage(t)
	l := lab.ForTest(t)
	lab.Need(t, "qemu-system-x86_64", "curl")
	lan := l.Segment("lan")
	router := l.Host("router")
	router.Join(lan, "198.18.0.1/24")
	begun := time.Now()
	m, err := l.Machine(lab.MachineConfig{Name: "node-a", Segment: lan, MemoryMB: 1024, Disk: path})
	must(t, err)
	const password = "a-password-of-the-lab"
	patience := nodeBoot
	for _, step := range []struct{ asked, answer string }{
		{`\(init, join, later\): `, "init"},
		{`Name of this node \[.*\]: `, "a"},
		{`Address of eth0.*: `, "198.18.0.2/24"},
		{`Router.*: `, ""},
		{`Password of root.*: `, password},
		{`Name of the site \[default\]: `, "berlin"},
		{`Floating address.*: `, "not-an-address"},
		{`Network to serve DHCP.*: `, ""},
		{`--vip "not-an-address": use something like[^\n]*\n(?s:.*)\(init, join, later\): `, "init"}, // it says what is wrong, and begins anew
		{`Name of this node \[a\]: `, ""},
		{`Address of eth0.*: `, "198.18.0.2/24"},
		{`Router.*: `, ""},
		{`Password of root.*: `, password},
		{`Name of the site \[default\]: `, "berlin"},
		{`Floating address.*: `, "198.18.0.10/24"},
		{`Network to serve DHCP.*: `, "198.18.0.0/24"},
		{`Its pool.*: `, "198.18.0.100-198.18.0.199"},
	} {
		_, err := m.Expect(step.asked, patience)
		must(t, err)
		if patience == nodeBoot {
			t.Logf("the console asks %s after power-on", time.Since(begun).Round(time.Second))
		}
		patience = nodeAnswers
		must(t, m.Send(step.answer+"\r"))
	}
	_, err = m.Expect(`everboot join eb1\.[-\w]+\r?\n`, nodeAnswers)
	must(t, err)
	must(t, lab.Eventually(nodeAnswers, "the status page answers at the floating address", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		if out, err := router.Run(ctx, "curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "http://198.18.0.10:8667/"); err != nil || out != "401" {
			return fmt.Errorf("%v: %s", err, out)
		}
		return nil
	}))
	if strings.Contains(m.Console(), password) {
		t.Error("the password stands on the screen")
	}
	logIn(t, m, password)
	if out := shell(t, m, "test -x /usr/local/bin/consul && echo there || echo none"); out != "there" {
		t.Logf("no Consul agent in this image: %s", out)
		return
	}
	if out := shell(t, m, "systemctl is-enabled consul; systemctl is-active consul"); out != "enabled inactive" {
		t.Errorf("without a configuration the agent is %s", out)
	}
	shell(t, m, `printf 'server = true\nbootstrap_expect = 1\nbind_addr = "198.18.0.2"\n' >/etc/consul.d/a.hcl; systemctl start consul`)
	must(t, lab.Eventually(nodeAnswers, "the agent runs", func() error {
		if out := shell(t, m, "systemctl is-active consul; consul members | grep -c alive"); out != "active 1" {
			return fmt.Errorf("with a configuration the agent is %s", out)
		}
		return nil
	}))
}

// logIn logs root in on the console.
func logIn(t *testing.T, m *lab.Machine, password string) {
	t.Helper()
	for _, step := range []struct{ asked, answer string }{{`login: `, ""}, {`login: `, "root"}, {`Password: `, password}, {`# `, "dmesg --console-off; stty -echo; PS1="}} {
		_, err := m.Expect(step.asked, nodeAnswers)
		must(t, err)
		must(t, m.Send(step.answer+"\r"))
	}
	shell(t, m, "true")
}

// shell runs a command on the console and returns the words that it prints.
func shell(t *testing.T, m *lab.Machine, command string) string {
	t.Helper()
	must(t, m.Send(command+"; echo END''OF\r"))
	match, err := m.Expect(`(?s)(.*?)ENDOF`, nodeAnswers)
	must(t, err)
	return strings.Join(strings.Fields(match[1]), " ")
}
