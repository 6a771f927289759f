// Package dhcp gives addresses to a site's machines and tells those that boot where to boot from.
//
// Handle is the whole service as a function of the time, the site view, one message and the state of the leases: no clock, no socket,
// no disk. Server owns the state and the sockets; a lease is on disk before its ACK leaves.
//
// Two or more appliances are one service, under one server identifier (option 54) that survives each of them. They tell each other
// their leases (package pair). Each client is first answered by one of them, and each address of a pool is one's to give, both by hash,
// so that no address is given twice also when no word comes through.
package dhcp

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"everboot/site"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// Reason says why a message got the answer that it got. The same value stands in tests, metrics, events and `everboot explain`.
type Reason string

// The reasons for an answer with an address, for a NAK, and for silence.
const (
	Reserved  Reason = "reserved"   // the address is the device's reservation
	Pooled    Reason = "pooled"     // an address of our part of the pool
	Renewed   Reason = "renewed"    // it goes on with the lease that it has
	Readopted Reason = "re-adopted" // it goes on with a lease that we had no record of, and nobody else has
	Informed  Reason = "informed"   // it has an address and asked for options only
	Freed     Reason = "freed"      // RELEASE: the address is free again
	Isolated  Reason = "isolated"   // DECLINE: the address is in quarantine

	WrongNetwork Reason = "wrong-network"  // NAK: it asks for an address that does not belong to where it is
	NotIts       Reason = "not-its"        // NAK: the address that it asks for belongs to somebody else, or it has another one
	OtherServer  Reason = "other-server"   // it took another server's offer (option 54)
	OtherNode    Reason = "other-node"     // the message is another node's of this service to answer
	Comparing    Reason = "comparing"      // the nodes compare their leases: nobody is answered for a moment
	NoDisk       Reason = "no-disk"        // no lease can be written: nothing is offered, and the other nodes answer
	OfferLost    Reason = "offer-lost"     // NAK: the node that made the offer is gone
	PoolHeld     Reason = "pool-held"      // the free addresses may be in use with a node that is out of contact
	NoRecord     Reason = "no-record"      // it asks for a lease that we know nothing of; its server may
	NoSubnet     Reason = "no-subnet"      // there is no [[dhcp.subnet]] for where it is
	NoPool       Reason = "no-pool"        // it has no reservation and its subnet has no range
	PoolKept     Reason = "pool-kept"      // the last free addresses are for devices that the site knows
	PoolEmpty    Reason = "pool-exhausted" // no address of our part of the pool is free
	NotALease    Reason = "not-a-lease"    // RELEASE or DECLINE of an address that it does not have
	BadHardware  Reason = "bad-hardware"   // its hardware address is not an Ethernet address of one machine
	InUse        Reason = "in-use"         // a machine answers at the address that was to be offered
	Searching    Reason = "search"         // another appliance looks for DHCP servers that are none of ours
	Introduced   Reason = "introduced"     // an everboot of another service looks for DHCP servers: it is told whose we are
	Malformed    Reason = "malformed"      // the message contradicts RFC 2131
	Unsupported  Reason = "unsupported"    // BOOTP without DHCP, or a message that only servers send
	TooMany      Reason = "rate-limited"   // the machine sends more than perSecond messages a second
	Overloaded   Reason = "overloaded"     // more messages waited than QueueLength
)

