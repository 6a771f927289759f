package tftp

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"everboot/tftp/wire"
)

// maxBinary bounds one iPXE binary: today's largest is 1 MiB.
const maxBinary = 4 << 20

// binaryExts are the forms of iPXE that a boot client loads: BIOS (.kpxe, .pxe, .lkrn), UEFI (.efi).
var binaryExts = []string{".kpxe", ".kkpxe", ".pxe", ".lkrn", ".efi"}

func newBlob(data []byte, mod time.Time) *blob {
	sum := sha256.Sum256(data)
	d := wire.Digest(sum[:])
	return &blob{data: data, mod: mod, digest: d, etag: tagOf(d)}
}

// loadBinaries reads iPXE's binaries of one directory. Links are followed: Debian's ipxe.efi is one.
func loadBinaries(dir string) (map[string]*blob, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("reading iPXE's binaries: %w", err)
	}
	blobs := make(map[string]*blob)
	for _, e := range entries {
		if !slices.Contains(binaryExts, filepath.Ext(e.Name())) {
			continue
		}
		path := filepath.Join(dir, e.Name())
		info, err := os.Stat(path)
		if err != nil || !info.Mode().IsRegular() || info.Size() > maxBinary {
			continue // a dangling link, a directory, an image that is not loaded over the net
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("reading iPXE's binaries: %w", err)
		}
		blobs[e.Name()] = newBlob(data, info.ModTime())
	}
	return blobs, nil
}
