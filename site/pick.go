package site

import (
	"net/netip"
	"slices"
)

// Reason says why a decision came out as it did. The same value stands in tests, metrics, logs and `everboot explain`.
type Reason string

// The reasons of Boot and Pick.
const (
	Offered            Reason = "offered"             // Boot: the whole chain is good
	Picked             Reason = "picked"              // Pick: a streamer was found
	NotABootClient     Reason = "not-a-boot-client"   // asks for an address only
	UnknownDevice      Reason = "unknown-device"      // the site has no device with this MAC
	NoVDisk            Reason = "no-vdisk"            // neither the device nor its collection names a vDisk
	UnknownVDisk       Reason = "unknown-vdisk"       // the vDisk named is not in the registry and no streamer announces it
	UnknownVersion     Reason = "unknown-version"     // the version named does not exist, or nobody knows its digest
	NoReplica          Reason = "no-replica"          // no streamer of the site announces the version
	DigestDiffers      Reason = "digest-differs"      // streamers hold the version, but none with its digest
	NoHealthyStreamer  Reason = "no-healthy-streamer" // streamers hold it, but none is up by our own probe
	NoneInSubnet       Reason = "none-in-subnet"      // affinity is fixed, and no streamer that could has a NIC in the target's subnet
	FixedServerDown    Reason = "fixed-server-down"   // load balancing is off, and the vDisk's one server cannot serve it now
	AllDraining        Reason = "all-draining"        // the streamers that hold it and are up take no new logins
	TFTPDown           Reason = "tftp-down"           // the TFTP probe of the boot address fails
	HTTPDown           Reason = "http-down"           // the HTTP probe of the boot address fails
	NoBootFile         Reason = "no-boot-file"        // the appliance does not have the boot file of the client's architecture
	UnsupportedArch    Reason = "unsupported-arch"    // no boot file for the client's architecture
	NoBootAddress      Reason = "no-boot-address"     // neither a VIP nor an address of the node is known
	OtherSite          Reason = "other-site"          // the target name belongs to another site
	NotItsVDisk        Reason = "not-its-vdisk"       // the device asks for a vDisk that is not its own
	NotAuthenticated   Reason = "not-authenticated"   // CHAP: the device did not prove who it is
	TooManyLogins      Reason = "too-many-logins"     // its turn did not come within the time that a login is held
	NotItsAddress      Reason = "not-its-address"     // the login comes from the address of another device
	NotALogin          Reason = "not-a-login"         // every streamer that was asked says that the initiator is wrong
	MalformedInitiator Reason = "malformed-initiator" // the InitiatorName does not name a device
	MalformedTarget    Reason = "malformed-target"    // the TargetName does not name a vDisk version
)

var reasonText = map[Reason]string{
	Offered:            "the whole chain is good",
	Picked:             "a streamer was found",
	NotABootClient:     "it asks for an address only, not for a boot file",
	UnknownDevice:      "the site has no device with this MAC; add it with `everboot device set` or a [[device]] in appliance.toml",
	NoVDisk:            "neither the device nor its collection names a vDisk",
	UnknownVDisk:       "its vDisk is not in the registry and no streamer announces it",
	UnknownVersion:     "the version that it should get does not exist or has no known digest",
	NoReplica:          "no streamer of the site holds its vDisk version",
	DigestDiffers:      "streamers hold its vDisk version, but none with the version's digest",
	NoHealthyStreamer:  "streamers hold its vDisk version, but none of them is up",
	NoneInSubnet:       "the affinity of its vDisk is fixed, and no streamer that could serve it has a NIC in its subnet",
	FixedServerDown:    "load balancing is off for its vDisk, and the one streamer that serves it cannot now: no failover",
	AllDraining:        "every healthy streamer that holds its vDisk version is draining",
	TFTPDown:           "TFTP at the boot address does not answer our probe",
	HTTPDown:           "HTTP at the boot address does not answer our probe",
	NoBootFile:         "the boot file of its architecture is neither in tftp.root nor in tftp.ipxe: put it there and start the appliance again",
	UnsupportedArch:    "there is no boot file for its architecture (DHCP option 93)",
	NoBootAddress:      "the appliance has no address to boot from",
	OtherSite:          "the target name belongs to another site",
	NotItsVDisk:        "it asks for a vDisk that is not its own",
	NotAuthenticated:   "it did not prove who it is (CHAP): its name or secret is not that of the file of director.chap",
	TooManyLogins:      "so many targets log in that its turn did not come; it will try again",
	NotItsAddress:      "it comes from an address that another device has",
	NotALogin:          "the streamers refuse the login as it is: the initiator's settings are wrong, or those of tgtd",
	MalformedInitiator: "its InitiatorName does not name a device of everboot",
	MalformedTarget:    "its TargetName does not name a vDisk version of everboot",
}

// Text returns the reason as a sentence without a full stop.
func (r Reason) Text() string { return reasonText[r] }

