package fleet_test

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"everboot/internal/lab"
	"everboot/internal/lab/fleet"
	"everboot/internal/lab/guest/vdisk"
)

// TestMediumWithHTTPS: UEFI asks an appliance over HTTPS, whose certificate is signed by an authority that the medium was told of, and loads its kernel the same way.
// Nobody else could serve it: the medium names no other login server. It is the appliance's, which knows its own authority; a command must be told of it.
func TestMediumWithHTTPS(t *testing.T) {
	const server = "198.18.0.2"
	authority, certificate, key := certificates(t, net.ParseIP(server))
	f := newFleet(t, fleet.Options{Media: true, Collection: "lab", HTTP: fmt.Sprintf("certificate = %q\nkey = %q\n", certificate, key)}, vdisk.Minimal)
	start(t, f, "a", "s1")
	command(t, f, "a", "collection", "set", "lab")
	command(t, f, "a", "image", "rollout", "--collection", "lab", "--server", "https://"+server)
	iso, typed := filepath.Join(f.Lab.Dir(), "boot.iso"), filepath.Join(f.Lab.Dir(), "typed.iso")
	command(t, f, "a", "image", "iso", "--output", typed, "--server", "https://"+server, "--ca-file", authority)
	out, err := f.Host["router"].Run(t.Context(), "curl", "-sSf", "-o", iso, "http://"+fleet.VIP+"/bdm/"+fleet.MAC(1)+".iso")
	if err != nil {
		t.Fatal(err, out)
	}
	if a, b := loaders(t, iso), loaders(t, typed); a != b {
		t.Error("the appliance's medium trusts another authority than that of --ca-file")
	}
	target, err := f.PowerOnWith(1, lab.MachineConfig{Name: "t1", Firmware: lab.UEFI, ISO: iso})
	must(t, err)
	for _, shown := range []string{"asking https://" + server + " for", "everboot: t1 boots debian", "https://" + server + "/debian/vmlinuz\\.\\.\\. ok"} {
		_, err = target.Expect(shown, bootTime)
		must(t, err)
		t.Logf("%q %s after power-on", shown, time.Since(target.Powered).Round(100*time.Millisecond))
	}
}

// loaders is a digest of a medium but for its program: of ipxe.efi, which knows the authority, among others.
func loaders(t *testing.T, path string) [32]byte {
	t.Helper()
	data, err := os.ReadFile(path)
	must(t, err)
	const slot = 16384
	for at := bytes.Index(data, []byte("#!ipxe\n# everboot boot medium")); at >= 0; at = bytes.Index(data, []byte("#!ipxe\n# everboot boot medium")) {
		clear(data[at:min(at+slot, len(data))])
	}
	return sha256.Sum256(data)
}

// certificates makes an authority, and the certificate of a server at that address with the authority's behind it: iPXE knows no more than a digest. They are
// files, in PEM.
func certificates(t *testing.T, addr net.IP) (authority, certificate, key string) {
	t.Helper()
	newKey := func() *rsa.PrivateKey {
		k, err := rsa.GenerateKey(rand.Reader, 2048)
		must(t, err)
		return k
	}
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "site"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	rootKey, leafKey := newKey(), newKey()
	rootDER, err := x509.CreateCertificate(rand.Reader, root, root, rootKey.Public(), rootKey)
	must(t, err)
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: addr.String()}, NotBefore: root.NotBefore, NotAfter: root.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IPAddresses: []net.IP{addr},
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, root, leafKey.Public(), rootKey)
	must(t, err)
	secret, err := x509.MarshalPKCS8PrivateKey(leafKey)
	must(t, err)
	write := func(name string, blocks ...pem.Block) string {
		path := filepath.Join(t.TempDir(), name)
		var text []byte
		for _, b := range blocks {
			text = append(text, pem.EncodeToMemory(&b)...)
		}
		must(t, os.WriteFile(path, text, 0o600))
		return path
	}
	ca := pem.Block{Type: "CERTIFICATE", Bytes: rootDER}
	return write("ca.pem", ca), write("site.pem", pem.Block{Type: "CERTIFICATE", Bytes: leafDER}, ca), write("site.key", pem.Block{Type: "PRIVATE KEY", Bytes: secret})
}
