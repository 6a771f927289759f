package vip

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"time"

	"everboot/vip/vrrp"
)

// Times of an active router. docs/adr/0001-address-lifetime.md has the measurements.
const (
	// addressLifetime is how long the kernel keeps an address that nobody renews. Linux counts it in seconds and was seen
	// to remove the address at most 0.26 s late. Two renewals may fail.
	addressLifetime = 3 * time.Second
	renewInterval   = time.Second

	// Some switches and hosts heed only the second announcement or drop a first one that meets a full queue: five in 4.4 s.
	announcements    = 5
	announceInterval = 1100 * time.Millisecond
	// announceGap bounds what a second active router, heard again and again, can make us send.
	announceGap = 100 * time.Millisecond
	// handOverGap is when a router that was handed the addresses announces them once more: the old owner has let go by then, but
	// may have answered one who asked for them in between.
	handOverGap = 50 * time.Millisecond
	// refreshInterval is how often an owner announces while nothing happens: switches forget a station that they do not hear, after 300 s
	// mostly (IEEE 802.1Q §8.8.3), and a neighbour that was away for all of the burst hears it then. Several may be lost.
	refreshInterval = time.Minute
)

// arrival is a packet as it came in.
type arrival struct {
	packet vrrp.Packet
	reason vrrp.Reason
}

// burst is the plan of the next announcements, and of those that come now and again.
type burst struct {
	left int
	next time.Time
	last time.Time
	// soon says that the second one comes soon after the first.
	soon bool
}

func (b *burst) begin(now time.Time) {
	b.left, b.next, b.soon = announcements, now, false
	if soonest := b.last.Add(announceGap); soonest.After(now) {
		b.next = soonest
	}
}

// sent plans what follows an announcement: the rest of the burst, then one now and again for as long as the router is active.
func (b *burst) sent(now time.Time) {
	b.last = now
	if b.soon {
		b.soon, b.next = false, now.Add(handOverGap)
		return
	}
	b.left = max(b.left-1, 0)
	b.later(now)
}

// later plans the next announcement as if there had been one now.
func (b *burst) later(now time.Time) {
	b.next = now.Add(refreshInterval)
	if b.left > 0 {
		b.next = now.Add(announceInterval)
	}
}

// receive is the goroutine that waits for packets. It ends when the edge is closed.
func (r *Router) receive(failed chan<- error, done chan<- struct{}) {
	defer close(done)
	for {
		p, reason, err := r.edge.Receive()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			failed <- err
			return
		}
		r.arrivals <- arrival{packet: p, reason: reason}
	}
}

// drain takes the last packets off a receiver that is about to see that the edge is closed.
func (r *Router) drain(done <-chan struct{}) {
	for {
		select {
		case <-r.arrivals:
		case <-done:
			return
		}
	}
}

// nextChore returns when chores has something to do.
func (r *Router) nextChore() time.Time {
	next := time.Now().Add(time.Hour)
	for _, t := range []time.Time{r.machine.Deadline(), r.renewAt, r.announce.next, r.tickleAt, r.probeAt, r.beatAt.Add(r.cfg.Patience / beats)} {
		if !t.IsZero() && t.Before(next) {
			next = t
		}
	}
	return next
}

// noticeSleep finds out whether the router did not run for a while: then the guard may have taken the addresses away, and others may
// own them. It comes before anything else: whoever has slept must not act on what was true before.
func (r *Router) noticeSleep() {
	now := time.Now()
	if now.Sub(r.cameRound) > r.cfg.Patience*3/4 {
		r.log.Warn("the router did not run", "for", now.Sub(r.cameRound))
		r.step(vrrp.Slept{})
	}
	r.cameRound = now
}

// beat shows the guard that the router is at work.
func (r *Router) beat() {
	now := time.Now()
	if now.Sub(r.beatAt) < r.cfg.Patience/beats {
		return
	}
	r.beatAt = now
	if r.cfg.Beat != nil {
		r.cfg.Beat()
	}
}

// chores does what is due. The election comes first: a router that was frozen must find out that it is not active any more
// before it would renew or announce an address.
func (r *Router) chores() {
	if r.due(r.machine.Deadline()) {
		r.lastLook()
		if r.due(r.machine.Deadline()) {
			r.step(vrrp.Tick{})
		}
	}
	if r.due(r.renewAt) {
		r.renewAt = time.Now().Add(renewInterval)
		if err := r.edge.Hold(addressLifetime); err != nil {
			r.log.Error("renewing the addresses", "error", err)
			r.step(vrrp.ClaimFailed{})
		}
	}
	if r.due(r.announce.next) {
		r.sendAnnouncement()
	}
	if r.due(r.probeAt) {
		r.probe()
	}
	r.endProbing()
	if r.due(r.tickleAt) { // the first may be lost; clients answer only one in half a second (tcp_invalid_ratelimit)
		r.tickleAt = time.Time{}
		r.tickle(true)
	}
}

func (r *Router) due(t time.Time) bool { return !t.IsZero() && !t.After(time.Now()) }

// lastLook hears what has arrived but was not waited for yet: an advertisement that lies in the queue of a busy host must
// count before silence does.
func (r *Router) lastLook() {
	for {
		select {
		case a := <-r.arrivals:
			r.arrived(a)
			continue
		default:
		}
		p, reason, ok := r.edge.Poll()
		if !ok {
			return
		}
		r.arrived(arrival{packet: p, reason: reason})
	}
}

