package image

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
)

// ipxeRoot is the SHA-256 of the only authority that iPXE trusts as it comes (iPXE, src/crypto/rootcert.c). It stands in ipxe.efi once, in plain.
var ipxeRoot = []byte{
	0x9f, 0xaf, 0x71, 0x7b, 0x7f, 0x8c, 0xa2, 0xf9, 0x3c, 0x25, 0x6c, 0x79, 0xf8, 0xac, 0x55, 0x91,
	0x89, 0x5d, 0x66, 0xd1, 0xff, 0x3b, 0xee, 0x63, 0x97, 0xa7, 0x0d, 0x29, 0xc6, 0x5e, 0xed, 0x1a,
}

// Authority returns the certificate of the authority in what a server of HTTPS shows, in PEM: the last of the chain, if it is one that has signed itself. It is
// nil if there is none, as behind a certificate that the world's authorities have signed.
func Authority(chain []byte) []byte {
	var last *pem.Block
	for block, rest := pem.Decode(chain); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			last = block
		}
	}
	if last == nil {
		return nil
	}
	cert, err := x509.ParseCertificate(last.Bytes)
	if err != nil || !cert.IsCA || cert.CheckSignatureFrom(cert) != nil {
		return nil
	}
	return pem.EncodeToMemory(last)
}

// Trust has iPXE for UEFI trust the authority of a certificate in PEM, and no other. Its server must send that certificate too. iPXE for BIOS is packed, and stays as it is.
func (l *Loaders) Trust(text []byte) error {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE" {
		return errors.New("this is no certificate in PEM")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return errors.New("this certificate cannot be read")
	}
	if !cert.IsCA {
		return errors.New("this is no certificate of an authority: give the one that signed the servers' certificates")
	}
	if bytes.Count(l.IPXEUEFI, ipxeRoot) != 1 {
		return errors.New("this ipxe.efi has another list of authorities than iPXE's own: build it with TRUST=, or take it from Debian 13's package ipxe")
	}
	sum := sha256.Sum256(cert.Raw)
	l.IPXEUEFI = bytes.Replace(l.IPXEUEFI, ipxeRoot, sum[:], 1)
	return nil
}