var reasonText = map[Reason]string{
	Reserved:     "the address is its reservation",
	Pooled:       "an address of our part of the pool",
	Renewed:      "it goes on with the lease that it has",
	Readopted:    "it goes on with an address that we had no record of and that nobody else has",
	Informed:     "it has an address and asked for options only",
	Freed:        "it gave its address back",
	Isolated:     "it found somebody else at the address, which nobody gets for a while",
	WrongNetwork: "it asks for an address that does not belong to the network where it is",
	NotIts:       "the address that it asks for is not, or not any more, its own",
	OtherServer:  "it took another server's offer",
	OtherNode:    "another node of this service answers it",
	Comparing:    "the nodes are comparing their leases; it is answered in a moment",
	NoDisk:       "the disk takes no leases, so that nothing is offered: the log says why; another appliance answers, if there is one",
	OfferLost:    "the node that made it the offer is gone; it starts again",
	PoolHeld:     "no address is free for certain: the other node is out of contact and may have given or prolonged it",
	NoRecord:     "it asks for a lease that we know nothing of",
	NoSubnet:     "there is no [[dhcp.subnet]] for the network where it is",
	NoPool:       "it has no reservation, and its subnet has no range",
	PoolKept:     "the last free addresses are kept for the site's devices, and it is none of them: make the range larger",
	PoolEmpty:    "no address of our part of the pool is free: make the range larger or the lease shorter",
	NotALease:    "it gives back an address that it does not have",
	BadHardware:  "its hardware address is not the Ethernet address of one machine",
	InUse:        "a machine answers at the address that was to be offered",
	Searching:    "another appliance looks for DHCP servers that are none of ours",
	Introduced:   "an everboot of another service looks for DHCP servers; it is told whose we are",
	Malformed:    "the message is malformed",
	Unsupported:  "we do not serve this kind of message",
	Proxied:      "another server gives it an address; we say where to boot from",
	NotBooted:    "there is nothing to boot for it",
	NoClient:     "it does not ask where to boot from",
	TooMany:      "it sends more messages than a boot needs",
	Overloaded:   "more messages arrived than we can answer",
}

// Text returns the reason as a sentence without a full stop.
func (r Reason) Text() string { return reasonText[r] }

// Reasons returns every reason, sorted.
func Reasons() []Reason { return slices.Sorted(maps.Keys(reasonText)) }

// Decision is what became of one message.
type Decision struct {
	At      time.Time   `json:"at"`
	MAC     site.MAC    `json:"mac"`
	Message string      `json:"message"` // discover, request, release, decline, inform; of DHCPv6 v6-solicit, v6-request, …
	Answer  string      `json:"answer"`  // offer, ack, nak, v6-advertise, v6-reply, or empty: silence
	Reason  Reason      `json:"reason"`
	Address netip.Addr  `json:"address,omitzero"` // given, or asked for
	Client  site.Client `json:"client,omitempty"`
	Arch    site.Arch   `json:"arch"`
	Boot    site.Reason `json:"boot,omitempty"`   // why there are boot options in the answer, or none
	Server  netip.Addr  `json:"server,omitzero"`  // siaddr, if Boot is offered
	File    string      `json:"file,omitempty"`   // the boot file, if Boot is offered
	Vendor  string      `json:"vendor,omitempty"` // the vendor class that it sent (option 60)
}

// String returns the decision as one line without time and MAC.
func (d Decision) String() string {
	s := d.Message
	if d.Answer != "" {
		s += " → " + d.Answer
		if d.Address.IsValid() {
			s += " " + d.Address.String()
		}
	} else {
		s += " not answered"
	}
	s += ": " + d.Reason.Text()
	switch d.Boot {
	case "", site.NotABootClient:
	case site.Offered:
		s += fmt.Sprintf("; boot file %s from %s", d.File, d.Server)
	default:
		s += "; no boot file: " + d.Boot.Text()
	}
	return s
}

// event returns what the decision's name is in a target's boot timeline.
func (d Decision) event() site.Event {
	what := d.Answer
	if what == "" {
		what = d.Message
	}
	return site.Event{At: d.At, MAC: d.MAC, What: what, Detail: d.String()}
}

var messageNames = map[dhcpv4.MessageType]string{
	dhcpv4.MessageTypeDiscover: "discover", dhcpv4.MessageTypeRequest: "request", dhcpv4.MessageTypeRelease: "release",
	dhcpv4.MessageTypeNone: "bootp", dhcpv4.MessageTypeDecline: "decline", dhcpv4.MessageTypeInform: "inform",
	dhcpv4.MessageTypeOffer: "offer", dhcpv4.MessageTypeAck: "ack", dhcpv4.MessageTypeNak: "nak",
}

func messageName(t dhcpv4.MessageType) string {
	if name, ok := messageNames[t]; ok {
		return name
	}
	return "other"
}
