// Package site is the vocabulary of a site and its pure decisions: which vDisk version a target gets, which streamer
// serves it, and what it is offered at boot. It does no I/O and reads no clock.
//
// The heart is View, one immutable value. One goroutine builds it (Merge); everybody reads it.
package site

import (
	"cmp"
	"net/netip"
	"slices"
	"time"
)

// Health is what our own probes say of something.
type Health string

// The states of Health. Unknown, the zero value, is never served from.
const (
	Unknown Health = ""
	Up      Health = "up"
	Down    Health = "down"
)

// Check is the result of a probe.
type Check struct {
	Health Health    `json:"health"`
	Reason string    `json:"reason,omitempty"` // why it is not up, one line
	Since  time.Time `json:"since,omitzero"`   // when Health last changed
}

// Device is a target that the site knows.
type Device struct {
	MAC        MAC        `json:"mac"`
	Name       string     `json:"name"`
	Address    netip.Addr `json:"address,omitzero"`     // its reservation; zero: from the subnet's pool
	Address6   netip.Addr `json:"address6,omitzero"`    // the same, of DHCPv6
	ClientID   ClientID   `json:"client_id,omitempty"`  // whoever sends it has the reservation, too, whatever its MAC
	Collection string     `json:"collection,omitempty"` // whose settings it takes where it has none
	VDisk      string     `json:"vdisk,omitempty"`
	Version    int        `json:"version,omitempty"` // 0: the newest version
	Medium     Medium     `json:"medium,omitzero"`
}

// Collection is a named group of targets with common settings.
type Collection struct {
	Name    string `json:"name"`
	VDisk   string `json:"vdisk,omitempty"`
	Version int    `json:"version,omitempty"`
	// AutoAdd takes machines that nobody knows in, when they ask where to boot from.
	AutoAdd bool   `json:"auto_add,omitempty"`
	Medium  Medium `json:"medium,omitzero"`
}

// VDisk is a disk image in its versions.
type VDisk struct {
	Name string `json:"name"`
	// Kernel and Initrd are paths below the HTTP boot root. When they are empty the target boots the boot loader that is on the vDisk.
	Kernel   string    `json:"kernel,omitempty"`
	Initrd   string    `json:"initrd,omitempty"`
	Cmdline  string    `json:"cmdline,omitempty"`
	Versions []Version `json:"versions,omitempty"` // by rising number
	// Affinity says whether targets prefer streamers that have a NIC in their own subnet.
	Affinity Affinity `json:"affinity,omitempty"`
	// Server, if set, is the one streamer that serves this vDisk: no load balancing, and no failover.
	Server string `json:"server,omitempty"`
}

// Affinity is what a target's subnet means for the choice of a streamer.
type Affinity string

// The affinities.
const (
	NoAffinity    Affinity = ""            // any streamer
	BestEffort    Affinity = "best-effort" // one with a NIC in the target's subnet, if there is one
	FixedAffinity Affinity = "fixed"       // only such a one
)

// Version is an immutable numbered state of a vDisk.
type Version struct {
	Number int    `json:"number"`
	Digest Digest `json:"digest,omitempty"`
	// Adopted says that nobody pinned the digest: it was taken from the first replicas seen, and is kept.
	Adopted bool `json:"adopted,omitempty"`
}

// Replica is a copy of a version on one streamer.
type Replica struct {
	VDisk   string `json:"vdisk"`
	Version int    `json:"version"`
	Digest  Digest `json:"digest"`
	Size    int64  `json:"size"` // bytes
	// Target is the IQN under which a foreign iSCSI target serves it; empty: our own name for it.
	Target string `json:"target,omitempty"`
}

// IQN returns the name to log in to a replica under.
func (r Replica) IQN(siteName string) string {
	if r.Target != "" {
		return r.Target
	}
	return NameTarget(siteName, r.VDisk, r.Version, r.Digest).IQN()
}

// StreamerState is what the operator wants of a streamer.
type StreamerState string

// The states of a streamer. Active is the default.
const (
	Active   StreamerState = "active"
	Draining StreamerState = "draining" // takes no new logins
)

// Streamer is a node that serves vDisks over iSCSI.
type Streamer struct {
	Name      string           `json:"name"`
	Site      string           `json:"site"`
	Addresses []netip.AddrPort `json:"addresses"` // iSCSI portals, one a NIC
	// Networks are the subnets of Addresses, one for each; the zero prefix, or none at all, where the streamer does not know.
	Networks []netip.Prefix `json:"networks,omitempty"`
	// VRIDs are the virtual router ids of Addresses, one for each, if they float: when the streamer falls silent an appliance takes them. None: they do not.
	VRIDs    []int         `json:"vrids,omitempty"`
	Power    float64       `json:"power"` // relative; 1.0 is usual
	State    StreamerState `json:"state"`
	Replicas []Replica     `json:"replicas"`
	Sessions int           `json:"sessions"` // as it last announced
	// Registered is false when the registry no longer names it, but our own probe says that it is up.
	Registered bool  `json:"registered"`
	Check      Check `json:"check"` // our own probe
}

// Portals returns its addresses that are in the subnet of a target, and the others.
func (s Streamer) Portals(from netip.Addr) (near, far []netip.AddrPort) {
	for i, a := range s.Addresses {
		if i < len(s.Networks) && s.Networks[i].Contains(from) {
			near = append(near, a)
		} else {
			far = append(far, a)
		}
	}
	return near, far
}

func (s Streamer) near(from netip.Addr) bool {
	for i, n := range s.Networks {
		if i < len(s.Addresses) && n.Contains(from) {
			return true
		}
	}
	return false
}

