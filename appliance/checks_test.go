package appliance

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"everboot/site"
	"everboot/streamer"
	"everboot/vip"
)

func TestPriorityFollowsHealth(t *testing.T) {
	type own = map[string]site.Health
	all := VIPWeights{TFTP: maxWeight, HTTP: maxWeight, Director: maxWeight}
	some := VIPWeights{TFTP: 20, HTTP: 30, Director: 0}
	for name, c := range map[string]struct {
		configured int
		weights    VIPWeights
		own        own
		want       int
	}{
		"nothing known":            {100, all, own{}, 100},
		"unknown is not down":      {100, all, own{checkOwnTFTP: site.Unknown}, 100},
		"all well":                 {100, all, own{checkOwnTFTP: site.Up, checkOwnHTTP: site.Up, checkOwnDirector: site.Up}, 100},
		"sick":                     {100, all, own{checkOwnTFTP: site.Down, checkOwnHTTP: site.Up}, vip.SickPriority},
		"an owner is sick, too":    {255, all, own{checkOwnDirector: site.Down}, vip.SickPriority},
		"sicker":                   {254, all, own{checkOwnTFTP: site.Down, checkOwnHTTP: site.Down}, vip.SickPriority - 1},
		"the sickest":              {10, all, own{checkOwnTFTP: site.Down, checkOwnHTTP: site.Down, checkOwnDirector: site.Down}, vip.SickPriority - 2},
		"weakened":                 {100, some, own{checkOwnTFTP: site.Down}, 80},
		"weakened twice":           {100, some, own{checkOwnTFTP: site.Down, checkOwnHTTP: site.Down}, 50},
		"no notice is taken":       {100, some, own{checkOwnDirector: site.Down}, 100},
		"no notice beside another": {100, some, own{checkOwnTFTP: site.Down, checkOwnDirector: site.Down}, 80},
		"the last that is well":    {30, some, own{checkOwnTFTP: site.Down}, 10},
		"the first that is sick":   {29, some, own{checkOwnTFTP: site.Down}, vip.SickPriority},
		"sick by little weights":   {40, some, own{checkOwnTFTP: site.Down, checkOwnHTTP: site.Down}, vip.SickPriority - 1},
	} {
		if got := priority(c.configured, c.weights.byCheck(), c.own); got != c.want {
			t.Errorf("%s: got %d, want %d", name, got, c.want)
		}
	}
}

func TestWeights(t *testing.T) {
	for text, want := range map[string]string{
		"weights = { director = 20 }": "",
		"weights = { http = 256 }":    "vip.weights.http: 256",
		"weights = { tftp = -1 }":     "vip.weights.tftp: -1",
	} {
		path := filepath.Join(t.TempDir(), "appliance.toml")
		if err := os.WriteFile(path, []byte("node = \"a\"\ninterface = \"eth0\"\n[vip]\naddresses = [\"198.18.0.10/24\"]\n"+text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := Load(path)
		switch {
		case want == "" && (err != nil || c.VIP.Weights != VIPWeights{TFTP: maxWeight, HTTP: maxWeight, Director: 20}):
			t.Errorf("%s: got %+v, %v", text, c, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// TestOwnChecksAskWhereTheNodeListens: one that listens at another address than its own is not sick because of that.
func TestOwnChecksAskWhereTheNodeListens(t *testing.T) {
	w := &worker{cfg: &Config{VIP: VIPConfig{VIPGroup: VIPGroup{Addresses: []netip.Prefix{netip.MustParsePrefix("198.18.0.10/24")}}}}, own: netip.MustParseAddr("198.18.0.2")}
	for listen, want := range map[string]string{
		":3260": "198.18.0.2", "0.0.0.0:3260": "198.18.0.2", "[::]:3260": "198.18.0.2",
		"198.18.4.2:3260": "198.18.4.2", "198.18.0.10:3260": "", "director.example:3260": "",
	} {
		w.cfg.TFTP = TFTPConfig{Enabled: true, Listen: listen}
		w.cfg.HTTP.Enabled, w.cfg.HTTP.Listen = true, listen
		w.cfg.Director = DirectorConfig{Enabled: true, Listen: listen}
		at, ok := w.ownHost(listen)
		if ok != (want != "") || ok && at.String() != want {
			t.Errorf("%s: asked at %s, %t; want %q", listen, at, ok, want)
		}
		own := 0
		for _, c := range w.bootChecks() {
			if strings.HasPrefix(c.Name, "own/") {
				own++
			}
		}
		if own != 3 && ok || own > 0 && !ok {
			t.Errorf("%s: %d own checks", listen, own)
		}
	}
}

// TestTheDirectorsCheck: it is answered, and leaves no trace among what targets do.
func TestTheDirectorsCheck(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d, err := streamer.NewDirector(streamer.DirectorConfig{
		Listen: []string{l.Addr().String()}, ListenFunc: func(string, string) (net.Listener, error) { return l, nil },
	}, func() *site.View { return &site.View{} }, func(e site.Event) { t.Errorf("the check made the event %+v", e) }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	<-d.Ready()
	check := directorCheck("a", netip.MustParseAddrPort(l.Addr().String()))
	for range 3 {
		if err := check.Probe(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if s := d.Stats(); len(s.Logins) > 0 || len(s.Drops) > 0 || s.Discoveries > 0 {
		t.Errorf("the checks count as %+v", s)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := check.Probe(t.Context()); err == nil {
		t.Error("a director that has ended passes")
	}
}
