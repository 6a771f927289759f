package dhcp

import (
	"net/netip"
	"slices"
	"time"

	"everboot/dhcp/leases"
	"everboot/site"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// Who of several nodes that are one service answers what. Each message but a renewal reaches all of them. Whatever goes wrong
// here, a client gets two answers or waits for its next try: that no address is given twice does not depend on it.

const (
	// neglectedAfter: a client whose DISCOVER comes again after so long was not answered by its own node, whatever the reason: an empty
	// part of a pool, for one. patience is the same by the client's own word (secs; the delayed service of RFC 3074 §5.3).
	neglectedAfter = 2 * time.Second
	patience       = 6
	// askedFor: what was asked longer ago is another boot.
	askedFor = time.Minute
)

// isUs reports whether a server identifier is ours: the common one, or this node's own.
func (h *exchange) isUs(server netip.Addr) bool {
	if server == h.cfg.serverID() || server == h.cfg.ServerAddress || h.r.override.IsValid() && server == h.r.override {
		return true
	}
	// Before they were one service, peers answered under their own addresses.
	return h.pair != nil && h.pair.Away() && slices.Contains(h.cfg.Peers, server)
}

// first reports whether the client is first ours to answer.
func (h *exchange) first() bool { return h.pair == nil || h.alone || h.pair.First(h.r.client) }

// neglected reports whether a client, which is first another node's, asked before and got no answer that it liked.
func (h *exchange) neglected() bool {
	return h.asked.again(h.now, h.r) || h.r.msg.NumSeconds >= patience
}

// forget takes back what we offered to a client that took another offer.
func (h *exchange) forget() {
	h.table.Forget(h.now, h.r.client, h.sub.Network)
	h.table.Forget(h.now, leases.ClientOf(nil, h.r.mac), h.sub.Network)
}

// whoseOffer returns why a REQUEST that answers an offer is not ours to answer, or nothing if it is.
func (h *exchange) whoseOffer() Reason {
	if h.pair == nil || h.table.Promised(h.now, h.addr, h.holder(h.addr, h.r)) || h.answerable() {
		return ""
	}
	h.forget()
	if !h.pair.Away() {
		return OtherNode
	}
	// The offer is of a node that we do not hear: it lives, or died a moment ago. It answers the first time; if it does not, the client is told
	// to start again, with us.
	h.pair.Overheard(h.now)
	if h.asked.again(h.now, h.r) {
		return h.nak(OfferLost)
	}
	return OtherNode
}

// answerable reports whether a claim to h.addr that all nodes hear is ours to answer, by what is known of the address: a client's own
// address is for its first node to confirm, any other for its owner to grant or refuse.
func (h *exchange) answerable() bool {
	if h.pair == nil || h.alone {
		return true
	}
	l, known := h.table.At(h.now, h.addr)
	mine, reserved := h.reservation(h.r, h.sub)
	if known && l.State == leases.Bound && l.Client == h.holder(h.addr, h.r) || reserved && mine == h.addr {
		return h.first()
	}
	if h.pair.Behind() && h.sub.inRange(h.addr) && !(known && l.Client == h.r.client) {
		return false // a peer may have given it
	}
	return h.pair.Owns(h.addr)
}

// adoptable reports whether a client that uses an address, of which we have no record, may go on. Its owner says so; if a node is
// out of contact the owner's record may be lost with it, and the client must not lose the address that its disk hangs on. The
// owner, should it live, does not give the address away while we are out of contact.
func (h *exchange) adoptable() bool {
	if h.free(h.now, h.addr, h.r, h.sub) {
		return true
	}
	if h.pair == nil || !h.pair.Away() || h.pair.Yields() || !h.sub.inRange(h.addr) || h.avoid(h.r.device)(h.addr) {
		return false
	}
	l, known := h.table.At(h.now, h.addr)
	return !known || !l.Live() && h.pair.Behind() || h.table.Available(h.now, h.addr, h.r.client)
}

// asked remembers who was left to another node, and when first: a time since the epoch, which is small and nothing for the garbage collector to
// look at. It is bounded: of a flood, the oldest are forgotten.
type asked struct {
	epoch      time.Time
	young, old map[askedKey]time.Duration
}

// askedKey is one question: who repeats it keeps the transaction.
type askedKey struct {
	mac      site.MAC
	xid      dhcpv4.TransactionID
	discover bool
}

func keyOf(r request) askedKey {
	return askedKey{r.mac, r.msg.TransactionID, r.kind == dhcpv4.MessageTypeDiscover}
}

func newAsked() *asked {
	return &asked{young: make(map[askedKey]time.Duration), old: make(map[askedKey]time.Duration)}
}

// since returns a time as it is kept.
func (a *asked) since(at time.Time) time.Duration {
	if a.epoch.IsZero() {
		a.epoch = at
	}
	return at.Sub(a.epoch)
}

// again notes a question and reports whether it came before, neglectedAfter ago or more.
func (a *asked) again(now time.Time, r request) bool {
	k := keyOf(r)
	at, ok := a.young[k]
	if !ok {
		at, ok = a.old[k]
	}
	if ok && a.since(now)-at < askedFor {
		return a.since(now)-at >= neglectedAfter
	}
	if len(a.young) >= maxRecent {
		a.old, a.young = a.young, a.old
		clear(a.young)
	}
	a.young[k] = a.since(now)
	return false
}
