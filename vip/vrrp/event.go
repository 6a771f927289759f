package vrrp

import "net/netip"

// Event is what happens to a Machine: Startup, Shutdown, Release, Received, Tick, Slept, SetPriority, ClaimFailed, AddressesLost
// or AddressesInUse.
type Event interface{ event() }

// Startup begins the work of a machine in Initialize (RFC 9568 §6.4.1).
type Startup struct{}

// Shutdown ends it: the machine resigns if it is active (§6.4.3), and comes to Initialize as soon as another router has
// taken over, or after LeaveTime. A second Shutdown ends it at once.
type Shutdown struct{}

// Release asks an active machine to hand over. It becomes a backup as soon as another router has taken over; if none has
// after LeaveTime it stays active.
type Release struct{}

// Tick says that Deadline has come.
type Tick struct{}

// Received is an advertisement that passed Accept.
type Received struct {
	From          netip.Addr
	Advertisement Advertisement
}

// Slept says that the process has not run for so long that others may have taken its addresses away.
type Slept struct{}

// SetPriority changes the priority. 0 withdraws the router: it resigns, and claims nothing until it has another one.
type SetPriority struct{ Priority uint8 }

// ClaimFailed says that Hold could not be done. The machine resigns, and tries again after an Active_Down_Interval.
type ClaimFailed struct{}

// AddressesLost says that somebody took addresses of an active router away. It resigns.
type AddressesLost struct{}

// AddressesInUse says that another host was heard to have one of the addresses. It counts only while Probing.
type AddressesInUse struct{}

func (AddressesInUse) event() {}
func (AddressesLost) event()  {}
func (Startup) event()        {}
func (Shutdown) event()       {}
func (Release) event()        {}
func (Tick) event()           {}
func (Slept) event()          {}
func (Received) event()       {}
func (SetPriority) event()    {}
func (ClaimFailed) event()    {}

// Action is what a Machine wants done: Advertise, Hold, Drop, Announce, Probe or Transition.
type Action interface{ action() }

// Advertise asks for an advertisement with this priority to be sent.
type Advertise struct{ Priority uint8 }

// Hold asks for the addresses to be put on the interface.
type Hold struct{}

// Drop asks for the addresses to be taken off the interface, whoever put them there.
type Drop struct{}

// Announce asks for the neighbours to be told that the addresses are here: gratuitous ARP, now and again later.
type Announce struct{}

// Probe asks for the neighbours to be asked who has the addresses. PutOff says that somebody has them, and that a claim was put off
// for it.
type Probe struct{ PutOff bool }

// Transition says that the state has changed. There is nothing to do but tell.
type Transition struct {
	From  State `json:"from"`
	To    State `json:"to"`
	Cause Cause `json:"cause"`
}

func (Advertise) action()  {}
func (Hold) action()       {}
func (Drop) action()       {}
func (Announce) action()   {}
func (Probe) action()      {}
func (Transition) action() {}

// Cause says why the state changed. It feeds tests, the metric's label and, by its Text, the log and the status page.
type Cause string

// The causes of a Transition.
const (
	Started       Cause = "started"
	OwnsAddresses Cause = "owns_addresses"
	Silence       Cause = "silence"
	Resigned      Cause = "resigned"
	Outranked     Cause = "outranked"
	HandedOver    Cause = "handed_over"
	Withdrawn     Cause = "withdrawn"
	Overslept     Cause = "overslept"
	HoldFailed    Cause = "hold_failed"
	Robbed        Cause = "robbed"
	Stopped       Cause = "stopped"
)

var causeTexts = map[Cause]string{
	Started:       "started",
	OwnsAddresses: "started with priority 255: the addresses are its own",
	Silence:       "no better router was heard in time",
	Resigned:      "the active router resigned",
	Outranked:     "another router ranks higher",
	HandedOver:    "it was told to hand over, and another router has taken over",
	Withdrawn:     "its priority was set to 0",
	Overslept:     "it slept too long to know who is active",
	HoldFailed:    "the addresses could not be added",
	Robbed:        "somebody took the addresses away",
	Stopped:       "stopped",
}

// Text returns the cause in words.
func (c Cause) Text() string { return causeTexts[c] }
