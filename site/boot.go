package site

import (
	"net/netip"
	"net/url"
	"slices"
	"strconv"
)

// Arch is a client's system architecture type (DHCP option 93, RFC 4578 §2.1 and IANA's registry).
type Arch uint16

// The architectures that we know boot files for, and those that clients also use for them. Those with HTTP load by URL.
const (
	ArchBIOS      Arch = 0
	ArchIA32      Arch = 6
	ArchX64       Arch = 7 // EFI byte code by the registry; every firmware uses it for x64
	ArchX64Alt    Arch = 9 // x64 by the registry
	ArchARM64     Arch = 11
	ArchHTTPIA32  Arch = 15
	ArchHTTPX64   Arch = 16
	ArchHTTPARM64 Arch = 19
)

// Client is what kind of program asks.
type Client string

// The kinds of clients.
const (
	ClientOther Client = ""     // asks for an address only
	ClientPXE   Client = "pxe"  // a firmware's PXE ROM (vendor class PXEClient)
	ClientHTTP  Client = "http" // UEFI HTTP boot (vendor class HTTPClient)
	ClientIPXE  Client = "ipxe" // iPXE (user class iPXE)
)

// BootRequest is what the boot decision needs of a DHCP message.
type BootRequest struct {
	MAC    MAC
	Client Client
	Arch   Arch
	Six    bool // it asks over DHCPv6, and loads over IPv6
}

// Offer is the boot part of a DHCP answer.
type Offer struct {
	Assignment Assignment `json:"assignment"`
	Server     netip.Addr `json:"server,omitzero"`    // siaddr, option 66
	File       string     `json:"file,omitempty"`     // a TFTP path, or a URL for HTTP clients and over DHCPv6
	Streamer   string     `json:"streamer,omitempty"` // who would serve it now; the login decides
}

// The names of boot files, below the TFTP and HTTP roots. Debian's package ipxe has all but that for IA32.
const (
	FileBIOS      = "undionly.kpxe"
	FileX64       = "snponly.efi"
	FileARM64     = "ipxe-arm64.efi"
	FileIA32      = "ipxe-ia32.efi"
	FileBootstrap = "bootstrap.ipxe"
)

// firmwareFiles is what a firmware loads first. PXE loads it by name, HTTP boot by URL.
var firmwareFiles = map[Client]map[Arch]string{
	ClientPXE:  {ArchBIOS: FileBIOS, ArchIA32: FileIA32, ArchX64: FileX64, ArchX64Alt: FileX64, ArchARM64: FileARM64},
	ClientHTTP: {ArchHTTPIA32: FileIA32, ArchHTTPX64: FileX64, ArchHTTPARM64: FileARM64},
}

// FirmwareFiles returns the names of all files that a firmware may be told to load.
func FirmwareFiles() []string { return []string{FileBIOS, FileX64, FileARM64, FileIA32} }

// Boot decides whether a target is told where to boot from. It is only if its whole chain is good: the boot file's service
// is up by our own probe, and at least one healthy streamer of the site holds its vDisk version. On any Reason but Offered the
// target gets its address without boot options.
func Boot(v *View, q BootRequest) (Offer, Reason) {
	if q.Client == ClientOther {
		return Offer{}, NotABootClient
	}
	a, reason := Assign(v, q.MAC)
	o := Offer{Assignment: a}
	if reason != Offered {
		return o, reason
	}
	s, reason := Pick(v, a.Login())
	if reason != Picked {
		return o, reason
	}
	o.Streamer = s.Name
	from := v.Boot.over(q.Six)
	if !from.Address.IsValid() {
		return o, NoBootAddress
	}
	file, reason := bootFile(from, q)
	if reason != Offered {
		return o, reason
	}
	o.Server, o.File = from.Address, file
	return o, Offered
}

// Login returns what Pick must look for when the device boots.
func (a Assignment) Login() Login {
	return Login{MAC: a.Device.MAC, VDisk: a.VDisk.Name, Version: a.Version.Number, Digest: a.Version.Digest, From: a.Device.Address}
}

// bootFile walks the stages: firmware loads iPXE, iPXE loads the bootstrap, and the bootstrap asks for the target's script over HTTP.
func bootFile(from BootService, q BootRequest) (string, Reason) {
	if from.HTTP.Health != Up {
		return "", HTTPDown // every path ends with the script over HTTP
	}
	if q.Client != ClientHTTP && from.TFTP.Health != Up {
		return "", TFTPDown
	}
	if q.Client == ClientIPXE {
		return from.byTFTP(FileBootstrap, q.Six), Offered
	}
	file, ok := firmwareFiles[q.Client][q.Arch]
	switch {
	case !ok:
		return "", UnsupportedArch
	case slices.Contains(from.Lacks, file):
		return "", NoBootFile
	case q.Client == ClientPXE:
		return from.byTFTP(file, q.Six), Offered
	}
	port := from.HTTPPort
	if port == 0 {
		port = 80
	}
	u := url.URL{Scheme: "http", Host: Hosts([]netip.Addr{from.Address}, port)[0], Path: "/" + file}
	return u.String(), Offered
}

// byTFTP names a file to load by TFTP: DHCPv4 says the server in a field of its own, DHCPv6 has a URL alone (RFC 5970 §3.1).
func (b BootService) byTFTP(file string, six bool) string {
	if !six {
		return file
	}
	u := url.URL{Scheme: "tftp", Host: Hosts([]netip.Addr{b.Address}, 80)[0], Path: "/" + file}
	return u.String()
}

// Asking is a login as it arrives at the director.
type Asking struct {
	Initiator, Target string // iSCSI names
	// Holder is the device that has the login's address by reservation or lease; zero: nobody that we know.
	Holder MAC
	// Runs is the target that this device was admitted to last; empty: none that we know.
	Runs string
	// Moved says that it was admitted to that from another address.
	Moved bool
}

// Admit decides whether a login that arrives at the director is allowed, and returns what Pick must look for. A device may log in
// to any version of its own vDisk, so that one that booted an older version finds it again after a failover. For the same reason one that was
// given another vDisk or address, or was removed, keeps what it runs until it boots again: initiators take a refusal as final.
func Admit(v *View, q Asking) (Login, Reason) {
	mac, err := ParseInitiatorName(q.Initiator)
	if err != nil {
		return Login{}, MalformedInitiator
	}
	t, err := ParseTargetName(q.Target)
	if err != nil {
		return Login{MAC: mac}, MalformedTarget
	}
	l := Login{MAC: mac, VDisk: t.VDisk, Version: t.Version, Digest: Digest(t.Digest)}
	if t.Site != v.Site {
		return l, OtherSite
	}
	others := !q.Holder.IsZero() && q.Holder != mac
	if q.Runs == q.Target {
		if q.Moved && others { // the one that runs is where it was
			return l, NotItsAddress
		}
		return l, Picked
	}
	d, ok := v.Devices[mac]
	if !ok {
		return l, UnknownDevice
	}
	own := d.VDisk
	if own == "" {
		own = v.Collections[d.Collection].VDisk
	}
	switch {
	case own != t.VDisk:
		return l, NotItsVDisk
	case others:
		return l, NotItsAddress
	}
	return l, Picked
}

// Describe returns the assignment as "debian version 1 (0123456789abcdef)".
func (a Assignment) Describe() string {
	if a.VDisk.Name == "" {
		return "no vDisk"
	}
	if a.Version.Number == 0 {
		return a.VDisk.Name
	}
	return a.VDisk.Name + " version " + strconv.Itoa(a.Version.Number) + " (" + a.Version.Digest.Short() + ")"
}