func (r *Router) arrived(a arrival) {
	reason := a.reason
	var adv vrrp.Advertisement
	if reason == vrrp.Accepted && r.edge.auth != nil && a.packet.TTL == vrrp.TTL {
		a.packet, reason = r.unseal(a.packet)
	}
	if reason == vrrp.Accepted {
		adv, reason = r.vrrp.Accept(a.packet)
	}
	if reason != vrrp.Accepted {
		r.board.change(func(s *Status) {
			s.Dropped[reason]++
			if reason == vrrp.BadTTL {
				s.Odd[ForeignTTL]++
			}
		})
		return
	}
	odd := r.oddities(adv)
	r.board.change(func(s *Status) {
		s.Accepted++
		for _, o := range odd {
			s.Odd[o]++
		}
	})
	for _, o := range odd {
		if !r.told[o] {
			r.told[o] = true
			r.log.Warn("odd advertisement", "odd", o, "from", a.packet.Source, "priority", adv.Priority, "interval", adv.Interval, "addresses", adv.Addresses)
		}
	}
	r.step(vrrp.Received{From: a.packet.Source, Advertisement: adv})
}

func (r *Router) oddities(a vrrp.Advertisement) []Oddity {
	var odd []Oddity
	ours, theirs := slices.Clone(r.vrrp.Addresses), slices.Clone(a.Addresses)
	slices.SortFunc(ours, netip.Addr.Compare)
	slices.SortFunc(theirs, netip.Addr.Compare)
	if !slices.Equal(ours, theirs) {
		odd = append(odd, OtherAddresses)
	}
	if a.Interval != r.vrrp.Interval {
		odd = append(odd, OtherInterval)
	}
	if r.machine.State() == vrrp.Active && a.Priority > 0 {
		odd = append(odd, SecondActive)
	}
	return odd
}

// step gives an event to the machine and does what it wants, in its order.
func (r *Router) step(e vrrp.Event) {
	actions := r.machine.Step(time.Now(), e)
	for _, action := range actions {
		switch a := action.(type) {
		case vrrp.Hold:
			if err := r.edge.Hold(addressLifetime); err != nil {
				r.log.Error("adding the addresses", "error", err)
				r.step(vrrp.ClaimFailed{}) // instead of the rest
				return
			}
			r.renewAt = time.Now().Add(renewInterval)
		case vrrp.Drop:
			r.renewAt, r.announce, r.tickleAt = time.Time{}, burst{}, time.Time{}
			if _, err := r.edge.Drop(); err != nil {
				r.log.Error("removing the addresses; the kernel will when they are not renewed", "lifetime", addressLifetime, "error", err)
			}
		case vrrp.Advertise:
			r.advertise(a)
		case vrrp.Announce:
			r.announce.begin(time.Now())
			r.announce.soon = handedOver(actions)
			if r.due(r.announce.next) {
				r.sendAnnouncement()
			}
			if claims(actions) {
				r.tickle(false)
				r.tickleAt = time.Now().Add(announceInterval)
			}
		case vrrp.Probe:
			r.ask(a)
		case vrrp.Transition:
			r.tell(a)
		}
	}
	owner := r.machine.Owner()
	r.board.change(func(s *Status) { s.Owner = owner })
}

// claims reports whether the actions are those of a router that becomes active.
func claims(actions []vrrp.Action) bool {
	return slices.ContainsFunc(actions, func(a vrrp.Action) bool { return a == vrrp.Hold{} })
}

// handedOver reports whether the actions are those of a claim after another router resigned.
func handedOver(actions []vrrp.Action) bool {
	return slices.ContainsFunc(actions, func(a vrrp.Action) bool {
		t, ok := a.(vrrp.Transition)
		return ok && t.Cause == vrrp.Resigned
	})
}

func (r *Router) advertise(a vrrp.Advertise) {
	// Who is not the owner any more must not send from the virtual MAC address: switches would believe that it is here.
	out := sender(r.edge.wire)
	if r.edge.owners != nil && r.machine.State() == vrrp.Active {
		out = r.edge.owners
	}
	err := send(r.edge, out, r.cfg, r.machine.Advertisement(a))
	switch {
	case err == nil:
		r.board.change(func(s *Status) { s.Sent++ })
	case !r.mute:
		r.log.Warn("sending an advertisement", "error", err)
	}
	r.mute = err != nil
}

// send sends an advertisement to everybody whom it concerns.
func send(e edge, out sender, cfg Config, a vrrp.Advertisement) error {
	var errs []error
	for _, to := range cfg.destinations() {
		message, err := a.Marshal(e.primary, to)
		if err == nil && e.auth != nil {
			message = e.auth.Seal(e.counter.Next(time.Now()), e.primary, to, message)
		}
		if err == nil {
			err = out.Send(message, e.primary, to)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (r *Router) sendAnnouncement() {
	now := time.Now()
	if r.machine.Leaving() { // it would draw back what the next owner has drawn
		r.announce.later(now)
		return
	}
	r.announce.sent(now)
	if err := r.edge.Announce(); err != nil {
		r.log.Warn("announcing the addresses", "error", err)
	}
}

// tell makes a transition known.
func (r *Router) tell(t vrrp.Transition) {
	now := time.Now()
	last := Transition{At: now, Transition: t}
	clear(r.told)
	r.active.Store(t.To == vrrp.Active)
	r.board.change(func(s *Status) {
		s.State, s.Since, s.Last = t.To, now, last
		s.Transitions[t.Cause]++
	})
	r.log.Info("vip", "state", t.To, "was", t.From, "cause", t.Cause.Text(), "addresses", r.vrrp.Addresses, "owner", r.machine.Owner())
	for {
		select {
		case r.changes <- last:
			return
		default:
		}
		select {
		case <-r.changes: // the oldest
		default:
		}
	}
}
