package site

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

var (
	t1      = MAC{0x52, 0x54, 0, 0, 0, 1}
	good    = Digest("00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff")
	bad     = Digest("ff112233445566778899aabbccddeeff00112233445566778899aabbccddeeff")
	vip     = netip.MustParseAddr("198.18.0.10")
	noon    = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	portal  = []netip.AddrPort{netip.MustParseAddrPort("198.18.0.21:3260")}
	healthy = Check{Health: Up}
)

// streamer returns one that can serve debian version 1.
func streamer(name string, change ...func(*Streamer)) Streamer {
	s := Streamer{
		Name: name, Site: "berlin", Addresses: portal, Power: 1, State: Active, Registered: true, Check: healthy,
		Replicas: []Replica{{VDisk: "debian", Version: 1, Digest: good}},
	}
	for _, c := range change {
		c(&s)
	}
	return s
}

// berlin returns a site whose device t1 boots debian from the streamers given.
func berlin(streamers ...Streamer) *View {
	v := Empty("berlin", "embedded")
	v.Boot = BootService{Address: vip, TFTP: healthy, HTTP: healthy}
	v.Devices[t1] = Device{MAC: t1, Name: "t1", VDisk: "debian"}
	v.VDisks["debian"] = VDisk{Name: "debian", Versions: []Version{{Number: 1, Digest: good}}}
	for _, s := range streamers {
		v.Streamers[s.Name] = s
	}
	return v
}

func TestPick(t *testing.T) {
	down := func(s *Streamer) { s.Check.Health = Down }
	draining := func(s *Streamer) { s.State = Draining }
	otherSite := func(s *Streamer) { s.Site = "munich" }
	otherDigest := func(s *Streamer) { s.Replicas[0].Digest = bad }
	empty := func(s *Streamer) { s.Replicas = nil }
	sessions := func(n int) func(*Streamer) { return func(s *Streamer) { s.Sessions = n } }
	power := func(p float64) func(*Streamer) { return func(s *Streamer) { s.Power = p } }
	unprobed := func(s *Streamer) { s.Check = Check{} }
	tests := []struct {
		name      string
		streamers []Streamer
		login     func(*Login)
		want      string
		reason    Reason
	}{
		{name: "nobody", reason: NoReplica},
		{name: "the only one", streamers: []Streamer{streamer("s1")}, want: "s1", reason: Picked},
		{name: "least sessions", streamers: []Streamer{streamer("s1", sessions(3)), streamer("s2", sessions(2))}, want: "s2", reason: Picked},
		{name: "per power", streamers: []Streamer{streamer("s1", sessions(3), power(2)), streamer("s2", sessions(2))}, want: "s1", reason: Picked},
		{name: "sessions given since it announced", streamers: []Streamer{streamer("s1"), streamer("s2", sessions(1))}, login: func(l *Login) { l.Extra = map[string]int{"s1": 2} }, want: "s2", reason: Picked},
		{name: "a tried one is left out", streamers: []Streamer{streamer("s1"), streamer("s2", sessions(9))}, login: func(l *Login) { l.Tried = []string{"s1"} }, want: "s2", reason: Picked},
		{name: "never one that is down", streamers: []Streamer{streamer("s1", down), streamer("s2", sessions(9))}, want: "s2", reason: Picked},
		{name: "never one that our probe has not seen", streamers: []Streamer{streamer("s1", unprobed)}, reason: NoHealthyStreamer},
		{name: "never one of another site", streamers: []Streamer{streamer("s1", otherSite)}, reason: NoReplica},
		{name: "never another digest, not even as the last one", streamers: []Streamer{streamer("s1", otherDigest)}, reason: DigestDiffers},
		{name: "another digest beside a good one", streamers: []Streamer{streamer("s1", otherDigest), streamer("s2", sessions(99))}, want: "s2", reason: Picked},
		{name: "draining takes no new logins", streamers: []Streamer{streamer("s1", draining)}, reason: AllDraining},
		{name: "the nearest reason wins", streamers: []Streamer{streamer("s1", otherDigest), streamer("s2", down), streamer("s3", empty)}, reason: NoHealthyStreamer},
		{name: "the short digest of a target name", streamers: []Streamer{streamer("s1")}, login: func(l *Login) { l.Digest = Digest(good.Short()) }, want: "s1", reason: Picked},
		{name: "an unknown digest matches nothing", streamers: []Streamer{streamer("s1", func(s *Streamer) { s.Replicas[0].Digest = "" })}, login: func(l *Login) { l.Digest = "" }, reason: DigestDiffers},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := Login{MAC: t1, VDisk: "debian", Version: 1, Digest: good}
			if tt.login != nil {
				tt.login(&l)
			}
			s, reason := Pick(berlin(tt.streamers...), l)
			if s.Name != tt.want && reason == Picked || reason != tt.reason {
				t.Errorf("Pick = %q, %s; want %q, %s", s.Name, reason, tt.want, tt.reason)
			}
		})
	}
}

