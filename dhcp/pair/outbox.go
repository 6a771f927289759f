package pair

import (
	"net/netip"
	"slices"
	"time"
)

// item is an address whose record must be told.
type item struct {
	since time.Time // of the oldest untold change
	bulk  bool      // part of a comparison
}

// packet is an update that is under way.
type packet struct {
	addrs []netip.Addr
	items []item
	sent  time.Time
	need  []netip.Addr // who has not confirmed it
}

// outbox holds what the peers have not confirmed: addresses, not records, so that each goes out as it is when it is sent, and one that
// changes twice is told once.
type outbox struct {
	seq     uint32
	order   []netip.Addr // of dirty, the oldest first
	dirty   map[netip.Addr]item
	pending map[uint32]*packet
	bulk    int // items of a comparison, in dirty and pending
}

func newOutbox() outbox {
	return outbox{dirty: make(map[netip.Addr]item), pending: make(map[uint32]*packet)}
}

func (o *outbox) add(a netip.Addr, it item) {
	if o.put(a, it) {
		o.order = append(o.order, a)
	}
}

// put notes an item and reports whether the address needs a place in the order.
func (o *outbox) put(a netip.Addr, it item) bool {
	old, ok := o.dirty[a]
	if it.bulk && !(ok && old.bulk) {
		o.bulk++
	}
	if ok {
		it.bulk = it.bulk || old.bulk
		if it.since.IsZero() || !old.since.IsZero() && old.since.Before(it.since) {
			it.since = old.since
		}
	}
	o.dirty[a] = it
	return !ok
}

func (o *outbox) comparing() bool { return o.bulk > 0 }

func (o *outbox) waits() bool { return len(o.order) > 0 && len(o.pending) < window }

// fill adds as many records to an update as fit, and counts it as sent.
func (o *outbox) fill(b []byte, now time.Time, need []netip.Addr, record func([]byte, netip.Addr) []byte) []byte {
	o.seq++
	p := &packet{sent: now, need: slices.Clone(need)}
	for len(o.order) > 0 {
		a := o.order[0]
		next := record(b, a)
		if len(next) > maxMessage && len(p.addrs) > 0 {
			break
		}
		b = next
		p.addrs, p.items = append(p.addrs, a), append(p.items, o.dirty[a])
		delete(o.dirty, a)
		o.order = o.order[1:]
	}
	o.pending[o.seq] = p
	return b
}

// confirm notes that a peer has an update.
func (o *outbox) confirm(seq uint32, by netip.Addr) {
	p, ok := o.pending[seq]
	if !ok {
		return
	}
	p.need = slices.DeleteFunc(p.need, func(a netip.Addr) bool { return a == by })
	if len(p.need) > 0 {
		return
	}
	for _, it := range p.items {
		if it.bulk {
			o.bulk--
		}
	}
	delete(o.pending, seq)
}

// resend queues again what was not confirmed in time, before everything else.
func (o *outbox) resend(now time.Time) {
	for seq, p := range o.pending {
		if now.Sub(p.sent) < resendAfter {
			continue
		}
		delete(o.pending, seq)
		var again []netip.Addr
		for i, a := range p.addrs {
			if p.items[i].bulk {
				o.bulk-- // put counts it again
			}
			if o.put(a, p.items[i]) {
				again = append(again, a)
			}
		}
		o.order = append(again, o.order...)
	}
}

// lost forgets a peer that went out of contact: when it comes back everything is compared. With nobody left there is nobody to tell.
func (o *outbox) lost(peer netip.Addr, others bool) {
	if !others {
		seq := o.seq
		*o = newOutbox()
		o.seq = seq
		return
	}
	for seq := range o.pending {
		o.confirm(seq, peer)
	}
}

// oldest returns since when a change is unconfirmed, if there is one.
func (o *outbox) oldest() (oldest time.Time, any bool) {
	look := func(it item) {
		if !it.since.IsZero() && (!any || it.since.Before(oldest)) {
			oldest, any = it.since, true
		}
	}
	for _, it := range o.dirty {
		look(it)
	}
	for _, p := range o.pending {
		for _, it := range p.items {
			look(it)
		}
	}
	return oldest, any
}
