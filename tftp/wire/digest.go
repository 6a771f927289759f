package wire

// Digest tells whether two files are the same: the first half of their SHA-256. The zero Digest is not known yet.
type Digest [16]byte

// Known tells whether the digest has been computed.
func (d Digest) Known() bool { return d != Digest{} }
