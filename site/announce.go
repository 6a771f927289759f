package site

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"regexp"
)

// Refusal names why an announcement of a streamer is not taken: the same word in the answer, the log and the metric.
type Refusal string

// The refusals of CheckStreamer.
const (
	BadName    Refusal = "bad-name"
	WrongSite  Refusal = "wrong-site"
	BadAddress Refusal = "bad-address"
	BadPower   Refusal = "bad-power"
	BadState   Refusal = "bad-state"
	BadReplica Refusal = "bad-replica"
	BadCount   Refusal = "bad-count" // of sessions, addresses or replicas
)

// AnnouncementError says what is wrong with an announcement.
type AnnouncementError struct {
	Refusal Refusal
	Err     error
}

// Error returns the reason for a person.
func (e *AnnouncementError) Error() string { return e.Err.Error() }

// Unwrap returns the reason.
func (e *AnnouncementError) Unwrap() error { return e.Err }

// Bounds of an announcement.
const (
	maxAddresses = 32
	// MaxReplicas of one streamer: with the longest names 2,000 replicas are 400 kB of JSON; a value in Consul has 512 KiB.
	MaxReplicas = 2000
	maxSessions = 1_000_000
	maxPower    = 1000 // Citrix Provisioning knows 0.1 to 1000
)

// CheckStreamer returns an *AnnouncementError that says what is wrong with what a streamer announces to the site, or nil.
// Registered and Check are not its to say and are not looked at.
func CheckStreamer(s Streamer, siteName string) error {
	refuse := func(r Refusal, format string, args ...any) error {
		return &AnnouncementError{Refusal: r, Err: fmt.Errorf(format, args...)}
	}
	if err := CheckName("streamer", s.Name); err != nil {
		return refuse(BadName, "%w", err)
	}
	if s.Site != siteName {
		return refuse(WrongSite, "streamer %s is of site %q, this is site %q: mend site in its configuration, or the addresses that it announces to",
			s.Name, s.Site, siteName)
	}
	if n := len(s.Addresses); n < 1 || n > maxAddresses {
		return refuse(BadCount, "streamer %s: %d addresses: give 1 to %d", s.Name, n, maxAddresses)
	}
	for _, a := range s.Addresses {
		if err := checkPortal(a); err != nil {
			return refuse(BadAddress, "streamer %s: %w", s.Name, err)
		}
	}
	if n := len(s.Networks); n != 0 && n != len(s.Addresses) {
		return refuse(BadAddress, "streamer %s: %d networks for %d addresses: give one for each, or none", s.Name, n, len(s.Addresses))
	}
	if err := checkVRIDs(s); err != nil {
		return refuse(BadAddress, "streamer %s: %w", s.Name, err)
	}
	if !(s.Power > 0 && s.Power <= maxPower) { // written so that NaN is refused
		return refuse(BadPower, "streamer %s: power %v: use more than 0 and at most %d, 1 is usual", s.Name, s.Power, maxPower)
	}
	if s.State != Active && s.State != Draining {
		return refuse(BadState, "streamer %s: state %q is neither %s nor %s", s.Name, s.State, Active, Draining)
	}
	if s.Sessions < 0 || s.Sessions > maxSessions {
		return refuse(BadCount, "streamer %s: %d sessions: use 0 to %d", s.Name, s.Sessions, maxSessions)
	}
	if len(s.Replicas) > MaxReplicas {
		return refuse(BadCount, "streamer %s: %d replicas: announce at most %d", s.Name, len(s.Replicas), MaxReplicas)
	}
	if err := checkReplicas(s.Replicas); err != nil {
		return refuse(BadReplica, "streamer %s: %w", s.Name, err)
	}
	return nil
}

