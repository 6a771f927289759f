package site

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"
)

// MAC is an Ethernet address: the name that a target is known by. The zero MAC names nobody.
type MAC [6]byte

// ParseMAC reads an EUI-48 in the forms that net.ParseMAC knows (colons, dashes, dots).
func ParseMAC(s string) (MAC, error) {
	hw, err := net.ParseMAC(s)
	if err != nil || len(hw) != 6 {
		return MAC{}, fmt.Errorf("%q is not a MAC address such as 52:54:00:00:00:01", s)
	}
	return MAC(hw), nil
}

// String returns the address in lower case with colons.
func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// IsZero reports whether m names nobody.
func (m MAC) IsZero() bool { return m == MAC{} }

// MarshalText implements encoding.TextMarshaler.
func (m MAC) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (m *MAC) UnmarshalText(text []byte) (err error) {
	*m, err = ParseMAC(string(text))
	return err
}

// Digest is the lower-case hexadecimal SHA-256 of the casync index of a vDisk version's content. Two replicas are
// identical when their digests are equal. The empty Digest means "not known yet".
type Digest string

// ParseDigest reads 64 hexadecimal digits.
func ParseDigest(s string) (Digest, error) {
	if b, err := hex.DecodeString(s); err != nil || len(b) != 32 {
		return "", fmt.Errorf("%q is not a digest of 64 hexadecimal digits", s)
	}
	return Digest(strings.ToLower(s)), nil
}

// Short returns the first 16 digits, which stand in target names.
func (d Digest) Short() string { return string(d[:min(len(d), shortDigest)]) }

const (
	// shortDigest is the count of hexadecimal digits of a digest in a target name: 64 bits, and a name stays readable.
	shortDigest = 16
	// iqnPrefix starts all iSCSI names of ours (RFC 7143 §4.2.7.1). ".internal" is reserved for private use, so that
	// the name can never belong to somebody else.
	iqnPrefix = "iqn.2026-11.internal.everboot:"
)

// nameRule is what sites, nodes, streamers, collections and vDisks may be called: it survives iSCSI names (RFC 3722 folds case),
// URLs, Consul keys and file names unchanged.
var nameRule = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// CheckName returns an error that says what a name of kind ("vDisk", "node", …) may look like, or nil.
func CheckName(kind, name string) error {
	if !nameRule.MatchString(name) {
		return fmt.Errorf("%s name %q: use 1 to 63 of a-z, 0-9 and inner dashes", kind, name)
	}
	return nil
}

// TargetName is what an iSCSI TargetName of ours says. It carries the digest, so that a target that logs in again can
// only ever reach the content that it booted from.
type TargetName struct {
	Site    string
	VDisk   string
	Version int
	Digest  string // the first 16 hexadecimal digits
}

// NameTarget returns the target name of one version of a vDisk.
func NameTarget(siteName, vdisk string, version int, digest Digest) TargetName {
	return TargetName{Site: siteName, VDisk: vdisk, Version: version, Digest: digest.Short()}
}

// IQN returns the iSCSI name, iqn.2026-11.internal.everboot:SITE:VDISK:VERSION:DIGEST.
func (t TargetName) IQN() string {
	return fmt.Sprintf("%s%s:%s:%d:%s", iqnPrefix, t.Site, t.VDisk, t.Version, t.Digest)
}

var errTargetName = errors.New("not a target name of everboot (iqn.2026-11.internal.everboot:SITE:VDISK:VERSION:DIGEST)")

// ParseTargetName reads what IQN wrote.
func ParseTargetName(iqn string) (TargetName, error) {
	rest, ok := strings.CutPrefix(iqn, iqnPrefix)
	parts := strings.Split(rest, ":")
	if !ok || len(parts) != 4 || !nameRule.MatchString(parts[0]) || !nameRule.MatchString(parts[1]) {
		return TargetName{}, errTargetName
	}
	version, err := strconv.Atoi(parts[2])
	if err != nil || version < 1 || parts[2] != strconv.Itoa(version) {
		return TargetName{}, errTargetName
	}
	if _, err := hex.DecodeString(parts[3]); err != nil || len(parts[3]) != shortDigest || strings.ToLower(parts[3]) != parts[3] {
		return TargetName{}, errTargetName
	}
	return TargetName{Site: parts[0], VDisk: parts[1], Version: version, Digest: parts[3]}, nil
}

// InitiatorName returns the iSCSI InitiatorName that the bootstrap gives to a target.
func InitiatorName(m MAC) string {
	return iqnPrefix + "device:" + strings.ReplaceAll(m.String(), ":", "-")
}

// ParseInitiatorName returns the MAC that InitiatorName was made from.
func ParseInitiatorName(iqn string) (MAC, error) {
	rest, ok := strings.CutPrefix(iqn, iqnPrefix+"device:")
	if !ok {
		return MAC{}, errors.New("not an initiator name of everboot (iqn.2026-11.internal.everboot:device:MAC)")
	}
	return ParseMAC(rest)
}

// ProbeName returns the iSCSI InitiatorName of somebody who only looks whether a streamer lives, and is nobody's load.
func ProbeName(who string) string { return iqnPrefix + probePart + who }

const probePart = "probe:"

// IsProbe reports whether an InitiatorName is one of ProbeName's.
func IsProbe(initiator string) bool { return strings.HasPrefix(initiator, iqnPrefix+probePart) }
