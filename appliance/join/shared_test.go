package join

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"everboot/appliance"
)

// everything is a configuration with all that could be copied by mistake.
const everything = `node = "a"
site = "berlin"
interface = "ens3"
state = "/srv/a"
[peers]
addresses = ["198.18.0.4"]
key = "file:%DIR%/peer.key"
[vip]
addresses = ["198.18.0.10/24"]
vrid = 7
priority = 123
[[vip.group]]
addresses = ["198.18.0.11/24"]
vrid = 8
priority = 124
interface = "ens3"
[dhcp]
mode = "server"
[[dhcp.subnet]]
network = "198.18.0.0/24"
range = "198.18.0.100-198.18.0.199"
[tftp]
root = "/srv/a/boot"
[http]
listen = "198.18.0.2:80"
certificate = "/etc/a.pem"
key = "/etc/a.key"
[api]
listen = "198.18.0.2:8667"
token = "file:%DIR%/api.token"
[[device]]
mac = "52:54:00:00:00:01"
address = "198.18.0.51"
`

func given(t *testing.T) (Bundle, string) {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{peerKeyFile, tokenFile} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("the "+name+" of this site\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	config, files, err := shared([]byte(strings.ReplaceAll(everything, "%DIR%", dir)), "/srv/a")
	if err != nil {
		t.Fatal(err)
	}
	return Bundle{
		Site: "berlin", Node: "a", Config: config, Files: files, VIP: []netip.Prefix{netip.MustParsePrefix("198.18.0.10/24")},
		Peers: []Peer{{netip.MustParseAddr("198.18.0.2")}, {netip.MustParseAddr("198.18.0.4")}},
	}, dir
}

// TestWhatIsANodesOwnStays: neither what travels nor what comes of it has the giver's name, addresses, priority, or certificate.
func TestWhatIsANodesOwnStays(t *testing.T) {
	b, dir := given(t)
	for _, word := range []string{`'a'`, `"a"`, "ens3", "/srv/a", "123", "124", "/etc/a.", dir} {
		if strings.Contains(b.Config, word) {
			t.Errorf("%s travels:\n%s", word, b.Config)
		}
	}
	to := t.TempDir()
	n := Node{Folder: to, Name: "b", Interface: "eth0", State: filepath.Join(to, "state"), Priority: 100}
	config, files, err := b.forNode(n, netip.MustParseAddr("198.18.0.3"), netip.MustParseAddr("198.18.0.2"))
	if err != nil {
		t.Fatal(err)
	}
	if err := folder(to).write(files, config); err != nil {
		t.Fatal(err)
	}
	c, err := appliance.Load(filepath.Join(to, ConfigFile))
	if err != nil {
		t.Fatalf("%v\n%s", err, config)
	}
	if c.Node != "b" || c.Interface != "eth0" || c.State != n.State || c.VIP.Priority != 100 || c.HTTP.Certificate != "" {
		t.Errorf("%+v", c)
	}
	if c.Site != "berlin" || c.VIP.VRID != 7 || len(c.Devices) != 1 || len(c.DHCP.Subnets) != 1 {
		t.Errorf("the site's is not there: %+v", c)
	}
	if c.HTTP.Listen != "198.18.0.3:80" || c.API.Listen != "198.18.0.3:8667" {
		t.Errorf("it listens at %s and %s", c.HTTP.Listen, c.API.Listen)
	}
	if len(c.Peers.Addresses) != 2 || c.Peers.Addresses[0] != netip.MustParseAddr("198.18.0.2") {
		t.Errorf("peers %v", c.Peers.Addresses)
	}
	if c.TFTP.Root != n.State+"/boot" {
		t.Errorf("boot files are in %s", c.TFTP.Root)
	} else if _, err := os.Stat(c.TFTP.Root); err != nil { // an appliance does not start without
		t.Error(err)
	}
	if key, err := c.Peers.Key.Read(); err != nil || key != "the peer.key of this site" {
		t.Errorf("peer key %q, %v", key, err)
	}
	for _, name := range []string{peerKeyFile, ConfigFile} {
		if info, err := os.Stat(filepath.Join(to, name)); err != nil || info.Mode().Perm()&0o007 != 0 {
			t.Errorf("%s: %v, %v: others may read it", name, info.Mode(), err)
		}
	}
}

// TestNodeThatIsMadeAnew: it stands in the lists of the others already, and is no peer of itself.
func TestNodeThatIsMadeAnew(t *testing.T) {
	b, _ := given(t)
	b.Peers = append(b.Peers, Peer{netip.MustParseAddr("198.18.0.3")}, b.Peers[0])
	to := folder(t.TempDir())
	n := Node{Folder: string(to), Name: "b", Interface: "eth0", State: to.path("state"), Priority: 100}
	e, err := b.settle(to, n, netip.MustParseAddr("198.18.0.3"), netip.MustParseAddr("198.18.0.2"), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	c, err := appliance.Load(to.path(ConfigFile))
	if err != nil || len(c.Peers.Addresses) != 2 || len(e.Peers) != 2 {
		t.Errorf("peers %v, told of %v, %v", c.Peers.Addresses, e.Peers, err)
	}
}

// TestTokenThatIsThere: a streamer on the same node has the site's token already; another token is not replaced.
func TestTokenThatIsThere(t *testing.T) {
	for content, fits := range map[string]bool{"the api.token of this site": true, "another": false} {
		b, _ := given(t)
		to := folder(t.TempDir())
		if err := os.WriteFile(to.path(tokenFile), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := to.isFree(); err != nil {
			t.Error(err)
		}
		n := Node{Folder: string(to), Name: "b", Interface: "eth0", State: to.path("state"), Priority: 100}
		_, err := b.settle(to, n, netip.MustParseAddr("198.18.0.3"), netip.MustParseAddr("198.18.0.2"), time.Now())
		if had, _ := os.ReadFile(to.path(tokenFile)); (err == nil) != fits || string(had) != content {
			t.Errorf("%q: %v; the token is %q", content, err, had)
		}
	}
	to := folder(t.TempDir())
	if err := os.WriteFile(to.path(peerKeyFile), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := to.isFree(); err == nil {
		t.Error("the line would be used up for a folder with a key of peers")
	}
}

// TestHostileBundle: a name of a file is no path, and the configuration is not what is written as a secret.
func TestHostileBundle(t *testing.T) {
	for _, name := range []string{"../evil", "/etc/passwd", "", ".hidden", ConfigFile, "streamer.toml", certificateFile, certificateKey} {
		b, _ := given(t)
		b.Files[name] = []byte("x")
		if _, _, err := b.forNode(Node{Folder: t.TempDir()}, netip.Addr{}, netip.Addr{}); err == nil {
			t.Errorf("file %q was taken", name)
		}
	}
	b, _ := given(t)
	delete(b.Files, peerKeyFile)
	if _, _, err := b.forNode(Node{Folder: t.TempDir()}, netip.Addr{}, netip.Addr{}); err == nil {
		t.Error("a secret that was not sent was not missed")
	}
}

// TestSecretsWithANodesOwnNames: one that is called like a file which each node makes is refused, with what to do.
func TestSecretsWithANodesOwnNames(t *testing.T) {
	for _, name := range []string{authorityFile, authorityKey, certificateFile, certificateKey, ConfigFile} {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte("a secret"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, files, err := shared([]byte("[api]\ntoken = \"file:"+path+"\"\n"), "/srv/a"); err == nil || !strings.Contains(err.Error(), "rename it") || len(files) > 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestMarks: the same content has the same mark, whatever white space is around it, and nothing is told of what no site has.
func TestMarks(t *testing.T) {
	dir := folder(t.TempDir())
	for name, content := range map[string]string{tokenFile: "secret\n", "streamer.toml": "x", ".hidden": "x"} {
		if err := os.WriteFile(dir.path(name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	marks := dir.marks([16]byte{1})
	if len(marks) != 1 || string(marks[tokenFile]) != string(mark([16]byte{1}, []byte(" secret"))) || string(marks[tokenFile]) == string(mark([16]byte{2}, []byte("secret"))) {
		t.Errorf("%v", marks)
	}
}

// TestNothingIsReplaced: neither a configuration nor a key that is there is lost, and a configuration that is refused leaves nothing behind.
func TestNothingIsReplaced(t *testing.T) {
	dir := folder(t.TempDir())
	names := func() (list []string) {
		entries, err := os.ReadDir(string(dir))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			list = append(list, e.Name())
		}
		return list
	}
	if err := dir.write(map[string][]byte{tokenFile: []byte("a token, long enough")}, []byte("node = \"\"\n")); err == nil || len(names()) != 0 {
		t.Errorf("%v; left: %v", err, names())
	}
	if err := os.WriteFile(dir.path(peerKeyFile), []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := dir.write(map[string][]byte{peerKeyFile: []byte("theirs"), tokenFile: []byte("t")}, []byte("node = \"a\"\ninterface = \"eth0\"\n"))
	if text, _ := os.ReadFile(dir.path(peerKeyFile)); err == nil || string(text) != "mine" || len(names()) != 1 {
		t.Errorf("%v; the key is %q; left: %v", err, text, names())
	}
	if err := os.WriteFile(dir.path(ConfigFile), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := dir.isFree(); err == nil || !strings.Contains(err.Error(), "is there already") {
		t.Errorf("%v", err)
	}
}

// TestPeerIsAddedInPlace: the rest of the file stays as somebody wrote it.
func TestPeerIsAddedInPlace(t *testing.T) {
	peer := netip.MustParseAddr("198.18.0.3")
	for text, want := range map[string]string{
		"[peers]\naddresses = [] # own\nkey = \"k\"\n":        "[peers]\naddresses = [\"198.18.0.3\"] # own\nkey = \"k\"\n",
		"[peers] # x\n  addresses=[ \"198.18.0.4\", ]\n[vip]": "[peers] # x\n  addresses= [\"198.18.0.4\", \"198.18.0.3\"]\n[vip]",
		"[vip]\naddresses = []\n[peers]\naddresses = []":      "[vip]\naddresses = []\n[peers]\naddresses = [\"198.18.0.3\"]",
	} {
		if got, err := withPeer(text, peer); err != nil || got != want {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "[vip]\naddresses = []\n", "[peers]\nkey = \"k\"\n", "[peers]\naddresses = [\n\"198.18.0.4\"]\n"} {
		if got, err := withPeer(text, peer); err == nil {
			t.Errorf("%q became %q", text, got)
		}
	}
}
