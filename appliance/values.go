package appliance

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strings"
	"time"
)

// Duration is a time span written as "100ms", "1h".
type Duration time.Duration

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil || v <= 0 {
		return fmt.Errorf("%q is not a span of time such as \"100ms\" or \"1h\"", text)
	}
	*d = Duration(v)
	return nil
}

// AddrRange is an inclusive range of addresses written as "198.18.0.100-198.18.0.199", or a single one.
type AddrRange struct{ First, Last netip.Addr }

// UnmarshalText implements encoding.TextUnmarshaler.
func (r *AddrRange) UnmarshalText(text []byte) error {
	first, last, ok := strings.Cut(string(text), "-")
	if !ok {
		last = first
	}
	a, errA := netip.ParseAddr(strings.TrimSpace(first))
	b, errB := netip.ParseAddr(strings.TrimSpace(last))
	if errA != nil || errB != nil || a.BitLen() != b.BitLen() {
		return fmt.Errorf("%q is not a range such as \"198.18.0.100-198.18.0.199\"", text)
	}
	if b.Less(a) {
		return fmt.Errorf("range %q ends before it starts", text)
	}
	*r = AddrRange{First: a, Last: b}
	return nil
}

// IsZero reports whether no range was given.
func (r AddrRange) IsZero() bool { return !r.First.IsValid() }

func (r AddrRange) String() string { return r.First.String() + "-" + r.Last.String() }

// Overlaps reports whether two ranges share an address.
func (r AddrRange) Overlaps(o AddrRange) bool {
	return !r.IsZero() && !o.IsZero() && !r.Last.Less(o.First) && !o.Last.Less(r.First)
}

// Secret is a file that holds a secret, written as "file:/etc/everboot/api.token". The zero Secret is none. The secret itself never stands in
// a configuration file, a flag or a log.
type Secret struct{ path string }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Secret) UnmarshalText(text []byte) error {
	path, ok := strings.CutPrefix(string(text), "file:")
	if !ok || path == "" {
		return fmt.Errorf("a secret is named by its file, such as \"file:/etc/everboot/api.token\"")
	}
	s.path = path
	return nil
}

// IsZero reports whether no secret was named.
func (s Secret) IsZero() bool { return s.path == "" }

// Read returns the secret without white space around it, or "" where none was named.
func (s Secret) Read() (string, error) {
	if s.IsZero() {
		return "", nil
	}
	text, err := os.ReadFile(s.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("reading a secret: %w; make it with: head -c 32 /dev/urandom | base64 > %s", err, s.path)
	case err != nil: // nobody shall be led to make a secret anew that others have
		return "", fmt.Errorf("reading a secret: %w; run this as its owner", err)
	}
	secret := strings.TrimSpace(string(text))
	if len(secret) < 16 {
		return "", fmt.Errorf("the secret in %s has %d characters; use at least 16", s.path, len(secret))
	}
	return secret, nil
}
