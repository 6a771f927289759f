package vip

import (
	"maps"
	"net/netip"
	"sync"
	"time"

	"everboot/vip/vrrp"
)

// Transition is a change of state and its reason.
type Transition struct {
	At time.Time `json:"at"`
	vrrp.Transition
}

// Oddity is something that works, but that nobody meant so.
type Oddity string

// What is odd in an advertisement, or done to our addresses.
const (
	OtherAddresses Oddity = "addresses"     // the sender floats other addresses under our VRID
	OtherInterval  Oddity = "interval"      // its advertisement interval is not ours
	SecondActive   Oddity = "second_active" // it was active while we were
	ForeignTTL     Oddity = "ttl"           // it was dropped, for it has crossed a router
	TakenAway      Oddity = "taken_away"    // somebody took our addresses off the interface
	PutOn          Oddity = "put_on"        // somebody put them on while another node owned them
	InUse          Oddity = "in_use"        // another host answers for them, of which no advertisement is heard; a claim was put off
)

// Status is what a Router says of itself.
type Status struct {
	State    vrrp.State `json:"state"`
	Since    time.Time  `json:"since,omitzero"` // of State
	Priority int        `json:"priority"`
	// Owner is the own address of the node that has the floating ones; zero while nobody is known to.
	Owner       netip.Addr             `json:"owner,omitzero"`
	Last        Transition             `json:"last"`
	Sent        uint64                 `json:"sent"`     // advertisements
	Accepted    uint64                 `json:"accepted"` // advertisements
	Tickled     uint64                 `json:"tickled"`  // connections whose clients were told that they are gone
	Transitions map[vrrp.Cause]uint64  `json:"transitions,omitempty"`
	Dropped     map[vrrp.Reason]uint64 `json:"dropped,omitempty"`
	Odd         map[Oddity]uint64      `json:"odd,omitempty"`
}

// board holds the Status: the router's goroutine writes, anybody reads.
type board struct {
	mu     sync.Mutex
	status Status
}

func (b *board) change(f func(*Status)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f(&b.status)
}

func (b *board) read() Status {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.status
	s.Dropped, s.Odd, s.Transitions = maps.Clone(s.Dropped), maps.Clone(s.Odd), maps.Clone(s.Transitions)
	return s
}
