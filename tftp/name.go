package tftp

import (
	"fmt"
	"io/fs"
	"path"
	"strings"
)

// maxName is the longest name we look up, in bytes. DHCP's file field has room for 128, option 67 for 255.
const maxName = 255

// NameError says why a name that a client asked for cannot be a file of ours. It is an fs.ErrInvalid.
type NameError struct {
	Name string // as it was asked for
	Why  string
}

// Error implements error.
func (e *NameError) Error() string {
	name := e.Name
	if len(name) > 64 {
		name = name[:64] + "…"
	}
	return fmt.Sprintf("file name %q: %s", name, e.Why)
}

// Unwrap makes errors.Is(err, fs.ErrInvalid) true.
func (e *NameError) Unwrap() error { return fs.ErrInvalid }

// CleanName turns the name that a client asked for into a path below the root, such as "pxe/snponly.efi".
//
// Firmware writes names in its own ways: with backslashes, with leading slashes, and some PXE ROMs take the end mark of the DHCP
// options (0xff) for the last character of the name. These are put right. A name with "..", control characters or none at all is
// refused rather than repaired: no honest client sends one.
func CleanName(raw string) (string, error) {
	if len(raw) > maxName {
		return "", &NameError{raw, "longer than 255 bytes"}
	}
	name := strings.TrimSuffix(raw, "\xff")
	name = strings.ReplaceAll(name, `\`, "/")
	for _, r := range name {
		if r < ' ' || r == 0x7f {
			return "", &NameError{raw, "control characters"}
		}
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." {
			return "", &NameError{raw, `".."`}
		}
	}
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	if name == "" {
		return "", &NameError{raw, "no name"}
	}
	return name, nil
}
