package dhcp

import (
	"net/netip"
	"time"

	"everboot/dhcp/leases"
	"everboot/site"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

const (
	// offerHold is how long an offered address is kept for a client that has not asked for it: PXE ROMs repeat a DISCOVER after 4, 8, 16
	// and 32 s, and ask within seconds of an offer.
	offerHold = 30 * time.Second
	// quarantine is how long an address that a client declined is given to nobody: a lease of the usual length, so that
	// whoever sits there without one has probably gone.
	quarantine = time.Hour
)

// Effects is what must happen besides the answer.
type Effects struct {
	Save     []leases.Lease // must be on disk before the answer leaves
	Decision Decision
	Events   []site.Event
	// Probe is the address offered, if nobody is known to have had it and it is on our own Ethernet: somebody may sit there.
	Probe netip.Addr
}

// Handle decides on one message. The answer is nil where RFC 2131 wants silence. A nil view is one that knows nobody: everybody
// gets an address from a pool, and no boot file.
func Handle(now time.Time, view *site.View, q *dhcpv4.DHCPv4, s *State) (*dhcpv4.DHCPv4, Effects) {
	return decide(now, view, question{DHCPv4: q}, s)
}

func decide(now time.Time, view *site.View, q question, s *State) (*dhcpv4.DHCPv4, Effects) {
	if view == nil {
		view = &site.View{}
	}
	s.look(view)
	r, reason := read(q.DHCPv4)
	r.device = s.deviceOf(r)
	h := &exchange{State: s, now: now, r: r, alone: q.to == s.cfg.serverID() && q.to != s.cfg.ServerAddress}
	switch {
	case reason == Searching:
		reason = h.introduce()
	case reason != "":
	case s.pair != nil && !s.pair.Ready(now):
		reason = Comparing
	case s.noDisk && r.kind == dhcpv4.MessageTypeDiscover: // who took the offer would wait for its ACK in vain, again and again
		reason = NoDisk
	default:
		reason = h.dispatch()
	}
	for _, l := range h.save {
		if s.pair != nil {
			s.pair.Changed(now, l.Address)
		}
	}
	return h.finish(reason)
}

// exchange is one message on its way to an answer.
type exchange struct {
	*State
	now  time.Time
	r    request
	sub  Subnet
	addr netip.Addr // given, or asked for
	save []leases.Lease

	alone bool // it was sent to the floating address: no other node heard it
	probe netip.Addr
	kind  dhcpv4.MessageType // of the answer; none: silence
	reply *dhcpv4.DHCPv4
	offer site.Offer
	boot  site.Reason
}

func (h *exchange) dispatch() Reason {
	switch h.r.kind {
	case dhcpv4.MessageTypeDiscover:
		return h.discover()
	case dhcpv4.MessageTypeRequest:
		return h.request()
	case dhcpv4.MessageTypeRelease:
		return h.release()
	case dhcpv4.MessageTypeDecline:
		return h.decline()
	case dhcpv4.MessageTypeInform:
		return h.inform()
	case dhcpv4.MessageTypeNone:
		return h.bootp()
	}
	return Unsupported
}

// bootp answers a machine from before DHCP (RFC 951, RFC 1534): it gets its reservation for ever. One from a pool would never come back.
func (h *exchange) bootp() Reason {
	var ok bool
	if h.sub, ok = h.subnetFor(h.r); !ok {
		return NoSubnet
	}
	if h.addr, ok = h.reservation(h.r, h.sub); !ok {
		return NoPool
	}
	if !h.first() && !h.neglected() {
		return OtherNode
	}
	if !h.reservable(h.now, h.addr, h.r) {
		return NotIts
	}
	h.r.boot.Client, h.r.boot.Arch = site.ClientPXE, site.ArchBIOS
	h.offer, h.boot = site.Boot(h.view, h.r.boot)
	h.reply = h.answer(Reserved)
	for _, code := range []dhcpv4.OptionCode{
		dhcpv4.OptionDHCPMessageType, dhcpv4.OptionServerIdentifier, dhcpv4.OptionIPAddressLeaseTime,
		dhcpv4.OptionRenewTimeValue, dhcpv4.OptionRebindingTimeValue,
	} {
		delete(h.reply.Options, code.Code())
	}
	return Reserved
}

// introduce answers a search, where clients would be answered, too.
func (h *exchange) introduce() (reason Reason) {
	if _, ok := h.subnetFor(h.r); !ok {
		return Searching
	}
	h.reply, reason = introduce(h.view, h.r, h.cfg.serverID(), true)
	return reason
}

// discover answers with what the client would get (RFC 2131 §4.3.1).
func (h *exchange) discover() Reason {
	var ok bool
	if h.sub, ok = h.subnetFor(h.r); !ok {
		return NoSubnet
	}
	if !h.first() && !h.neglected() {
		return OtherNode
	}
	reason := h.choose()
	if !h.addr.IsValid() {
		return reason
	}
	l, known := h.table.At(h.now, h.addr)
	if behind := h.pair != nil && h.pair.Behind() && !l.Live(); (!known || behind) && reason == Pooled && !h.r.giaddr.IsValid() {
		h.probe = h.addr
	}
	h.table.Offer(h.now, h.lease(), offerHold)
	h.kind = dhcpv4.MessageTypeOffer
	return reason
}

// choose finds the address for a DISCOVER: the reservation, what the client has, what it had last, what it asks for, any other.
func (h *exchange) choose() Reason {
	if a, ok := h.reservation(h.r, h.sub); ok && h.reservable(h.now, a, h.r) {
		h.addr = a
		return Reserved
	}
	// What it holds stays its own, also in a part of the pool that is another appliance's since the list of peers changed.
	had, known := h.table.Of(h.now, h.r.client, h.sub.Network)
	if known && (had.Live() && !h.avoid(h.r.device)(had.Address) || h.free(h.now, had.Address, h.r, h.sub)) {
		h.addr = had.Address
		return Pooled
	}
	if h.free(h.now, h.r.requested, h.r, h.sub) && !h.keptFromStrangers() {
		h.addr = h.r.requested
		return Pooled
	}
	if !h.sub.hasRange() {
		return NoPool
	}
	if h.keptFromStrangers() {
		if h.spareOf(h.sub).free == 0 && h.table.Waits(h.sub.Network) {
			return PoolHeld
		}
		return PoolKept
	}
	a, ok := h.table.Pick(h.now, h.sub.Network, h.avoid(h.r.device))
	if !ok && h.table.Waits(h.sub.Network) {
		return PoolHeld
	}
	if !ok {
		return PoolEmpty
	}
	h.addr = a
	return Pooled
}

// request tells the states of a client apart by what it fills in (RFC 2131 §4.3.2).
func (h *exchange) request() Reason {
	switch {
	// Some renew with option 54 filled in, which is wrong, but clear.
	case h.r.ciaddr.IsValid() && !h.r.requested.IsValid() && (!h.r.server.IsValid() || h.isUs(h.r.server)):
		return h.extending()
	case h.r.server.IsValid():
		return h.selecting()
	case h.r.ciaddr.IsValid():
		return h.extending()
	case h.r.requested.IsValid():
		return h.rebooting()
	}
	return Malformed
}

// selecting answers a client that has chosen between offers. Option 54 says whose it took.
func (h *exchange) selecting() Reason {
	var ok bool
	if h.sub, ok = h.subnetFor(h.r); !ok {
		return NoSubnet
	}
	h.addr = h.r.requested
	if !h.isUs(h.r.server) {
		h.forget()
		h.noteForeign(h.now, h.r.server, h.r.mac)
		return OtherServer
	}
	if !h.addr.IsValid() {
		return Malformed
	}
	if reason := h.whoseOffer(); reason != "" {
		return reason
	}
	if !h.sub.Network.Contains(h.addr) {
		return h.nak(WrongNetwork)
	}
	if reason := h.claim(); reason != NoRecord {
		return reason
	}
	// We may have forgotten an offer, in a restart: if the address can be given to it, it is as if we had not.
	if !h.free(h.now, h.addr, h.r, h.sub) {
		return h.nak(NotIts)
	}
	if h.keptFromStrangers() {
		return h.nak(PoolKept)
	}
	return h.ack(Pooled)
}

// rebooting answers a client that starts with an address that it remembers (INIT-REBOOT).
func (h *exchange) rebooting() Reason {
	var ok bool
	if h.sub, ok = h.subnetFor(h.r); !ok {
		return NoSubnet
	}
	h.addr = h.r.requested
	if !h.sub.Network.Contains(h.addr) {
		// Each node knows that. The address has no owner who could live or be dead.
		if !h.first() && !h.neglected() {
			return OtherNode
		}
		return h.nak(WrongNetwork)
	}
	if !h.answerable() {
		return OtherNode
	}
	return h.claim()
}

// extending answers a client that uses its address: RENEWING asks us alone, REBINDING asks everybody, and both
// are answered alike. Silence costs the client nothing before its lease runs out, a NAK takes away the address that its
// disk hangs on: so there is a NAK only if somebody else has the address.
func (h *exchange) extending() Reason {
	h.addr = h.r.ciaddr
	var ok bool
	if h.sub, ok = h.subnetOf(h.addr); !ok {
		return NoSubnet
	}
	if l, known := h.table.At(h.now, h.addr); known && l.Live() && l.State == leases.Bound && l.Client == h.r.client {
		return h.ack(Renewed)
	}
	if reason := h.claim(); reason != NoRecord {
		return reason
	}
	if !h.adoptable() {
		return NoRecord
	}
	if h.keptFromStrangers() {
		return PoolKept
	}
	return h.ack(Readopted)
}

// claim decides whether the client may have h.addr, as far as we know of it. NoRecord means that we know nothing, and h.kind stays none.
func (h *exchange) claim() Reason {
	mine, reserved := h.reservation(h.r, h.sub)
	if reserved && mine == h.addr {
		if h.reservable(h.now, h.addr, h.r) {
			return h.ack(Reserved)
		}
		return h.nak(NotIts)
	}
	if h.avoid(h.r.device)(h.addr) {
		return h.nak(NotIts)
	}
	l, known := h.table.At(h.now, h.addr)
	switch {
	case known && l.Live() && (l.Client != h.r.client || l.State == leases.Declined):
		return h.nak(NotIts)
	// A device with a reservation starts again with the address that it had before: it is told at its start, never in between.
	case reserved && h.reservable(h.now, mine, h.r) && !h.r.ciaddr.IsValid():
		return h.nak(NotIts)
	case known && l.Client == h.r.client && (l.Live() || h.free(h.now, h.addr, h.r, h.sub)):
		return h.ack(Pooled)
	}
	// It has another address from us.
	if other, ok := h.table.Of(h.now, h.r.client, h.sub.Network); ok && other.State == leases.Bound && !h.r.ciaddr.IsValid() {
		return h.nak(NotIts)
	}
	return NoRecord
}

// release frees an address. It is never answered (RFC 2131 §4.3.4).
func (h *exchange) release() Reason {
	if h.addr = h.r.ciaddr; !h.addr.IsValid() {
		return Malformed
	}
	if h.r.server.IsValid() && !h.isUs(h.r.server) {
		return OtherServer
	}
	l, ok := h.table.Release(h.now, h.addr, h.holder(h.addr, h.r))
	if !ok {
		return NotALease
	}
	h.save = append(h.save, l)
	return Freed
}

// decline takes an address out of use for a while. It is never answered (RFC 2131 §4.3.3).
func (h *exchange) decline() Reason {
	// Which server's lease it is must be said (RFC 2131 table 5).
	if h.addr = h.r.requested; !h.addr.IsValid() || !h.r.server.IsValid() {
		return Malformed
	}
	if !h.isUs(h.r.server) {
		return OtherServer
	}
	l, ok := h.table.Decline(h.now, h.addr, h.holder(h.addr, h.r), quarantine)
	if !ok {
		return NotALease
	}
	h.save = append(h.save, l)
	return Isolated
}

// inform gives options to a client that has its address from elsewhere (RFC 2131 §4.3.5).
func (h *exchange) inform() Reason {
	if h.addr = h.r.ciaddr; !h.addr.IsValid() {
		return Malformed
	}
	var ok bool
	if h.sub, ok = h.subnetOf(h.addr); !ok {
		return NoSubnet
	}
	h.kind = dhcpv4.MessageTypeAck
	return Informed
}

func (h *exchange) lease() leases.Lease {
	a, reserved := h.reservation(h.r, h.sub)
	return leases.Lease{Address: h.addr, Client: h.holder(h.addr, h.r), MAC: h.r.mac, Name: h.r.name, Reserved: reserved && a == h.addr}
}

func (h *exchange) ack(reason Reason) Reason {
	h.save = append(h.save, h.table.Bind(h.now, h.lease(), h.sub.lease()))
	h.kind = dhcpv4.MessageTypeAck
	return reason
}

func (h *exchange) nak(reason Reason) Reason {
	h.kind = dhcpv4.MessageTypeNak
	return reason
}