func TestPickSpreadsTiesEvenlyAndFindsTheSameOneAgain(t *testing.T) {
	v := berlin(streamer("s1"), streamer("s2"), streamer("s3"))
	count := map[string]int{}
	const targets = 3000
	for i := range targets {
		l := Login{MAC: MAC{0x52, 0x54, 0, 0, byte(i >> 8), byte(i)}, VDisk: "debian", Version: 1, Digest: good}
		first, _ := Pick(v, l)
		again, _ := Pick(v, l)
		if first.Name != again.Name {
			t.Fatalf("%s went to %s, then to %s", l.MAC, first.Name, again.Name)
		}
		count[first.Name]++
	}
	for name, n := range count {
		if n < targets/3*9/10 || n > targets/3*11/10 {
			t.Errorf("%s got %d of %d targets; want a third within 10 %%", name, n, targets)
		}
	}
}

func TestAssign(t *testing.T) {
	base := func() *View {
		v := berlin()
		v.VDisks["debian"] = VDisk{Name: "debian", Versions: []Version{{Number: 1, Digest: good}, {Number: 2, Digest: bad}, {Number: 3}}}
		v.Collections["room"] = Collection{Name: "room", VDisk: "debian", Version: 1}
		return v
	}
	tests := []struct {
		name    string
		device  Device
		version int
		reason  Reason
	}{
		{"the newest version whose digest is known", Device{VDisk: "debian"}, 2, Offered},
		{"the version that it names", Device{VDisk: "debian", Version: 1}, 1, Offered},
		{"its collection's", Device{Collection: "room"}, 1, Offered},
		{"its own before its collection's", Device{Collection: "room", VDisk: "debian"}, 2, Offered},
		{"a version nobody knows the digest of", Device{VDisk: "debian", Version: 3}, 0, UnknownVersion},
		{"a version that does not exist", Device{VDisk: "debian", Version: 9}, 0, UnknownVersion},
		{"an unknown vDisk", Device{VDisk: "windows"}, 0, UnknownVDisk},
		{"no vDisk at all", Device{}, 0, NoVDisk},
		{"an unknown collection", Device{Collection: "attic"}, 0, NoVDisk},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := base()
			tt.device.MAC = t1
			v.Devices[t1] = tt.device
			a, reason := Assign(v, t1)
			if a.Version.Number != tt.version || reason != tt.reason {
				t.Errorf("Assign = version %d, %s; want %d, %s", a.Version.Number, reason, tt.version, tt.reason)
			}
		})
	}
	if _, reason := Assign(base(), MAC{2}); reason != UnknownDevice {
		t.Errorf("a stranger: %s, want %s", reason, UnknownDevice)
	}
}

