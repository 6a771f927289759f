package dhcp_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"everboot/dhcp"
	"everboot/dhcp/ra"
	"everboot/dhcp/v6"
	"everboot/internal/lab"
	"everboot/site"
)

// serveEnv makes the test binary a DHCP server with the configuration and the view in it: in the lab a network namespace belongs to a
// thread or a process, and a server is a process here as it is in life.
const serveEnv = "EVERBOOT_TEST_DHCP"

type served struct {
	Config dhcp.Config
	View   *site.View
	Proxy  bool
	RA     bool
	Six    *v6.Config // DHCPv6, too
	Search bool
}

func TestMain(m *testing.M) {
	if text := os.Getenv(serveEnv); text != "" {
		if err := serve(text); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	os.Exit(lab.TestMain(m))
}

func serve(text string) error {
	var s served
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	event := func(e site.Event) { fmt.Println("event", e.MAC, e.What, e.Detail) }
	log, view := slog.New(slog.NewTextHandler(os.Stdout, nil)), func() *site.View { return s.View }
	var d interface {
		Run(context.Context) error
		Ready() <-chan struct{}
	}
	var err error
	if d, err = dhcp.New(s.Config, view, event, log); s.Proxy {
		d, err = dhcp.NewProxy(s.Config, view, event, log)
	}
	if err != nil {
		return err
	}
	go func() {
		<-d.Ready()
		fmt.Println("ready")
	}()
	var link netip.Prefix
	if server, ok := d.(*dhcp.Server); ok && s.Six != nil {
		six, err := v6.New(*s.Six, view, server.First, server.Note, log)
		if err != nil {
			return err
		}
		go six.Run(ctx)
		link = s.Six.Link()
	}
	if s.Search {
		go dhcp.NewSearch(dhcp.SearchConfig{
			Interface: s.Config.Interface, Site: s.View.Site, Node: s.Config.ServerAddress, Proxy: s.Proxy,
			Ours: func(a netip.Addr) bool { return a == s.Config.ServerAddress || slices.Contains(s.Config.Peers, a) },
		}, event, log).Run(ctx)
	}
	if s.RA {
		go ra.NewAdvertiser(s.Config.Interface, link, log).Run(ctx)
	}
	return d.Run(ctx)
}

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

// network is a segment with two appliances, a and b, and one client, c.
type network struct {
	t       *testing.T
	lab     *lab.Lab
	lan     *lab.Segment
	a, b, c *lab.Host
	client  *lab.Cable
	view    *site.View
	ra      bool       // servers advertise, too
	six     *v6.Config // they serve DHCPv6, too
}

func newNetwork(t *testing.T) *network {
	l := lab.ForTest(t)
	n := &network{t: t, lab: l, lan: l.Segment("lan"), a: l.Host("a"), b: l.Host("b"), c: l.Host("c")}
	n.a.Join(n.lan, "198.18.0.2/24")
	n.b.Join(n.lan, "198.18.0.3/24", "2001:db8::3/64")
	n.client = n.c.Join(n.lan)
	n.lan.Capture("lan")
	n.view = healthy()
	return n
}

// healthy is a view with all that a target needs.
func healthy() *site.View {
	digest := site.Digest(strings.Repeat("0123456789abcdef", 4))
	up := site.Check{Health: site.Up}
	return &site.View{
		Site: "lab", Appliances: []site.Appliance{{Address: ip("198.18.0.2")}, {Address: ip("198.18.0.3")}},
		Boot:    site.BootService{Address: ip("198.18.0.10"), TFTP: up, HTTP: up},
		Devices: map[site.MAC]site.Device{},
		VDisks:  map[string]site.VDisk{"debian": {Name: "debian", Versions: []site.Version{{Number: 1, Digest: digest}}}},
		Streamers: map[string]site.Streamer{"s1": {
			Name: "s1", Site: "lab", Addresses: []netip.AddrPort{netip.MustParseAddrPort("198.18.0.21:3260")}, State: site.Active,
			Replicas: []site.Replica{{VDisk: "debian", Version: 1, Digest: digest}}, Check: up,
		}},
	}
}

func (n *network) device(mac net.HardwareAddr, address string) {
	d := site.Device{MAC: site.MAC(mac), VDisk: "debian"}
	if address != "" {
		d.Address = ip(address)
	}
	n.view.Devices[d.MAC] = d
}

func (n *network) config(h *lab.Host, self, peer string) dhcp.Config {
	return dhcp.Config{
		Interface: "eth0", ServerAddress: ip(self), Peers: []netip.Addr{ip(peer)}, LeaseFile: filepath.Join(n.lab.Dir(), h.Name()+".db"),
		Subnets: []dhcp.Subnet{{
			Network: netip.MustParsePrefix("198.18.0.0/24"), Range: [2]netip.Addr{ip("198.18.0.100"), ip("198.18.0.199")},
			Router: ip("198.18.0.1"), DNS: []netip.Addr{ip("198.18.0.1")}, Lease: time.Hour,
		}},
	}
}

// launch starts a server without waiting for it.
func (n *network) launch(h *lab.Host, cfg dhcp.Config) *lab.Process {
	return n.start(h, served{Config: cfg, View: n.view, RA: n.ra, Six: n.six})
}

func (n *network) launchProxy(h *lab.Host, cfg dhcp.Config) *lab.Process {
	return n.start(h, served{Config: cfg, View: n.view, Proxy: true})
}

func (n *network) start(h *lab.Host, s served) *lab.Process {
	n.t.Helper()
	text, err := json.Marshal(s)
	if err != nil {
		n.t.Fatal(err)
	}
	return h.StartWith(lab.Settings{Env: []string{serveEnv + "=" + string(text)}}, "dhcp", os.Args[0])
}

func (n *network) serve(h *lab.Host, self, peer string) *lab.Process {
	n.t.Helper()
	p := n.launch(h, n.config(h, self, peer))
	if _, err := p.Expect("ready", 10*time.Second); err != nil {
		n.t.Fatal(err)
	}
	return p
}

func (n *network) ask(args ...string) lab.Lease {
	n.t.Helper()
	lease, err := lab.Udhcpc(n.c, "eth0", args...)
	if err != nil {
		n.t.Fatal(err)
	}
	return lease
}

// offered waits until so many pairs of a client and a server that makes it an offer were seen: the second server's offer may come after the client has what it needs.
func (n *network) offered(pairs int) {
	n.t.Helper()
	seen := make(map[string]bool)
	err := lab.Eventually(10*time.Second, fmt.Sprintf("%d pairs of client and server have an offer", pairs), func() error {
		offers, err := n.lan.Decoded("dhcp.option.dhcp == 2", "dhcp.hw.mac_addr", "ip.src")
		for _, o := range offers {
			seen[o] = true
		}
		if err == nil && len(seen) < pairs {
			err = fmt.Errorf("%d have", len(seen))
		}
		return err
	})
	if err != nil || len(seen) != pairs {
		n.t.Errorf("%v: %v", err, seen)
	}
}

// clean fails the test if tshark finds anything wrong in what the servers sent.
func (n *network) clean() {
	n.t.Helper()
	n.wellFormed()
	// A client that has gone leaves its kernel to refuse an answer, and to quote it.
	seen, err := n.lan.Decoded("dhcp.type == 2 && !icmp", "ip.src", "dhcp.option.dhcp_server_id")
	if err != nil || len(seen) == 0 {
		n.t.Fatalf("no answers in the capture: %v", err)
	}
	for _, line := range seen {
		if src, id, _ := strings.Cut(line, "\t"); src != id {
			n.t.Errorf("an answer of server %s comes from %s", id, src)
		}
	}
}

// wellFormed fails the test if tshark finds a malformed field in any answer.
func (n *network) wellFormed() {
	n.t.Helper()
	bad, err := n.lan.Decoded("dhcp.type == 2 && (_ws.malformed || _ws.expert.severity >= 0x00600000)")
	if err != nil {
		n.t.Fatal(err)
	}
	if len(bad) > 0 {
		n.t.Errorf("tshark finds fault with:\n%s", strings.Join(bad, "\n"))
	}
}
