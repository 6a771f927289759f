package appliance

import (
	"context"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"everboot/dhcp"
	"everboot/dhcp/pair"
	"everboot/internal/iscsi"
	"everboot/site"
	"everboot/streamer"
	"everboot/tftp"
)

// figures returns what a worker's metrics say, by name and labels, as in everboot_boot_service_up{service=tftp}. Those that are zero are left out.
func figures(t *testing.T, w *worker, prefix string) map[string]float64 {
	t.Helper()
	r := prometheus.NewRegistry()
	r.MustRegister(collector{w})
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]float64)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			name := f.GetName()
			if len(labels) > 0 {
				name += "{" + strings.Join(labels, ",") + "}"
			}
			if value := m.GetGauge().GetValue() + m.GetCounter().GetValue(); value != 0 && strings.HasPrefix(name, prefix) {
				all[name] = value
			}
		}
	}
	return all
}

// saysExactly compares the metrics that begin with a prefix with what they must be.
func saysExactly(t *testing.T, w *worker, prefix string, want map[string]float64) {
	t.Helper()
	if got := figures(t, w, prefix); !maps.Equal(got, want) {
		t.Errorf("of %s…\n it says %v\n    want %v", prefix, got, want)
	}
}

// idleWorker is a worker without rooms; its builder does not run.
func idleWorker(t *testing.T) *worker {
	t.Helper()
	cfg := testConfig(t)
	b, err := newBuilder(cfg, observed(), quiet, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	return &worker{cfg: cfg, log: quiet, builder: b, events: make(chan site.Event, 64)}
}

// freePort returns a port of the loopback interface that nobody has now.
func freePort(t *testing.T, network string) string {
	t.Helper()
	if network == "udp4" {
		c, err := net.ListenPacket(network, "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.LocalAddr().String()
	}
	l, err := net.Listen(network, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// serveRoom runs a room until the test ends.
func serveRoom(t *testing.T, room task) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- room.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-room.Ready():
	case err := <-ended:
		ended <- nil
		t.Fatal(err)
	}
}

// soon waits until a metric has a value.
func soon(t *testing.T, w *worker, name string, want float64) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		got := figures(t, w, name)[name]
		if got == want {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s is %v, want %v", name, got, want)
		}
	}
}

func TestMetricsOfTheSite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testConfig(t)
		b, ctx, stop := running(t, c)
		defer stop()
		w := &worker{cfg: c, log: quiet, builder: b, events: make(chan site.Event)}
		content := oneStreamer()
		content.Streamers[0].Sessions = 7
		content.Streamers = append(content.Streamers, site.Streamer{Name: "s2", Site: "berlin", State: site.Active})
		content.Devices = []site.Device{{MAC: site.MAC{2, 1}}, {MAC: site.MAC{2, 2}}, {MAC: site.MAC{2, 3}}}
		b.registryChanged(ctx, content, site.Registry{Kind: "embedded", Reachable: true})
		b.probed(ctx, "streamer/s1", site.Check{Health: site.Up})
		b.probed(ctx, checkBootHTTP, site.Check{Health: site.Up})
		b.probed(ctx, checkBootTFTP, site.Check{Health: site.Down})
		w.event(site.Event{})
		w.event(site.Event{})
		synctest.Wait()
		want := map[string]float64{
			"everboot_view_epoch": float64(b.View().Epoch), "everboot_registry_reachable": 1, "everboot_devices": 3, "everboot_boot_service_up{service=http}": 1,
			"everboot_streamer_up{streamer=s1}": 1, "everboot_streamer_sessions{streamer=s1}": 7, "everboot_events_lost_total": 2,
		}
		if saysExactly(t, w, "everboot_", want); b.View().Epoch == 0 {
			t.Error("the view has not changed")
		}
		b.registryChanged(ctx, site.Content{}, site.Registry{Kind: "embedded"})
		synctest.Wait()
		delete(want, "everboot_registry_reachable")
		want["everboot_view_epoch"] = float64(b.View().Epoch)
		saysExactly(t, w, "everboot_", want)
	})
}

