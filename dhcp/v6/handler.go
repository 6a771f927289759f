package v6

import (
	"net/netip"
	"slices"
	"time"

	"everboot/dhcp"
	"everboot/site"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"
)

// State is what Handle remembers from one message to the next. It is not safe for concurrent use.
type State struct {
	cfg   Config
	duid  *dhcpv6.DUIDUUID
	known *known

	view     *site.View // what follows is made of
	reserved map[netip.Addr]site.MAC
}

// NewState returns the state of a server with the configuration, which must be valid.
func NewState(cfg Config) *State {
	return &State{cfg: cfg, duid: serverID(cfg.Site), known: newKnown()}
}

// Message is a message as it came.
type Message struct {
	Bytes   []byte
	From    netip.Addr // a link-local address: the client's, or anything: a relay agent's
	Unicast bool       // it was sent to an address of ours
	// Ours says that this node is first to answer a client. A client that sends its message again is answered by any node: all say the same.
	Ours func(duid string) bool
}

// exchange is one message on its way to an answer.
type exchange struct {
	*State
	now   time.Time
	r     request
	sub   Subnet
	reply *dhcpv6.Message  // nil: silence
	addr  netip.Addr       // given, given back or asked about: the first
	given map[[4]byte]bool // associations that gave an address back
	offer site.Offer
	boot  site.Reason
}

// Handle decides on one message. The answer is nil where RFC 8415 wants silence, or another node answers. A nil view is one that knows nobody.
func Handle(now time.Time, view *site.View, m Message, s *State) ([]byte, dhcp.Decision) {
	if view == nil {
		view = &site.View{}
	}
	s.look(view)
	r, reason := read(m.Bytes, m.From)
	h := &exchange{State: s, now: now, r: r, given: make(map[[4]byte]bool)}
	if reason == "" {
		reason = h.decide(m)
	}
	return h.finish(reason)
}

// look makes ready what the decisions need of a view.
func (s *State) look(v *site.View) {
	if s.view == v && s.reserved != nil {
		return
	}
	s.view, s.reserved = v, make(map[netip.Addr]site.MAC)
	for _, d := range v.SortedDevices() { // of two devices with one address the lower MAC gets it, on every appliance
		if _, taken := s.reserved[d.Address6]; !taken && d.Address6.IsValid() {
			s.reserved[d.Address6] = d.MAC
		}
	}
}

func (h *exchange) decide(m Message) dhcp.Reason {
	var ok bool
	if h.sub, ok = h.cfg.local(); h.r.link.IsValid() {
		h.sub, ok = h.cfg.subnetOf(h.r.link)
	}
	switch {
	case !h.valid():
		return dhcp.Malformed
	case !h.asksUs():
		return dhcp.OtherServer
	case !ok:
		return dhcp.NoSubnet
	}
	h.overhear()
	if !h.r.again && m.Ours != nil && !m.Ours(h.r.duid) {
		return dhcp.OtherNode
	}
	if m.Unicast && len(h.r.relays) == 0 {
		return h.unicast()
	}
	return h.dispatch()
}

// The identifiers that a message must have (RFC 8415 §16).
var needs = map[dhcpv6.MessageType]struct{ client, server bool }{
	dhcpv6.MessageTypeSolicit: {true, false}, dhcpv6.MessageTypeRequest: {true, true}, dhcpv6.MessageTypeConfirm: {true, false},
	dhcpv6.MessageTypeRenew: {true, true}, dhcpv6.MessageTypeRebind: {true, false}, dhcpv6.MessageTypeRelease: {true, true},
	dhcpv6.MessageTypeDecline: {true, true}, dhcpv6.MessageTypeInformationRequest: {},
}

// valid reports whether a message is one of a client, with what must be in it and without what must not.
func (h *exchange) valid() bool {
	n, ok := needs[h.r.msg.MessageType]
	server := h.r.msg.Options.ServerID() != nil
	switch {
	case !ok || n.client && h.r.duid == "":
		return false
	case h.r.msg.MessageType == dhcpv6.MessageTypeInformationRequest:
		return len(h.r.msg.Options.IANA()) == 0 // §16.12; a server identifier may be in it
	}
	return n.server == server
}

// asksUs reports whether a message is for any server, or for us.
func (h *exchange) asksUs() bool {
	id := h.r.msg.Options.ServerID()
	return id == nil || h.duid.Equal(id)
}

