package join

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/netip"
	"time"
)

const (
	// keyBits: iPXE checks RSA, and slowly.
	keyBits = 2048
	// certificateLife: nobody renews them, and firmware with a dead battery lives in its own year anyway.
	certificateLife = 10 * 365 * 24 * time.Hour
	// clockSkew is how far a target's clock may be behind.
	clockSkew = 24 * time.Hour
)

// newAuthority makes the site's own certificate authority, in PEM. It signs the certificates by which appliances serve HTTPS.
func newAuthority(site string, now time.Time) (certificate, key []byte, err error) {
	private, err := rsa.GenerateKey(rand.Reader, keyBits)
	if err != nil {
		return nil, nil, err
	}
	template, err := newTemplate("everboot site "+site, now)
	if err != nil {
		return nil, nil, err
	}
	template.IsCA, template.BasicConstraintsValid, template.MaxPathLenZero = true, true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return nil, nil, err
	}
	key, err = encodeKey(private)
	return encodeCertificate(der), key, err
}

// newCertificate makes a node's certificate for these addresses, and its key. The authority stands behind it in the file: iPXE knows it by
// its digest only.
func newCertificate(node string, addresses []netip.Addr, authority, authorityKey []byte, now time.Time) (certificate, key []byte, err error) {
	parent, signer, err := readAuthority(authority, authorityKey)
	if err != nil {
		return nil, nil, err
	}
	private, err := rsa.GenerateKey(rand.Reader, keyBits)
	if err != nil {
		return nil, nil, err
	}
	template, err := newTemplate(node, now)
	if err != nil {
		return nil, nil, err
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	template.DNSNames = []string{node}
	for _, a := range addresses {
		template.IPAddresses = append(template.IPAddresses, net.IP(a.AsSlice()))
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, private.Public(), signer)
	if err != nil {
		return nil, nil, err
	}
	key, err = encodeKey(private)
	return append(encodeCertificate(der), authority...), key, err
}

func readAuthority(certificate, key []byte) (*x509.Certificate, crypto.Signer, error) {
	c, _ := pem.Decode(certificate)
	k, _ := pem.Decode(key)
	if c == nil || k == nil {
		return nil, nil, errors.New(authorityFile + " and " + authorityKey + " are not in PEM")
	}
	parent, err := x509.ParseCertificate(c.Bytes)
	if err != nil {
		return nil, nil, errors.New(authorityFile + " cannot be read")
	}
	private, err := x509.ParsePKCS8PrivateKey(k.Bytes)
	signer, ok := private.(crypto.Signer)
	if err != nil || !ok {
		return nil, nil, errors.New(authorityKey + " cannot be read")
	}
	return parent, signer, nil
}

func newTemplate(name string, now time.Time) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127)) // RFC 5280 §4.1.2.2: at most 20 octets
	if err != nil {
		return nil, err
	}
	return &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-clockSkew), NotAfter: now.Add(certificateLife),
	}, nil
}

func encodeCertificate(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func encodeKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), err
}