func TestBoot(t *testing.T) {
	tests := []struct {
		name   string
		client Client
		arch   Arch
		change func(*View)
		file   string
		reason Reason
	}{
		{name: "BIOS loads iPXE", client: ClientPXE, arch: ArchBIOS, file: FileBIOS, reason: Offered},
		{name: "UEFI loads iPXE", client: ClientPXE, arch: ArchX64, file: FileX64, reason: Offered},
		{name: "UEFI by the registry's number", client: ClientPXE, arch: ArchX64Alt, file: FileX64, reason: Offered},
		{name: "iPXE loads the bootstrap", client: ClientIPXE, arch: ArchX64, file: FileBootstrap, reason: Offered},
		{name: "HTTP boot gets a URL", client: ClientHTTP, arch: ArchHTTPX64, file: "http://198.18.0.10/snponly.efi", reason: Offered},
		{name: "ARM64", client: ClientPXE, arch: ArchARM64, file: FileARM64, reason: Offered},
		{name: "IA32", client: ClientPXE, arch: ArchIA32, file: FileIA32, reason: Offered},
		{name: "ARM64 over HTTP", client: ClientHTTP, arch: ArchHTTPARM64, file: "http://198.18.0.10/ipxe-arm64.efi", reason: Offered},
		{name: "IA32 over HTTP", client: ClientHTTP, arch: ArchHTTPIA32, file: "http://198.18.0.10/ipxe-ia32.efi", reason: Offered},
		{name: "a file that is not there", client: ClientPXE, arch: ArchIA32, change: func(v *View) { v.Boot.Lacks = []string{FileIA32} }, reason: NoBootFile},
		{name: "a file that is not there, over HTTP", client: ClientHTTP, arch: ArchHTTPARM64, change: func(v *View) { v.Boot.Lacks = []string{FileARM64} }, reason: NoBootFile},
		{name: "the file of others is not there", client: ClientPXE, arch: ArchX64, change: func(v *View) { v.Boot.Lacks = []string{FileIA32} }, file: FileX64, reason: Offered},
		{name: "RISC-V", client: ClientPXE, arch: 27, reason: UnsupportedArch},
		{name: "a phone asks for an address only", client: ClientOther, reason: NotABootClient},
		{name: "TFTP down", client: ClientPXE, change: func(v *View) { v.Boot.TFTP.Health = Down }, reason: TFTPDown},
		{name: "TFTP not probed yet", client: ClientPXE, change: func(v *View) { v.Boot.TFTP = Check{} }, reason: TFTPDown},
		{name: "HTTP down", client: ClientPXE, change: func(v *View) { v.Boot.HTTP.Health = Down }, reason: HTTPDown},
		{name: "HTTP boot at another port", client: ClientHTTP, arch: ArchHTTPX64, change: func(v *View) { v.Boot.HTTPPort = 8080 }, file: "http://198.18.0.10:8080/snponly.efi", reason: Offered},
		{name: "HTTP boot needs no TFTP", client: ClientHTTP, arch: ArchHTTPX64, change: func(v *View) { v.Boot.TFTP.Health = Down }, file: "http://198.18.0.10/snponly.efi", reason: Offered},
		{name: "no healthy streamer", client: ClientPXE, change: func(v *View) { v.Streamers = map[string]Streamer{} }, reason: NoReplica},
		{name: "no boot address", client: ClientPXE, change: func(v *View) { v.Boot.Address = netip.Addr{} }, reason: NoBootAddress},
		{name: "unknown device", client: ClientPXE, change: func(v *View) { v.Devices = nil }, reason: UnknownDevice},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := berlin(streamer("s1"))
			if tt.change != nil {
				tt.change(v)
			}
			o, reason := Boot(v, BootRequest{MAC: t1, Client: tt.client, Arch: tt.arch})
			if o.File != tt.file || reason != tt.reason {
				t.Errorf("Boot = %q, %s; want %q, %s", o.File, reason, tt.file, tt.reason)
			}
			if (reason == Offered) != (o.Server == vip) {
				t.Errorf("reason %s with server %s: the server is named if and only if the offer is good", reason, o.Server)
			}
			if reason.Text() == "" {
				t.Errorf("reason %s has no text", reason)
			}
		})
	}
}

func TestPickBySubnet(t *testing.T) {
	networks := func(list ...string) func(*Streamer) {
		return func(s *Streamer) {
			s.Addresses = nil
			for i, n := range list {
				s.Addresses = append(s.Addresses, netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, byte(i), 21}), 3260))
				s.Networks = append(s.Networks, netip.MustParsePrefix(n))
			}
		}
	}
	busy := func(s *Streamer) { s.Sessions = 9 }
	here, there := networks("198.18.9.0/24", "198.18.0.0/24"), networks("198.18.1.0/24")
	target := netip.MustParseAddr("198.18.0.51")
	for _, tt := range []struct {
		name      string
		rules     VDisk
		streamers []Streamer
		from      netip.Addr
		want      string
		reason    Reason
	}{
		{"no affinity", VDisk{}, []Streamer{streamer("s1", here, busy), streamer("s2", there)}, target, "s2", Picked},
		{"best effort prefers its subnet", VDisk{Affinity: BestEffort}, []Streamer{streamer("s1", here, busy), streamer("s2", there)}, target, "s1", Picked},
		{"best effort, the least busy of its subnet", VDisk{Affinity: BestEffort}, []Streamer{streamer("s1", here, busy), streamer("s2", here)}, target, "s2", Picked},
		{"best effort goes elsewhere", VDisk{Affinity: BestEffort}, []Streamer{streamer("s2", there)}, target, "s2", Picked},
		{"fixed stays", VDisk{Affinity: FixedAffinity}, []Streamer{streamer("s1", here, busy), streamer("s2", there)}, target, "s1", Picked},
		{"fixed goes nowhere else", VDisk{Affinity: FixedAffinity}, []Streamer{streamer("s2", there)}, target, "", NoneInSubnet},
		{"fixed, at an address that is not known yet", VDisk{Affinity: FixedAffinity}, []Streamer{streamer("s2", there)}, netip.Addr{}, "s2", Picked},
		{"one server", VDisk{Server: "s1"}, []Streamer{streamer("s1", busy), streamer("s2")}, target, "s1", Picked},
		{"one server that is gone", VDisk{Server: "s1"}, []Streamer{streamer("s2")}, target, "", FixedServerDown},
		{"one server that is down", VDisk{Server: "s1"}, []Streamer{streamer("s1", func(s *Streamer) { s.Check.Health = Down }), streamer("s2")}, target, "", FixedServerDown},
		{"one server with another digest", VDisk{Server: "s1"}, []Streamer{streamer("s1", func(s *Streamer) { s.Replicas[0].Digest = bad }), streamer("s2")}, target, "", DigestDiffers},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := berlin(tt.streamers...)
			tt.rules.Name = "debian"
			v.VDisks["debian"] = tt.rules
			s, reason := Pick(v, Login{MAC: t1, VDisk: "debian", Version: 1, Digest: good, From: tt.from})
			if s.Name != tt.want || reason != tt.reason {
				t.Errorf("Pick = %q, %s; want %q, %s", s.Name, reason, tt.want, tt.reason)
			}
		})
	}
	near, far := streamer("s1", here).Portals(target)
	if len(near) != 1 || near[0].Addr().String() != "198.18.1.21" || len(far) != 1 {
		t.Errorf("portals near %v, far %v", near, far)
	}
}