// unicast answers who did not use the group address: we allow that to nobody, because only what all nodes hear is answered by whoever lives
// (RFC 8415 §18.4).
func (h *exchange) unicast() dhcp.Reason {
	switch h.r.msg.MessageType {
	case dhcpv6.MessageTypeRequest, dhcpv6.MessageTypeRenew, dhcpv6.MessageTypeRelease, dhcpv6.MessageTypeDecline:
		h.begin(dhcpv6.MessageTypeReply)
		h.status(iana.StatusUseMulticast, "ask all servers and relay agents")
		return dhcp.Unsupported
	}
	return dhcp.Malformed
}

func (h *exchange) dispatch() dhcp.Reason {
	switch h.r.msg.MessageType {
	case dhcpv6.MessageTypeSolicit:
		return h.solicit()
	case dhcpv6.MessageTypeRequest:
		h.begin(dhcpv6.MessageTypeReply)
		return h.assign()
	case dhcpv6.MessageTypeRenew, dhcpv6.MessageTypeRebind:
		return h.extend()
	case dhcpv6.MessageTypeConfirm:
		return h.confirm()
	case dhcpv6.MessageTypeRelease:
		return h.giveBack(dhcp.Freed)
	case dhcpv6.MessageTypeDecline:
		return h.giveBack(dhcp.Isolated)
	}
	h.begin(dhcpv6.MessageTypeReply)
	return dhcp.Informed
}

// solicit answers with what the client would get, or with that it has it, if it wants to be done with two messages (RFC 8415 §18.3.1).
func (h *exchange) solicit() dhcp.Reason {
	if h.r.msg.GetOneOption(dhcpv6.OptionRapidCommit) == nil {
		h.begin(dhcpv6.MessageTypeAdvertise)
		// Every server of this service says the same: the client need not wait a second for others (§18.2.1).
		h.put(dhcpv6.OptionPreference, []byte{255})
		return h.assign()
	}
	h.begin(dhcpv6.MessageTypeReply)
	h.put(dhcpv6.OptionRapidCommit, nil)
	return h.assign()
}

// assign gives each association its address.
func (h *exchange) assign() dhcp.Reason {
	reason := dhcp.Informed // it asks for no address
	for _, ia := range h.r.msg.Options.IANA() {
		// A REQUEST for what another network's server advertised is told so (RFC 8415 §18.3.2); in a SOLICIT it is no more than a wish.
		if h.r.msg.MessageType == dhcpv6.MessageTypeRequest && slices.ContainsFunc(hints(ia), h.foreign) {
			h.refuse(ia, iana.StatusNotOnLink, dhcp.WrongNetwork.Text())
			if reason == dhcp.Informed {
				reason = dhcp.WrongNetwork
			}
			continue
		}
		a, why := h.addressOf(ia)
		if reason == dhcp.Informed || a.IsValid() && !h.addr.IsValid() {
			reason = why
		}
		if !a.IsValid() {
			h.refuse(ia, iana.StatusNoAddrsAvail, why.Text())
			continue
		}
		h.give(ia, a)
	}
	h.refuseOthers()
	return reason
}

// addressOf chooses the address of an association: the reservation, what the client names if it can be its own, the first of its own that is free.
func (h *exchange) addressOf(ia *dhcpv6.OptIANA) (netip.Addr, dhcp.Reason) {
	c := h.r.client(ia.IaId)
	if a, ok := h.reservation(); ok && h.addr != a && h.known.free(h.now, a, h.holder(c, a)) {
		return a, dhcp.Reserved
	}
	if len(h.sub.Ranges) == 0 {
		return netip.Addr{}, dhcp.NoPool
	}
	for _, a := range hints(ia) {
		if mine, ok := h.reservation(); h.may(c, a) && !(ok && mine == a) {
			return a, dhcp.Pooled
		}
	}
	for n := range tries {
		if a := candidate(h.cfg.Site, h.sub, c, n); h.givable(a) && h.known.free(h.now, a, c) {
			return a, dhcp.Pooled
		}
	}
	return netip.Addr{}, dhcp.PoolEmpty
}

// reservation returns the address that is reserved for the client here.
func (h *exchange) reservation() (netip.Addr, bool) {
	a := h.view.Devices[h.r.mac].Address6
	if !a.IsValid() || !h.sub.Network.Contains(a) || h.reserved[a] != h.r.mac || slices.Contains(h.cfg.Addresses, a) {
		return netip.Addr{}, false
	}
	return a, true
}

// holder returns the name under which a client has an address: a reserved one is the device's, whichever program of its asks. Firmware, iPXE and
// operating system have different identifiers.
func (h *exchange) holder(c client, a netip.Addr) client {
	if mine, ok := h.reservation(); ok && mine == a {
		return client{duid: h.r.mac.String()}
	}
	return c
}

