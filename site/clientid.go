package site

import (
	"encoding/hex"
	"fmt"
	"strings"
)

// ClientID is a DHCP client identifier (option 61, RFC 2132 §9.14) as raw bytes, the type byte among them. Empty: none.
type ClientID string

// maxClientID is what an option has room for.
const maxClientID = 255

// ParseClientID reads hexadecimal bytes, with or without colons, such as 01:52:54:00:00:00:01. The empty text is no identifier.
func ParseClientID(s string) (ClientID, error) {
	if s == "" {
		return "", nil
	}
	groups := strings.Split(s, ":")
	for i, g := range groups {
		if len(groups) > 1 && len(g) == 1 { // dhcpd prints bytes below 16 with one digit
			groups[i] = "0" + g
		} else if len(groups) > 1 && len(g) != 2 {
			groups[i] = "?"
		}
	}
	b, err := hex.DecodeString(strings.Join(groups, ""))
	// RFC 2132 §9.14: two bytes are the least.
	if err != nil || len(b) < 2 || len(b) > maxClientID {
		return "", fmt.Errorf("client identifier %q: use 2 to %d bytes in hexadecimal, such as 01:52:54:00:00:00:01", s, maxClientID)
	}
	return ClientID(b), nil
}

// String returns the bytes in hexadecimal with colons.
func (c ClientID) String() string {
	if c == "" {
		return ""
	}
	text := hex.EncodeToString([]byte(c))
	groups := make([]string, 0, len(c))
	for i := 0; i < len(text); i += 2 {
		groups = append(groups, text[i:i+2])
	}
	return strings.Join(groups, ":")
}

// MarshalText implements encoding.TextMarshaler.
func (c ClientID) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (c *ClientID) UnmarshalText(text []byte) (err error) {
	*c, err = ParseClientID(string(text))
	return err
}
