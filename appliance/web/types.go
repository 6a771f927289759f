// Package web is an appliance's API, its metrics and its status page, and the client that the command line uses.
package web

import (
	"net/netip"
	"time"

	"everboot/appliance/peers"
	"everboot/site"
	"everboot/streamer"
	"everboot/tftp"
)

// Status is the site at a glance, as one appliance sees it.
type Status struct {
	Node      string         `json:"node"`
	Version   string         `json:"version"`
	Now       time.Time      `json:"now"`
	Started   time.Time      `json:"started"`
	View      *site.View     `json:"view"`
	VIP       *VIP           `json:"vip,omitempty"`       // of [vip]
	VIPs      []VIP          `json:"vips,omitempty"`      // all, that of [vip] first
	StandIns  []StandIn      `json:"stand_ins,omitempty"` // at streamers' floating addresses
	Peers     []peers.Peer   `json:"peers,omitempty"`
	Checks    []Check        `json:"checks"`
	Sessions  []Session      `json:"sessions"`
	Transfers []Transfer     `json:"transfers,omitempty"`      // TFTP, under way
	Past      []Transfer     `json:"past_transfers,omitempty"` // the last that ended, the newest first
	Media     []MediumReport `json:"media,omitempty"`          // boot media in running targets, and those that shall have one
	Leases    int            `json:"leases"`                   // addresses given from pools or reservations that are alive
	Warnings  []string       `json:"warnings"`                 // what somebody should look at, one line each
}

// MediumState is how a boot medium in a target stands to what the site wants.
type MediumState string

// The states of a boot medium.
const (
	MediumCurrent MediumState = "current"
	MediumBehind  MediumState = "behind" // it is told so when it asks, every two minutes
	MediumFailed  MediumState = "failed" // it cannot be written
	MediumSilent  MediumState = "silent" // its device has not asked since this appliance started: it is off, or its image has no unit for it
	MediumKept    MediumState = "kept"   // nobody wants another one
)

// MediumReport is a boot medium in a target.
type MediumReport struct {
	MAC        site.MAC    `json:"mac"`
	Device     string      `json:"device,omitempty"`
	Collection string      `json:"collection,omitempty"`
	Medium     string      `json:"medium,omitempty"` // the target's name of it: vda4
	Has        int         `json:"has"`              // its version; 0: it was made by hand
	Wants      int         `json:"wants"`            // 0: nobody wants another one
	State      MediumState `json:"state"`
	Problem    string      `json:"problem,omitempty"` // why it cannot be written: read-only, mounted, in-use, https, unreachable or write
	At         time.Time   `json:"at,omitzero"`       // when it was last heard of
}

// VIP is what the VRRP router says.
type VIP struct {
	VRID      int       `json:"vrid"`
	State     string    `json:"state"` // initialize, backup or active (RFC 9568 §6.4)
	Since     time.Time `json:"since"`
	Addresses []string  `json:"addresses"`
	Priority  int       `json:"priority"`
	Owner     string    `json:"owner,omitempty"` // the Active router's own address
	Reason    string    `json:"reason,omitempty"`
	// Odd counts what nobody meant so, such as a second active router or a peer's other interval, and what was dropped.
	Odd map[string]uint64 `json:"odd,omitempty"`
}

// StandIn is a virtual router that waits for a streamer to fall silent, and then has its floating address.
type StandIn struct {
	Streamer  string     `json:"streamer"`
	Address   netip.Addr `json:"address"`
	VRID      int        `json:"vrid"`
	State     string     `json:"state"` // backup: the streamer is heard; active: this appliance has the address; empty: it cannot stand in
	Since     time.Time  `json:"since,omitzero"`
	TakeOvers uint64     `json:"take_overs"`
}

// Check is one of the appliance's own probes.
type Check struct {
	Name string `json:"name"`
	site.Check
}