// withFiles gives a worker boot files: "file", of 1000 bytes.
func withFiles(t *testing.T, w *worker) {
	t.Helper()
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "file"), make([]byte, 1000), 0o644); err != nil {
		t.Fatal(err)
	}
	var err error
	if w.files, err = tftp.NewFiles(tftp.FilesConfig{Root: root, IPXE: "/nowhere"}, w.builder.View); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.files.Close() })
}

func TestMetricsOfHTTP(t *testing.T) {
	w := idleWorker(t)
	withFiles(t, w)
	at := freePort(t, "tcp4")
	var err error
	if w.http, err = tftp.NewHTTP(tftp.HTTPConfig{Listen: at, PerClient: 1}, w.files, w.builder.View, w.event, quiet); err != nil {
		t.Fatal(err)
	}
	for path, times := range map[string]int{"/file": 3, "/none": 2, "/boot?mac=52:54:00:00:00:01": 4, "/boot?mac=x": 1, "/boot?mac=52:54:00:00:00:01&site=paris": 2} {
		for range times {
			w.http.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
		}
	}
	serveRoom(t, w.http)
	for range 3 { // one is served, and two are more than its part
		c, err := net.Dial("tcp4", at)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	soon(t, w, "everboot_http_refused_total{reason=per_client}", 2)
	saysExactly(t, w, "everboot_http_", map[string]float64{
		"everboot_http_requests_total{result=file}": 3, "everboot_http_requests_total{result=not_found}": 2, "everboot_http_requests_total{result=wait}": 4,
		"everboot_http_requests_total{result=bad}": 1, "everboot_http_requests_total{result=foreign}": 2, "everboot_http_refused_total{reason=per_client}": 2,
	})
}

func TestMetricsOfTFTP(t *testing.T) {
	w := idleWorker(t)
	withFiles(t, w)
	at := freePort(t, "udp4")
	var err error
	if w.tftp, err = tftp.NewServer(tftp.Config{Listen: at}, w.files, w.event, quiet); err != nil {
		t.Fatal(err)
	}
	serveRoom(t, w.tftp)
	ask := func(packets ...string) {
		t.Helper()
		c, err := net.Dial("udp4", at)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		for _, p := range packets {
			if _, err := io.WriteString(c, p); err != nil {
				t.Fatal(err)
			}
			if strings.HasPrefix(p, "\x00\x04\x00\x02") { // the last ACK
				return
			}
			if _, err := c.Read(make([]byte, 600)); err != nil {
				t.Fatal(err)
			}
		}
	}
	ask("\x00\x01file\x00octet\x00", "\x00\x04\x00\x01", "\x00\x04\x00\x02")
	ask("\x00\x01none\x00octet\x00")
	ask("\x00\x01none\x00octet\x00")
	ask("\x00\x02file\x00octet\x00")
	soon(t, w, "everboot_tftp_transfers_total{result=complete}", 1)
	saysExactly(t, w, "everboot_tftp_", map[string]float64{
		"everboot_tftp_transfers_total{result=complete}": 1, "everboot_tftp_sent_bytes_total": 1000,
		"everboot_tftp_dropped_total{reason=not_found}": 2, "everboot_tftp_dropped_total{reason=write}": 1,
	})
}

func TestMetricsOfDHCP(t *testing.T) {
	w := idleWorker(t)
	cfg := dhcp.Config{
		Interface: "lo", ServerAddress: netip.MustParseAddr("198.18.0.2"), LeaseFile: filepath.Join(t.TempDir(), "leases.db"),
		Subnets: []dhcp.Subnet{{Network: netip.MustParsePrefix("198.18.0.0/24")}},
	}
	var err error
	if w.dhcp, err = dhcp.New(cfg, w.builder.View, w.event, quiet); err != nil {
		t.Fatal(err)
	}
	discover := dhcp.Decision{MAC: site.MAC{2}, Message: "discover", Answer: "offer", Reason: dhcp.Pooled, Boot: site.Offered}
	for _, d := range []dhcp.Decision{discover, discover, {Message: "discover", Reason: dhcp.PoolEmpty}, {Message: "request", Answer: "nak", Reason: dhcp.NotIts}} {
		w.dhcp.Note(d)
	}
	saysExactly(t, w, "everboot_dhcp_", map[string]float64{
		"everboot_dhcp_messages_total{message=discover}": 3, "everboot_dhcp_messages_total{message=request}": 1,
		"everboot_dhcp_answers_total{answer=offer}": 2, "everboot_dhcp_answers_total{answer=nak}": 1,
		"everboot_dhcp_decisions_total{reason=pooled}": 2, "everboot_dhcp_decisions_total{reason=pool-exhausted}": 1, "everboot_dhcp_decisions_total{reason=not-its}": 1,
		"everboot_dhcp_boot_total{reason=offered}": 2,
	})
}

func TestMetricsOfWhatIsWrittenDownOfLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf()
		n := startBook(t, s, bookA, bookB, pair.InTouch)
		defer n.stop()
		w := &worker{book: n.leasebook}
		said := func() (lag, written, failed float64) {
			collector{w}.book(func(name, _ string, _ prometheus.ValueType, value float64, _ ...string) {
				switch name {
				case metricBookLag:
					lag = value
				case metricBookWritten:
					written = value
				case metricBookFailed:
					failed = value
				}
			})
			return lag, written, failed
		}
		pass(time.Second)
		n.give("198.18.0.10", 10)
		pass(2 * bookPace)
		if lag, written, failed := said(); lag != 0 || written != 1 || failed != 0 {
			t.Errorf("lag %v s, %v written, %v failed; want one page written", lag, written, failed)
		}
		s.set(true)
		n.give("198.18.0.20", 1)
		pass(time.Minute)
		if lag, written, failed := said(); lag < 59 || lag > 60 || written != 1 || failed == 0 {
			t.Errorf("lag %v s, %v written, %v failed; want a minute", lag, written, failed)
		}
		s.set(false)
		pass(2 * bookPace)
		if lag, written, _ := said(); lag != 0 || written != 2 {
			t.Errorf("lag %v s, %v written; want two pages", lag, written)
		}
	})
}

