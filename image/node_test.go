package image

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func aNode(t *testing.T) NodeConfig {
	t.Helper()
	deb := filepath.Join(t.TempDir(), "everboot_1_amd64.deb")
	if err := os.WriteFile(deb, []byte("deb"), 0o600); err != nil {
		t.Fatal(err)
	}
	return NodeConfig{Output: filepath.Join(t.TempDir(), "node.raw"), Package: deb}
}

// TestBadNode: each is refused with a word on what to do, before minutes were spent.
func TestBadNode(t *testing.T) {
	for want, change := range map[string]func(*NodeConfig){
		"output file is missing": func(c *NodeConfig) { c.Output = "" },
		"make deb":               func(c *NodeConfig) { c.Package = "" },
		"no such file":           func(c *NodeConfig) { c.Consul = "/nowhere/consul" },
		"is no file":             func(c *NodeConfig) { c.Consul = os.TempDir() },
		"use 4 GiB or more":      func(c *NodeConfig) { c.Size = 1 << 30 },
		"name of a Debian":       func(c *NodeConfig) { c.Packages = []string{"rsync; reboot"} },
		"public key of one line": func(c *NodeConfig) { c.User, c.Key = "admin", "ssh-ed25519 AAAA\nmore" },
		"two files":              func(c *NodeConfig) { c.Compact = filepath.Dir(c.Output) + "/./node.raw" },
		"left as it is":          func(c *NodeConfig) { c.Compact = "/dev/null" },
		"small letters":          func(c *NodeConfig) { c.User, c.Key = "a;b", "ssh-ed25519 AAAA" },
	} {
		c := aNode(t)
		change(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want it to say %q", err, want)
		}
	}
	if err := aNode(t).Validate(); err != nil {
		t.Error(err)
	}
}

// TestNodesPieces: the scripts that run in the image, and while it is made, are whole; the last hook has GRUB's parts of a vDisk's.
func TestNodesPieces(t *testing.T) {
	finish, err := aNode(t).finish()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"grub-mkimage", "boot.img", "ssh_host_", "etc/machine-id", "root.ext4"} {
		if !strings.Contains(finish, want) {
			t.Errorf("the last hook has no %s", want)
		}
	}
	for shell, text := range map[string]string{"sh": finish, "bash": string(nodePiece("files/setup"))} {
		cmd := exec.Command(shell, "-n")
		cmd.Stdin = strings.NewReader(text)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	}
}

// TestNodeHasNothingOfItsOwn: no key, name or password is baked in, unless a user was asked for.
func TestNodeHasNothingOfItsOwn(t *testing.T) {
	c := aNode(t)
	for _, f := range c.payload() {
		for _, never := range []string{"/etc/ssh/ssh_host", "/etc/machine-id", "/etc/hostname", "/etc/everboot/", "authorized_keys", "sudoers"} {
			if strings.HasPrefix(f.path, never) || strings.Contains(f.path, "authorized_keys") || strings.Contains(f.path, "sudoers") {
				t.Errorf("%s is in the image", f.path)
			}
		}
	}
	c.User, c.Key = "admin", "ssh-ed25519 AAAA somebody"
	if len(c.payload()) != len(aNode(t).payload())+2 {
		t.Error("the user has no key, or may not do all")
	}
}