// Assignment is what a device is to boot.
type Assignment struct {
	Device  Device  `json:"device"`
	VDisk   VDisk   `json:"vdisk"`
	Version Version `json:"version"`
}

// Assign returns the vDisk version that a device gets at its next boot: its own wish before its collection's, the newest version
// with a digest unless one is named. The Reason is Offered on success.
func Assign(v *View, mac MAC) (Assignment, Reason) {
	d, ok := v.Devices[mac]
	if !ok {
		return Assignment{}, UnknownDevice
	}
	a := Assignment{Device: d}
	name, number := d.VDisk, d.Version
	if name == "" {
		c := v.Collections[d.Collection]
		name, number = c.VDisk, c.Version
	}
	if name == "" {
		return a, NoVDisk
	}
	if a.VDisk, ok = v.VDisks[name]; !ok {
		a.VDisk.Name = name
		return a, UnknownVDisk
	}
	for _, ver := range slices.Backward(a.VDisk.Versions) {
		if ver.Digest != "" && (number == 0 || ver.Number == number) {
			a.Version = ver
			return a, Offered
		}
	}
	return a, UnknownVersion
}

// Login is what the director asks of Pick.
type Login struct {
	MAC     MAC
	VDisk   string
	Version int
	// Digest may be a full digest or the short form of a target name. Only replicas with it are ever picked.
	Digest Digest
	// From is where the target is, for the affinity to its subnet; zero: not known, and affinity says nothing.
	From netip.Addr
	// Tried streamers have failed this login already.
	Tried []string
	// Extra sessions a streamer was given since it announced its count.
	Extra map[string]int
}

// Pick returns the streamer for a login: of the same site, up by our own probe, active, with a replica of that very
// digest, and of these the one with the least sessions per power. Ties go by rendezvous hash of device and streamer, so that
// equal streamers share targets evenly and a target finds the same one again. With affinity those with a NIC in the target's
// subnet come first, or alone. If load balancing is off there is only the vDisk's one server.
func Pick(v *View, l Login) (Streamer, Reason) {
	rules := v.VDisks[l.VDisk]
	if rules.Server != "" {
		return fixed(v, l, rules.Server)
	}
	best, reason := Streamer{}, NoReplica
	bestNear := false
	for _, s := range v.Streamers { // in any order: no two weigh the same
		r, near := eligible(v, s, l), false
		if r == Picked && rules.Affinity != NoAffinity && l.From.IsValid() {
			if near = s.near(l.From); !near && rules.Affinity == FixedAffinity {
				r = NoneInSubnet
			}
		}
		switch {
		case r != Picked:
			reason = nearer(reason, r)
		case reason != Picked || near && !bestNear || near == bestNear && lessBusy(s, best, l):
			best, reason, bestNear = s, Picked, near
		}
	}
	return best, reason
}

// fixed is Pick where load balancing is off.
func fixed(v *View, l Login, server string) (Streamer, Reason) {
	s, ok := v.Streamers[server]
	if !ok {
		return Streamer{}, FixedServerDown
	}
	switch r := eligible(v, s, l); r {
	case Picked:
		return s, Picked
	case NoHealthyStreamer, AllDraining:
		return Streamer{}, FixedServerDown
	default:
		return Streamer{}, r
	}
}

func eligible(v *View, s Streamer, l Login) Reason {
	holds := NoReplica
	for _, r := range s.Replicas {
		if r.VDisk != l.VDisk || r.Version != l.Version {
			continue
		}
		holds = DigestDiffers
		if l.Digest != "" && (r.Digest == l.Digest || r.Digest.Short() == string(l.Digest)) {
			holds = Picked
			break
		}
	}
	switch {
	case s.Site != v.Site:
		return NoReplica
	case holds != Picked:
		return holds
	case s.Check.Health != Up || len(s.Addresses) == 0 || slices.Contains(l.Tried, s.Name):
		return NoHealthyStreamer
	case s.State == Draining:
		return AllDraining
	}
	return Picked
}

// nearer returns the reason that came closer to success, which is the one that helps.
func nearer(a, b Reason) Reason {
	order := []Reason{NoReplica, DigestDiffers, NoHealthyStreamer, AllDraining, NoneInSubnet, Picked}
	if slices.Index(order, b) > slices.Index(order, a) {
		return b
	}
	return a
}

func lessBusy(a, b Streamer, l Login) bool {
	la, lb := a.load(l.Extra), b.load(l.Extra)
	if la != lb {
		return la < lb
	}
	return Rendezvous(l.MAC[:], []byte(a.Name)) > Rendezvous(l.MAC[:], []byte(b.Name))
}

// load is the count of sessions per power.
func (s Streamer) load(extra map[string]int) float64 {
	return float64(s.Sessions+extra[s.Name]) / s.weight()
}

// weight is its power; 1 where none is known.
func (s Streamer) weight() float64 {
	if s.Power <= 0 {
		return 1
	}
	return s.Power
}
