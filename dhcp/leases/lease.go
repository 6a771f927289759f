// Package leases remembers which client has which IPv4 address: a table in memory that decides nothing but order and
// expiry, and a file that keeps it over a restart.
//
// The table is pure: the time comes in as now. Give it the monotonic time of time.Now, and no step of the wall clock, forwards or
// backwards, frees a lease early.
package leases

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"time"

	"everboot/site"
)

// Client names a client by its client identifier (DHCP option 61, RFC 2131 §4.2) as raw bytes. A client that sends none is
// named by the hardware type 1 and its MAC, which is also what most clients send as their identifier: so that a firmware without one
// and an operating system with one are the same client.
type Client string

// ClientOf returns the name of a client that sent the identifier, which may be empty.
func ClientOf(identifier []byte, mac site.MAC) Client {
	if len(identifier) > 0 {
		return Client(identifier)
	}
	return Client("\x01" + string(mac[:]))
}

// String returns the bytes in hexadecimal.
func (c Client) String() string { return hex.EncodeToString([]byte(c)) }

// MarshalText implements encoding.TextMarshaler: hexadecimal.
func (c Client) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (c *Client) UnmarshalText(text []byte) error {
	b, err := hex.DecodeString(string(text))
	if err != nil {
		return fmt.Errorf("reading client identifier %q: %w", text, err)
	}
	*c = Client(b)
	return nil
}

// State is where an address stands.
type State string

// The states of an address. Offered, Bound and Declined are live: the address is given to nobody else until it expires.
const (
	Offered  State = "offered"  // held for a client that has not asked for it yet; never on disk
	Bound    State = "bound"    // acknowledged
	Declined State = "declined" // in quarantine: a client found somebody else at the address
	Released State = "released" // given back
	Expired  State = "expired"  // its time ran out
)

// Lease is what is known of one address.
type Lease struct {
	Address  netip.Addr `json:"address"`
	Client   Client     `json:"client,omitempty"` // who has it, or had it last
	MAC      site.MAC   `json:"mac,omitzero"`
	Name     string     `json:"name,omitempty"` // the host name that the client sent
	State    State      `json:"state"`
	Start    time.Time  `json:"start"`              // of the present state, renewed with each renewal
	Expires  time.Time  `json:"expires"`            // when a live one becomes free; when another one became free
	Reserved bool       `json:"reserved,omitempty"` // by a device's reservation, not from a pool
	// Version rises with each change, on whichever node it is made: of two records of one address the one with the higher version
	// was made in knowledge of the other.
	Version uint64 `json:"version,omitempty"`
}

// Live reports whether the address may be given to nobody else.
func (l Lease) Live() bool { return l.State == Offered || l.State == Bound || l.State == Declined }
