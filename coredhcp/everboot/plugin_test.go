package everboot

import (
	"context"
	"log/slog"
	"net"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"everboot/appliance/web"
	"everboot/site"
)

func TestArguments(t *testing.T) {
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]string{
		"http://198.18.0.2:8667 https://198.18.0.3:8667 token=file:" + token: "",
		"consul=127.0.0.1:8500 site=berlin boot=198.18.0.10":                 "",
		"":                        "whom to ask",
		"198.18.0.2":              `"198.18.0.2": use`,
		"http://":                 "not a URL",
		"token=secret http://a:1": "put it into a file",
		"token=file:/nowhere":     "reading the token",
		"consul=a:1 site=berlin":  "boot=ADDRESS is missing",
		"consul=a:1 site=berlin boot=2001:db8::1":    "use the IPv4 address",
		"consul=a:1 site=Berlin! boot=198.18.0.10":   "site name",
		"consul=a:1 http://a:1":                      "not both",
		"http://a:1 site=berlin":                     "an appliance knows them",
		"nbp=tftp://198.18.0.2/x http://198.18.0.2/": "nbp",
	} {
		s, err := parse(strings.Fields(line))
		if want == "" && (err != nil || strings.Contains(line, "token") && s.token != "secret") {
			t.Errorf("%q: %+v, %v", line, s, err)
		}
		if want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v, want %s", line, err, want)
		}
	}
}

// appliance is what the plugin asks: it answers what it is told to, if it understands for whom.
type appliance struct {
	web.Backend
	web.BootOffer
}

func (a appliance) Offer(q site.BootRequest) web.BootOffer {
	if q != (site.BootRequest{MAC: site.MAC{0x52, 0x54, 0, 0, 0, 1}, Client: site.ClientPXE, Arch: site.ArchX64}) {
		return web.BootOffer{Reason: site.UnknownDevice}
	}
	return a.BootOffer
}

// api is an appliance's API that offers what it is told to, and returns its URL.
func api(t *testing.T, token string, offer site.Offer, reason site.Reason) string {
	t.Helper()
	s, err := web.NewServer(web.Config{Listen: "127.0.0.1:0", Token: token}, appliance{BootOffer: web.BootOffer{Offer: offer, Reason: reason}}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	<-s.Ready()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return "http://" + s.Addr().String()
}

var offered = site.Offer{Server: netip.MustParseAddr("198.18.0.10"), File: site.FileX64}

// answer gives the plugin a PXE client's DISCOVER, and an OFFER to fill in.
func answer(t *testing.T, class string, args ...string) *dhcpv4.DHCPv4 {
	t.Helper()
	handle, err := setup(args...)
	if err != nil {
		t.Fatal(err)
	}
	q, err := dhcpv4.NewDiscovery(net.HardwareAddr{0x52, 0x54, 0, 0, 0, 1}, dhcpv4.WithOption(dhcpv4.OptClassIdentifier(class)))
	if err != nil {
		t.Fatal(err)
	}
	p, err := dhcpv4.NewReplyFromRequest(q)
	if err != nil {
		t.Fatal(err)
	}
	p, stop := handle(q, p)
	if p == nil || stop {
		t.Fatalf("the plugin takes the answer away: %v %v", p, stop)
	}
	return p
}

func TestOffer(t *testing.T) {
	dead := httptest.NewServer(nil)
	dead.Close()
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	good, sick := api(t, "secret", offered, site.Offered), api(t, "secret", site.Offer{}, site.NoHealthyStreamer)
	pxe := "PXEClient:Arch:00007:UNDI:003016"
	for name, c := range map[string]struct {
		class, url, second string
		boots              bool
	}{
		"healthy":          {pxe, good, dead.URL, true},
		"the second lives": {pxe, dead.URL, good, true},
		"nobody to ask":    {pxe, dead.URL, dead.URL, false},
		"no streamer":      {pxe, sick, dead.URL, false},
		"does not boot":    {"udhcp 1.35", good, good, false},
	} {
		p := answer(t, c.class, c.url, c.second, "token=file:"+token)
		file, server, class := p.BootFileNameOption(), p.TFTPServerName(), p.ClassIdentifier()
		if c.boots && (file != "snponly.efi" || server != "198.18.0.10" || p.BootFileName != file || p.ServerIPAddr.String() != server || class != "PXEClient") ||
			!c.boots && (file != "" || server != "" || p.BootFileName != "" || !p.ServerIPAddr.IsUnspecified()) {
			t.Errorf("%s: %v", name, p.Summary())
		}
	}
	if p := answer(t, pxe, good); p.BootFileNameOption() != "" {
		t.Error("an API that refuses us is believed")
	}
}

// TestConsulThatIsNotThere: who knows nothing offers nothing, and does not keep coredhcp from starting.
func TestConsulThatIsNotThere(t *testing.T) {
	if p := answer(t, "PXEClient", "consul=127.0.0.1:1", "site=berlin", "boot=127.0.0.1"); p.BootFileNameOption() != "" {
		t.Error(p.Summary())
	}
}

// TestWhatConsulAndProbesSay: both must be good.
func TestWhatConsulAndProbesSay(t *testing.T) {
	f := &follower{cfg: settings{site: "berlin", boot: offered.Server}, seen: site.Observed{Boot: site.BootService{Address: offered.Server}, Streamers: map[string]site.Check{}}}
	f.view.Store(site.Empty("berlin", "consul"))
	mac := site.MAC{0x52, 0x54, 0, 0, 0, 1}
	digest := site.Digest(strings.Repeat("0123456789abcdef", 4))
	f.content = &site.Content{
		Devices: []site.Device{{MAC: mac, VDisk: "debian"}},
		VDisks:  []site.VDisk{{Name: "debian", Versions: []site.Version{{Number: 1, Digest: digest}}}},
		Streamers: []site.Streamer{{
			Name: "s1", Site: "berlin", Addresses: []netip.AddrPort{netip.MustParseAddrPort("198.18.0.21:3260")}, State: site.Active,
			Replicas: []site.Replica{{VDisk: "debian", Version: 1, Digest: digest}},
		}},
	}
	f.registry = site.Registry{Kind: "consul", Reachable: true}
	up := site.Check{Health: site.Up}
	for _, step := range []struct {
		check string
		c     site.Check
		want  site.Reason
	}{
		{checkTFTP, up, site.NoHealthyStreamer}, {checkHTTP, up, site.NoHealthyStreamer}, {"streamer/s1", up, site.Offered},
		{filePrefix + site.FileARM64, site.Check{Health: site.Down}, site.Offered},
		{filePrefix + site.FileX64, site.Check{Health: site.Down}, site.NoBootFile},
		{filePrefix + site.FileX64, up, site.Offered},
		{checkTFTP, site.Check{Health: site.Down}, site.TFTPDown},
	} {
		f.probed(step.check, step.c)
		if _, reason, _ := f.decide(t.Context(), site.BootRequest{MAC: mac, Client: site.ClientPXE, Arch: site.ArchX64}); reason != step.want {
			t.Errorf("after %s: %s, want %s", step.check, reason, step.want)
		}
	}
}