// may reports whether an address is one that the association may have, whichever node gave it: it need not have been us, nor this run of us.
func (h *exchange) may(c client, a netip.Addr) bool {
	if mine, ok := h.reservation(); ok && mine == a {
		return h.known.keeps(h.now, a, h.holder(c, a))
	}
	if !h.known.keeps(h.now, a, c) || len(h.sub.Ranges) == 0 || !h.givable(a) {
		return false
	}
	for n := range tries {
		if candidate(h.cfg.Site, h.sub, c, n) == a {
			return true
		}
	}
	return false
}

// givable reports whether an address of a pool may be given at all.
func (h *exchange) givable(a netip.Addr) bool {
	_, reserved := h.reserved[a]
	return !reserved && !slices.Contains(h.cfg.Addresses, a) && !within(h.sub.Exclude, a)
}

// extend answers RENEW and REBIND (RFC 8415 §18.3.4, §18.3.5): what the client may have goes on, what it may not ends, and it is told what it gets
// in place of it.
func (h *exchange) extend() dhcp.Reason {
	reason, any := dhcp.Informed, false
	h.begin(dhcpv6.MessageTypeReply)
	for _, ia := range h.r.msg.Options.IANA() {
		c := h.r.client(ia.IaId)
		list := hints(ia)
		right, why := h.addressOf(ia)
		switch {
		case right.IsValid() && slices.Contains(list, right):
			h.give(ia, right, without(list, right)...)
			reason, any = dhcp.Renewed, true
		case h.r.msg.MessageType == dhcpv6.MessageTypeRebind && !slices.ContainsFunc(list, func(a netip.Addr) bool { return h.may(c, a) || h.foreign(a) }):
			// Another server's, perhaps: it may say that it goes on.
		case !right.IsValid() && len(list) == 0:
			h.refuse(ia, iana.StatusNoBinding, why.Text())
			reason, any = why, true
		default:
			h.give(ia, right, list...)
			reason, any = why, true
		}
	}
	if !any && len(h.r.msg.Options.IANA()) > 0 {
		h.reply = nil
		return dhcp.NoRecord
	}
	h.refuseOthers()
	return reason
}

// foreign reports whether an address cannot be used where the client is.
func (h *exchange) foreign(a netip.Addr) bool { return !h.sub.Network.Contains(a) }

// confirm says whether a client that may have moved is still where its addresses are (RFC 8415 §18.3.3).
func (h *exchange) confirm() dhcp.Reason {
	var list []netip.Addr
	for _, ia := range h.r.msg.Options.IANA() {
		list = append(list, hints(ia)...)
	}
	if len(list) == 0 {
		return dhcp.Malformed
	}
	h.begin(dhcpv6.MessageTypeReply)
	if i := slices.IndexFunc(list, h.foreign); i >= 0 {
		h.addr = list[i]
		h.status(iana.StatusNotOnLink, "that is not this network")
		return dhcp.WrongNetwork
	}
	h.addr = list[0]
	h.status(iana.StatusSuccess, "")
	return dhcp.Renewed
}

// giveBack answers RELEASE and DECLINE, which overhear has seen to (RFC 8415 §18.3.7, §18.3.8).
func (h *exchange) giveBack(done dhcp.Reason) dhcp.Reason {
	h.begin(dhcpv6.MessageTypeReply)
	h.status(iana.StatusSuccess, "")
	reason := dhcp.NotALease
	for _, ia := range h.r.msg.Options.IANA() {
		if h.given[ia.IaId] {
			reason = done
			continue
		}
		h.refuse(ia, iana.StatusNoBinding, dhcp.NotALease.Text())
	}
	return reason
}

// overhear remembers what a message says of who uses what, also one that another node answers: so all remember the same.
func (h *exchange) overhear() {
	for _, ia := range h.r.msg.Options.IANA() {
		c := h.r.client(ia.IaId)
		for _, a := range hints(ia) {
			if !h.may(c, a) {
				continue
			}
			holder := h.holder(c, a)
			switch h.r.msg.MessageType {
			case dhcpv6.MessageTypeRequest, dhcpv6.MessageTypeRenew, dhcpv6.MessageTypeRebind:
				h.known.put(a, use{client: holder, mac: h.r.mac, until: h.now.Add(h.sub.lease())})
				continue
			case dhcpv6.MessageTypeRelease:
				h.known.put(a, use{})
			case dhcpv6.MessageTypeDecline:
				h.known.put(a, use{client: holder, until: h.now.Add(quarantine), declined: true})
			default:
				continue
			}
			h.addr, h.given[ia.IaId] = a, true
		}
	}
}

func without(list []netip.Addr, a netip.Addr) (rest []netip.Addr) {
	for _, x := range list {
		if x != a {
			rest = append(rest, x)
		}
	}
	return rest
}