func TestAdmit(t *testing.T) {
	iqn, other := NameTarget("berlin", "debian", 1, good).IQN(), NameTarget("berlin", "windows", 1, good).IQN()
	self, stranger := InitiatorName(t1), MAC{2}
	tests := []struct {
		name   string
		asking Asking
		reason Reason
	}{
		{"its own vDisk", Asking{Initiator: self, Target: iqn}, Picked},
		{"an older version of its own vDisk", Asking{Initiator: self, Target: NameTarget("berlin", "debian", 7, bad).IQN()}, Picked},
		{"another's vDisk", Asking{Initiator: self, Target: other}, NotItsVDisk},
		{"what it runs since before it was given another", Asking{Initiator: self, Target: other, Runs: other}, Picked},
		{"another's vDisk while it runs its own", Asking{Initiator: self, Target: other, Runs: iqn}, NotItsVDisk},
		{"another site's vDisk", Asking{Initiator: self, Target: NameTarget("munich", "debian", 1, good).IQN()}, OtherSite},
		{"a stranger", Asking{Initiator: InitiatorName(stranger), Target: iqn}, UnknownDevice},
		{"one that was removed while it runs", Asking{Initiator: InitiatorName(stranger), Target: iqn, Runs: iqn}, Picked},
		{"from its own address", Asking{Initiator: self, Target: iqn, Holder: t1}, Picked},
		{"from another device's address", Asking{Initiator: self, Target: iqn, Holder: stranger}, NotItsAddress},
		{"from an address that another got while it runs", Asking{Initiator: self, Target: iqn, Holder: stranger, Runs: iqn}, Picked},
		{"from another device's address while it runs elsewhere", Asking{Initiator: self, Target: iqn, Holder: stranger, Runs: iqn, Moved: true}, NotItsAddress},
		{"from a new address while it runs", Asking{Initiator: self, Target: iqn, Holder: t1, Runs: iqn, Moved: true}, Picked},
		{"somebody else's initiator", Asking{Initiator: "iqn.1993-08.org.debian:01:abc", Target: iqn}, MalformedInitiator},
		{"no target name", Asking{Initiator: self}, MalformedTarget},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, reason := Admit(berlin(), tt.asking); reason != tt.reason {
				t.Errorf("Admit = %s, want %s", reason, tt.reason)
			}
		})
	}
}

func TestNamesSurviveTheirText(t *testing.T) {
	name := NameTarget("berlin", "debian-12", 42, good)
	if back, err := ParseTargetName(name.IQN()); err != nil || back != name {
		t.Errorf("ParseTargetName(%q) = %+v, %v", name.IQN(), back, err)
	}
	if back, err := ParseInitiatorName(InitiatorName(t1)); err != nil || back != t1 {
		t.Errorf("ParseInitiatorName(%q) = %s, %v", InitiatorName(t1), back, err)
	}
}

func FuzzParseTargetName(f *testing.F) {
	f.Add(NameTarget("berlin", "debian", 1, good).IQN())
	f.Add(iqnPrefix + "berlin:debian:01:0011223344556677") // a leading zero would give one version two names
	f.Add(iqnPrefix + "berlin:debian:1:00112233445566AA")  // so would capitals
	f.Fuzz(func(t *testing.T, text string) {
		if name, err := ParseTargetName(text); err == nil && name.IQN() != text {
			t.Errorf("%q parses to %+v, which is written %q", text, name, name.IQN())
		}
	})
}

func ExampleReason_Text() {
	fmt.Println(NoHealthyStreamer.Text())
	// Output: streamers hold its vDisk version, but none of them is up
}