// Session is a target's stream through this appliance's director.
type Session struct {
	MAC        site.MAC  `json:"mac"`
	Device     string    `json:"device"`
	VDisk      string    `json:"vdisk"`
	Version    int       `json:"version"`
	Streamer   string    `json:"streamer"`
	Remote     string    `json:"remote"`
	Since      time.Time `json:"since"`
	ToTarget   uint64    `json:"to_target_bytes"`
	ToStreamer uint64    `json:"to_streamer_bytes"`
	Failovers  int       `json:"failovers"`
	// FirstBlock is when the first block of the disk passed; zero: none has.
	FirstBlock time.Time `json:"first_block,omitzero"`
	// Stall is how long the last failover kept the target waiting, and StallAt when that ended; zero: it had none, or nobody here knows.
	Stall   Seconds   `json:"last_stall_seconds"`
	StallAt time.Time `json:"last_stall_at,omitzero"`
}

// Seconds is a time span that JSON shows in seconds.
type Seconds float64

// Span returns it as a Duration, to the millisecond.
func (s Seconds) Span() time.Duration {
	return time.Duration(float64(s) * float64(time.Second)).Round(time.Millisecond)
}

// Transfer is a TFTP transfer at this appliance.
type Transfer struct {
	MAC    site.MAC `json:"mac"`
	Device string   `json:"device,omitempty"`
	tftp.Transfer
}

// Lease is what DHCP knows of an address.
type Lease struct {
	Address  netip.Addr `json:"address"`
	MAC      site.MAC   `json:"mac"`
	Device   string     `json:"device,omitempty"` // its name, if the site knows it
	Name     string     `json:"name,omitempty"`   // the host name that the client sent
	State    string     `json:"state"`            // offered, bound, declined, released or expired
	Start    time.Time  `json:"start,omitzero"`
	Expires  time.Time  `json:"expires"` // when a live one ends; when another one ended
	Reserved bool       `json:"reserved"`
	// Computed says that it is an IPv6 address that its client was heard to use, and no lease: DHCPv6 keeps none. Start is not known.
	Computed bool `json:"computed,omitempty"`
}

// Explanation is what a target gets, and why.
type Explanation struct {
	MAC        site.MAC        `json:"mac"`
	Device     string          `json:"device,omitempty"`
	Address    string          `json:"address,omitempty"`
	Boots      bool            `json:"boots"` // whether it is told where to boot from
	Reason     site.Reason     `json:"reason"`
	Text       string          `json:"text"`
	Assignment site.Assignment `json:"assignment"`
	Streamer   string          `json:"streamer,omitempty"` // who would serve it now
	Server     string          `json:"server,omitempty"`
	Last       string          `json:"last,omitempty"` // what became of its last message over IPv4, as far as Events go back
	LastAt     time.Time       `json:"last_at,omitzero"`
	IPv6       *Explanation6   `json:"ipv6,omitempty"` // nil: this appliance serves no DHCPv6
	Events     []site.Event    `json:"events"`
}

// Explanation6 is what a target gets over IPv6, and why.
type Explanation6 struct {
	Address  netip.Addr  `json:"address,omitzero"` // reserved, or one that it was heard to use
	Reserved bool        `json:"reserved"`
	Boots    bool        `json:"boots"`
	Reason   site.Reason `json:"reason"`
	Text     string      `json:"text"`
	Server   netip.Addr  `json:"server,omitzero"`
	File     string      `json:"file,omitempty"`
	Last     string      `json:"last,omitempty"` // what became of its last message here; empty: none was heard
	LastAt   time.Time   `json:"last_at,omitzero"`
}

// BootOffer is what a client is told to boot from, for DHCP servers that are not ours.
type BootOffer struct {
	Offer  site.Offer  `json:"offer"`
	Reason site.Reason `json:"reason"`
	Text   string      `json:"text"`
}

// DeviceStatus is what one target gets, what it streams, and how its last boots went.
type DeviceStatus struct {
	Now         time.Time   `json:"now"`
	Explanation Explanation `json:"explanation"`
	// Sessions are its streams through this appliance: mostly one; none if it is off, or streams through another.
	Sessions []Session `json:"sessions"`
	// Last is its last session, wherever it was led; nil: nobody knows of one.
	Last *streamer.Last `json:"last,omitempty"`
	// Boots are its last boots as this appliance saw them, the oldest first.
	Boots []Boot `json:"boots"`
}

// Boot is one boot of a target, and what happened until the next.
type Boot struct {
	Began   time.Time    `json:"began"`
	LeftOut int          `json:"left_out,omitempty"` // events in the middle that are no longer kept
	Events  []site.Event `json:"events"`
}
