package join

import (
	"crypto/tls"
	"crypto/x509"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"everboot/appliance"
)

// TestFoundingIsAConfiguration: what init writes is what an appliance reads.
func TestFoundingIsAConfiguration(t *testing.T) {
	dir := t.TempDir()
	f := Founding{
		Node: Node{Folder: dir, Name: "a", Interface: "eth0", State: filepath.Join(dir, "state"), Priority: 110},
		Site: "berlin", VIP: []netip.Prefix{netip.MustParsePrefix("198.18.0.10/24")}, VRID: 9,
		Network: netip.MustParsePrefix("198.18.0.0/24"), Range: "198.18.0.100-198.18.0.199",
		Router: netip.MustParseAddr("198.18.0.1"), DNS: []netip.Addr{netip.MustParseAddr("198.18.0.1")},
	}
	if err := folder(dir).write(map[string][]byte{peerKeyFile: newSecret(), tokenFile: newSecret()}, []byte(f.text())); err != nil {
		t.Fatalf("%v\n%s", err, f.text())
	}
	c, err := appliance.Load(filepath.Join(dir, ConfigFile))
	if err != nil {
		t.Fatal(err)
	}
	if c.DHCP.Mode != "server" || c.VIP.VRID != 9 || c.VIP.Priority != 110 || len(c.DHCP.Subnets[0].DNS) != 1 {
		t.Errorf("%+v", c)
	}
	a, err := c.Peers.Key.Read()
	b, err2 := c.API.Token.Read()
	if err != nil || err2 != nil || a == b {
		t.Errorf("%v, %v, or the same secret twice", err, err2)
	}
}

// TestNodesCertificate: whoever trusts the site's authority believes a node at its own and at the floating address, and no other.
func TestNodesCertificate(t *testing.T) {
	now := time.Now()
	authority, key, err := newAuthority("berlin", now)
	if err != nil {
		t.Fatal(err)
	}
	own, vip := netip.MustParseAddr("198.18.0.2"), netip.MustParsePrefix("198.18.0.10/24")
	certificate, private, err := newCertificate("a", served(own, []netip.Prefix{vip}), authority, key, now)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(certificate, private)
	if err != nil || len(pair.Certificate) != 2 {
		t.Fatalf("%d certificates, %v; want the authority's behind the node's", len(pair.Certificate), err)
	}
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority)
	for name, good := range map[string]bool{"198.18.0.2": true, "198.18.0.10": true, "a": true, "198.18.0.3": false} {
		_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: name, CurrentTime: now.Add(-time.Hour)})
		if (err == nil) != good {
			t.Errorf("%s: %v", name, err)
		}
	}
}