// Holds returns its replica of a version with that digest.
func (s Streamer) Holds(vdisk string, version int, digest Digest) (Replica, bool) {
	i := slices.IndexFunc(s.Replicas, func(r Replica) bool {
		return r.VDisk == vdisk && r.Version == version && r.Digest == digest && digest != ""
	})
	if i < 0 {
		return Replica{}, false
	}
	return s.Replicas[i], true
}

// Has reports whether it holds what a login asks for.
func (s Streamer) Has(l Login) bool {
	_, ok := s.Replica(l)
	return ok
}

// Replica returns what it holds for a login.
func (s Streamer) Replica(l Login) (Replica, bool) {
	i := slices.IndexFunc(s.Replicas, func(r Replica) bool {
		return r.VDisk == l.VDisk && r.Version == l.Version && l.Digest != "" && (r.Digest == l.Digest || r.Digest.Short() == string(l.Digest))
	})
	if i < 0 {
		return Replica{}, false
	}
	return s.Replicas[i], true
}

// Appliance is a node that runs DHCP, TFTP, HTTP boot, the VIP and the director.
type Appliance struct {
	Name    string     `json:"name,omitempty"`
	Address netip.Addr `json:"address"`
}

// Registry says where the content of a view came from.
type Registry struct {
	Kind      string    `json:"kind"` // embedded or consul
	Reachable bool      `json:"reachable"`
	Since     time.Time `json:"since,omitzero"`  // when Reachable last changed
	Error     string    `json:"error,omitempty"` // why it is not reachable, or not believed
	// Emptied: it lost what it said of the site, and has not got it back. What it says is laid over what it said before.
	Emptied bool `json:"emptied,omitempty"`
}

// BootService is the address that targets boot from, and what our probes say of its parts.
type BootService struct {
	Address  netip.Addr `json:"address,omitzero"`    // the first VIP, or the node's own address
	HTTPPort uint16     `json:"http_port,omitempty"` // 0: 80
	Names    []string   `json:"names,omitempty"`     // of the login servers in DNS
	TFTP     Check      `json:"tftp"`
	HTTP     Check      `json:"http"`
	Lacks    []string   `json:"lacks,omitempty"` // FirmwareFiles that are not there to be loaded
	// Address6 is where targets boot from over IPv6, and what our probes say of it; zero: nowhere.
	Address6 netip.Addr `json:"address6,omitzero"`
	TFTP6    Check      `json:"tftp6,omitzero"`
	HTTP6    Check      `json:"http6,omitzero"`
}

// over returns the service as it is over one family.
func (b BootService) over(six bool) BootService {
	if six {
		b.Address, b.TFTP, b.HTTP = b.Address6, b.TFTP6, b.HTTP6
	}
	return b
}

// View is everything that the data plane knows, as one immutable value.
type View struct {
	Site        string                `json:"site"`
	Epoch       uint64                `json:"epoch"` // rises by one with each change
	Built       time.Time             `json:"built"`
	FromDisk    bool                  `json:"from_disk,omitempty"` // loaded at start, not confirmed by the registry since
	Registry    Registry              `json:"registry"`
	Boot        BootService           `json:"boot"`
	Appliances  []Appliance           `json:"appliances"` // this one first
	Devices     map[MAC]Device        `json:"devices"`
	Collections map[string]Collection `json:"collections"`
	VDisks      map[string]VDisk      `json:"vdisks"`
	Streamers   map[string]Streamer   `json:"streamers"`
}

// LoginServers returns where a target's bootstrap asks, in order and each once, as Bootstrap.Hosts: the boot address, then each appliance's own, then the
// names that outlive them all. The order is the same on all appliances: a bootstrap is a file like others, whose transfer goes on at another.
func (v *View) LoginServers() []string {
	var servers []netip.Addr
	add := func(a netip.Addr) {
		if a.IsValid() && !slices.Contains(servers, a) {
			servers = append(servers, a)
		}
	}
	own := make([]netip.Addr, 0, len(v.Appliances))
	for _, a := range v.Appliances {
		own = append(own, a.Address)
	}
	slices.SortFunc(own, netip.Addr.Compare)
	add(v.Boot.Address)
	for _, a := range own {
		add(a)
	}
	add(v.Boot.Address6) // a machine without IPv6 skips it at once
	port := cmp.Or(v.Boot.HTTPPort, 80)
	hosts := Hosts(servers, port)
	for _, name := range v.Boot.Names {
		hosts = append(hosts, hostAt(name, port))
	}
	return hosts
}

// DeviceAt returns the device that an address is reserved for.
func (v *View) DeviceAt(addr netip.Addr) (Device, bool) {
	for _, d := range v.Devices {
		if addr.IsValid() && (d.Address == addr || d.Address6 == addr) {
			return d, true
		}
	}
	return Device{}, false
}

// SizeOf returns how many bytes the content with that digest has, as a streamer says that holds it; 0: none does.
func (v *View) SizeOf(d Digest) (size int64) {
	for _, s := range v.Streamers {
		for _, r := range s.Replicas {
			if r.Digest == d {
				size = max(size, r.Size)
			}
		}
	}
	return size
}

// SortedStreamers returns the streamers by name.
func (v *View) SortedStreamers() []Streamer {
	list := make([]Streamer, 0, len(v.Streamers))
	for _, s := range v.Streamers {
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b Streamer) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

// SortedDevices returns the devices by MAC.
func (v *View) SortedDevices() []Device {
	list := make([]Device, 0, len(v.Devices))
	for _, d := range v.Devices {
		list = append(list, d)
	}
	slices.SortFunc(list, func(a, b Device) int { return slices.Compare(a.MAC[:], b.MAC[:]) })
	return list
}