// checkVRIDs returns an error unless there is none, or one for each IPv4 address.
func checkVRIDs(s Streamer) error {
	if n := len(s.VRIDs); n != 0 && n != len(s.Addresses) {
		return fmt.Errorf("%d virtual router ids for %d addresses: give one for each, or none", n, len(s.Addresses))
	}
	for i, id := range s.VRIDs {
		if id < 1 || id > 255 || !s.Addresses[i].Addr().Is4() {
			return fmt.Errorf("virtual router id %d of %s: use 1 to 255, and IPv4", id, s.Addresses[i].Addr())
		}
	}
	return nil
}

// checkPortal returns an error unless a is an address that a target can reach by itself.
func checkPortal(a netip.AddrPort) error {
	ip := a.Addr()
	if !ip.IsValid() || ip.IsUnspecified() || ip.IsMulticast() || ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}) ||
		ip.Is4In6() || ip.Zone() != "" || a.Port() == 0 {
		return fmt.Errorf("address %s: use the address and port of one iSCSI portal, such as 198.18.0.21:3260", a)
	}
	return nil
}

// foreignName is what an iSCSI target may be called (RFC 7143 §4.2.7): ours, and those of others, as they are after RFC 3722.
var foreignName = regexp.MustCompile(`^(iqn\.|eui\.|naa\.)[a-z0-9.:-]{1,219}$`)

// checkReplicas returns an error if a replica cannot be, or if a version is there twice.
func checkReplicas(replicas []Replica) error {
	type version struct {
		vdisk  string
		number int
	}
	seen := make(map[version]bool, len(replicas))
	for _, r := range replicas {
		if err := CheckName("vDisk", r.VDisk); err != nil {
			return fmt.Errorf("replica: %w", err)
		}
		if r.Version < 1 {
			return fmt.Errorf("replica of %s: version %d: versions count from 1", r.VDisk, r.Version)
		}
		if d, err := ParseDigest(string(r.Digest)); err != nil || d != r.Digest {
			return fmt.Errorf("replica of %s version %d: digest %q: use 64 hexadecimal digits in lower case", r.VDisk, r.Version, r.Digest)
		}
		if r.Target != "" && !foreignName.MatchString(r.Target) {
			return fmt.Errorf("replica of %s version %d: target %q: use the iSCSI name of a target, such as iqn.2001-04.com.example:debian", r.VDisk, r.Version, r.Target)
		}
		if r.Size < 0 {
			return fmt.Errorf("replica of %s version %d: size %d is negative", r.VDisk, r.Version, r.Size)
		}
		v := version{r.VDisk, r.Version}
		if seen[v] {
			return fmt.Errorf("replica of %s version %d is there twice", r.VDisk, r.Version)
		}
		seen[v] = true
	}
	return nil
}

// Effective returns the state that counts when a streamer announces one and the operator wants another: draining if either
// says so. A streamer that stops drains by itself, whatever the operator wants; one that was told to resume takes logins
// again when it says so.
func Effective(announced, wanted StreamerState) StreamerState {
	if announced == Draining || wanted == Draining {
		return Draining
	}
	return Active
}

// AddObject checks an object of a registry and adds it to the content; KindStreamerState is only checked. What it returns
// says what is wrong with the object, and the content is as it was.
func (c *Content) AddObject(kind Kind, key string, value []byte) error {
	if err := CheckObject(kind, key, value); err != nil {
		return err
	}
	var err error
	switch kind {
	case KindDevice:
		var d Device
		if err = json.Unmarshal(value, &d); err == nil {
			c.Devices = append(c.Devices, d)
		}
	case KindCollection:
		var k Collection
		if err = json.Unmarshal(value, &k); err == nil {
			if k.Name != key {
				return fmt.Errorf("collection %q: its key is %q; use the name", k.Name, key)
			}
			c.Collections = append(c.Collections, k)
		}
	case KindVDisk:
		var v VDisk
		if err = json.Unmarshal(value, &v); err == nil {
			if v.Name != key {
				return fmt.Errorf("vDisk %q: its key is %q; use the name", v.Name, key)
			}
			c.VDisks = append(c.VDisks, v)
		}
	}
	return err
}
