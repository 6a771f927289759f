// Package tftp serves boot files: over TFTP for firmware, and over HTTP for iPXE and UEFI HTTP boot. Both serve the same
// Files: the generated bootstrap, the operator's directory, and iPXE's binaries. HTTP also serves each target's own script.
//
// Everything is read-only, and a name never leads out of the operator's directory.
//
// The TFTP server is our own: one goroutine leads all transfers over one socket (docs/adr/0007-tftp.md), package wire is its pure part.
package tftp
