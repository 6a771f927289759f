package vrrp

import "time"

// A router that claims because it has never heard another one may be wrong: advertisements are filtered on the way, or are not
// understood, or the address is some other host's. So it asks for the addresses when it starts (RFC 5227 §2.1.1). The answer has the
// whole Active_Down_Interval to come in, for which it listens anyway: nothing is delayed. It never asks before it takes over from a
// router that it has heard: that one's silence is all there is to know, and its frozen host may still answer.

// Probing reports whether AddressesInUse counts: the router has neither heard another one since its start nor been active.
func (m *Machine) Probing() bool { return m.state == Backup && m.alone }

// putOff puts a claim off while somebody has the addresses: it asks once more and listens for as long again.
func (m *Machine) putOff(now time.Time) []Action {
	m.inUse, m.armed = false, now
	m.arm()
	return []Action{Probe{PutOff: true}}
}