func TestMetricsOfTheDirector(t *testing.T) {
	w := idleWorker(t)
	at := freePort(t, "tcp4")
	var err error
	if w.director, err = streamer.NewDirector(streamer.DirectorConfig{Listen: []string{at}}, w.builder.View, w.event, quiet); err != nil {
		t.Fatal(err)
	}
	serveRoom(t, w.director)
	login := func(target string) []byte {
		keys := iscsi.Keys{{Name: "InitiatorName", Value: site.InitiatorName(site.MAC{2})}, {Name: "TargetName", Value: target}}
		return iscsi.LoginRequest{Transit: true, Next: iscsi.StageOperational, Data: keys.Append(nil)}.PDU().Append(nil)
	}
	stranger := login(site.NameTarget("paris", "debian", 1, site.Digest(strings.Repeat("0123456789abcdef", 4))).IQN())
	for _, first := range [][]byte{stranger, stranger, login("iqn.2001-04.com.example:x"), make([]byte, 48), nil} { // the last two are no login, and a hang-up
		c, err := net.Dial("tcp4", at)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := c.Write(first); err != nil {
			t.Fatal(err)
		}
		if len(first) > 0 {
			_, _ = io.ReadAll(c) // until it is refused, or cut off
		}
		c.Close()
	}
	soon(t, w, "everboot_director_dropped_total{reason=hung-up}", 1)
	saysExactly(t, w, "everboot_director_", map[string]float64{
		"everboot_director_logins_total{reason=other-site}": 2, "everboot_director_logins_total{reason=malformed-target}": 1,
		"everboot_director_dropped_total{reason=malformed}": 1, "everboot_director_dropped_total{reason=hung-up}": 1,
	})
}

func TestMetricsOfStandIns(t *testing.T) {
	w := idleWorker(t)
	w.standIns = &standIns{by: map[standInKey]*standIn{
		{netip.MustParseAddr("198.18.0.121"), 61}: {streamer: "s1", router: fakeRouter{}}, // has it, and took it three times
		{netip.MustParseAddr("198.18.0.122"), 62}: {streamer: "s2"},                       // could not be opened
	}}
	saysExactly(t, w, "everboot_standin_", map[string]float64{
		"everboot_standin_active{address=198.18.0.121,streamer=s1,vrid=61}":          1,
		"everboot_standin_takeovers_total{address=198.18.0.121,streamer=s1,vrid=61}": 3,
	})
}
