// Package ra answers router solicitations with an advertisement that offers no default route (RFC 4861 §6.2). A firmware that would wait for a
// router, as iPXE does for 13 s, then goes on at once. Where DHCPv6 serves the network, it says so, and which addresses are on this link;
// addresses that machines make up for themselves (RFC 4862) it does not offer. Where another router advertises it is silent.
package ra

import (
	"net/netip"
	"slices"
	"time"

	"github.com/mdlayher/ndp"
)

const (
	// listenFor is how long a router that is there has to show itself at the start, after a solicitation of ours: it answers within 0.5 s (RFC 4861
	// §6.2.6), or to the second one.
	listenFor   = 3 * time.Second
	solicitEach = time.Second
	// advertiseEach is the period of unsolicited advertisements (RFC 4861 §6.2.1: 600 s at most), for whoever missed an answer.
	advertiseEach = 300 * time.Second
	// gap is the least time between two advertisements to everybody (RFC 4861 §10, MIN_DELAY_BETWEEN_RAS).
	gap = 3 * time.Second
	// forget is how long a router counts after its last word, or as long as it says itself: three times the longest period that is allowed.
	forget = 30 * time.Minute
	// onLink is how long machines believe that a network is on this link: over several advertisements that are lost.
	onLink = time.Hour
)

var (
	allNodes   = netip.MustParseAddr("ff02::1")
	allRouters = netip.MustParseAddr("ff02::2")
)

// Send is a message to send.
type Send struct {
	To      netip.Addr
	Message ndp.Message
}

// Machine decides what to say. It knows neither a clock nor a socket, and is not safe for concurrent use.
type Machine struct {
	link      netip.Prefix // the network that DHCPv6 serves here; zero: none
	began     time.Time
	asked     time.Time // the last solicitation of ours
	said      time.Time // the last advertisement to everybody
	router    netip.Addr
	until     time.Time // until when router counts
	solicited bool      // by somebody whom only an advertisement to everybody reaches
}

// New returns the machine of an advertiser that starts now. link is the network that DHCPv6 serves here; zero: none.
func New(now time.Time, link netip.Prefix) *Machine { return &Machine{began: now, link: link} }

// Router returns the other router that advertises here, if there is one.
func (m *Machine) Router(now time.Time) (netip.Addr, bool) { return m.router, now.Before(m.until) }

// Tick moves the time on. Call it once a second or more often.
func (m *Machine) Tick(now time.Time) []Send {
	_, other := m.Router(now)
	switch {
	case other:
		return nil
	case now.Sub(m.began) < listenFor:
		if now.Sub(m.asked) < solicitEach {
			return nil
		}
		m.asked = now
		return []Send{{allRouters, &ndp.RouterSolicitation{}}}
	case now.Sub(m.said) >= advertiseEach, m.solicited && now.Sub(m.said) >= gap:
		return m.everybody(now)
	}
	return nil
}

func (m *Machine) everybody(now time.Time) []Send {
	m.said, m.solicited = now, false
	return []Send{{allNodes, m.advertisement()}}
}

// Heard takes a message in.
func (m *Machine) Heard(now time.Time, from netip.Addr, msg ndp.Message) []Send {
	switch msg := msg.(type) {
	case *ndp.RouterAdvertisement:
		if !m.isOurs(msg) && from.IsLinkLocalUnicast() {
			m.router, m.until = from, now.Add(max(forget, msg.RouterLifetime))
		}
	case *ndp.RouterSolicitation:
		if _, other := m.Router(now); other {
			return nil
		}
		if now.Sub(m.began) < listenFor || !from.IsLinkLocalUnicast() {
			m.solicited = true // the next Tick that may answers
			return nil
		}
		return []Send{{from, m.advertisement()}}
	}
	return nil
}

// advertisement is what we say.
func (m *Machine) advertisement() *ndp.RouterAdvertisement {
	if !m.link.IsValid() {
		return &ndp.RouterAdvertisement{}
	}
	return &ndp.RouterAdvertisement{
		ManagedConfiguration: true, OtherConfiguration: true,
		Options: []ndp.Option{&ndp.PrefixInformation{
			PrefixLength: uint8(m.link.Bits()), OnLink: true, ValidLifetime: onLink, PreferredLifetime: onLink, Prefix: m.link.Addr(),
		}},
	}
}

// isOurs reports whether an advertisement offers no more than ours, as those of the other appliances: then it is no router's. One that withdraws
// (lifetime 0) still has its prefixes in it, for machines to make addresses of.
func (m *Machine) isOurs(a *ndp.RouterAdvertisement) bool {
	managed := a.ManagedConfiguration || a.OtherConfiguration
	return a.RouterLifetime == 0 && (!managed || m.link.IsValid()) && !slices.ContainsFunc(a.Options, func(o ndp.Option) bool {
		p, ok := o.(*ndp.PrefixInformation)
		return ok && (p.AutonomousAddressConfiguration || netip.PrefixFrom(p.Prefix, int(p.PrefixLength)) != m.link)
	})
}
