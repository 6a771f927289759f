package tftp_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"everboot/internal/lab"
	"everboot/site"
	"everboot/tftp"

	"golang.org/x/sync/errgroup"
)

// envServe makes the test binary a server instead, which lives wholly inside the namespace of its host. The value is a folder with view.json
// and the root.
const envServe = "EVERBOOT_TFTP_TEST_SERVE"

// envEphemeral makes that server answer each transfer from a port of its own.
const envEphemeral = "EVERBOOT_TFTP_TEST_EPHEMERAL"

func TestMain(m *testing.M) {
	if dir := os.Getenv(envServe); dir != "" {
		if err := serveDir(dir); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(lab.TestMain(m))
}

// serveDir serves TFTP and HTTP until SIGTERM, tells events and at the end its counters.
func serveDir(dir string) error {
	view := func() *site.View {
		var v site.View
		data, err := os.ReadFile(filepath.Join(dir, "view.json"))
		if err == nil {
			err = json.Unmarshal(data, &v)
		}
		if err != nil {
			panic(err)
		}
		return &v
	}
	log := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{Level: slog.LevelDebug}))
	files, err := tftp.NewFiles(tftp.FilesConfig{Root: filepath.Join(dir, "root")}, view)
	if err != nil {
		return err
	}
	events := func(e site.Event) { fmt.Println("event", e.What, e.MAC, e.Detail) }
	server, err := tftp.NewServer(tftp.Config{EphemeralPorts: os.Getenv(envEphemeral) != ""}, files, events, log)
	if err != nil {
		return err
	}
	web, err := tftp.NewHTTP(tftp.HTTPConfig{}, files, view, events, log)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return server.Run(ctx) })
	group.Go(func() error { return web.Run(ctx) })
	go func() {
		<-server.Ready()
		<-web.Ready()
		fmt.Println("ready")
	}()
	err = group.Wait()
	counts, _ := json.Marshal(map[string]any{"tftp": server.Stats(), "http": web.Stats()})
	fmt.Println("stats", string(counts))
	return err
}

// bed is one server with two addresses, 198.18.0.2 and 198.18.0.10, and a client.
type bed struct {
	lab            *lab.Lab
	lan            *lab.Segment
	server, client *lab.Host
	process        *lab.Process
	dir            string
	view           *site.View
}

func newBed(t *testing.T) *bed {
	t.Helper()
	b := &bed{lab: lab.ForTest(t), dir: t.TempDir()}
	b.lan = b.lab.Segment("lan")
	b.server, b.client = b.lab.Host("server"), b.lab.Host("client")
	b.server.Join(b.lan, "198.18.0.2/24", "198.18.0.10/24", "2001:db8::2/64", "2001:db8::10/64")
	b.client.Join(b.lan, "198.18.0.50/24", "2001:db8::50/64")
	if err := os.Mkdir(filepath.Join(b.dir, "root"), 0o755); err != nil {
		t.Fatal(err)
	}
	b.view = exampleView()
	b.publish(t)
	return b
}

// publish makes the view what the server reads.
func (b *bed) publish(t *testing.T) {
	t.Helper()
	data, err := json.Marshal(b.view)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(b.dir, "view.json")
	if err := os.WriteFile(path+".new", data, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func (b *bed) start(t *testing.T, env ...string) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b.process = b.server.StartWith(lab.Settings{Env: append(env, envServe+"="+b.dir)}, "boot", exe)
	b.expect(t, "^ready$")
}

func (b *bed) expect(t *testing.T, pattern string) []string {
	t.Helper()
	match, err := b.process.Expect(pattern, 20*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	return match
}

// stop returns the server's counters.
func (b *bed) stop(t *testing.T) (counts struct {
	TFTP tftp.Stats
	HTTP tftp.HTTPStats
}) {
	t.Helper()
	if err := b.process.Stop(5 * time.Second); err != nil {
		t.Fatal(err)
	}
	match := b.expect(t, `^stats (.*)$`)
	if err := json.Unmarshal([]byte(match[1]), &counts); err != nil {
		t.Fatal(err)
	}
	return counts
}

// write puts a file of random bytes into the root.
func (b *bed) write(t *testing.T, name string, size int) []byte {
	t.Helper()
	data := make([]byte, size)
	rand.Read(data)
	if err := os.WriteFile(filepath.Join(b.dir, "root", name), data, 0o644); err != nil {
		t.Fatal(err)
	}
	return data
}

func TestClientsFetchTheRightBytes(t *testing.T) {
	b := newBed(t)
	lab.Need(t, "tftp", "atftp", "busybox", "curl")
	// Sizes at which lockstep transfers end in their own ways: an empty last block, one byte, block numbers past 65535 (512-byte blocks).
	sizes := map[string]int{"even.bin": 1432 * 512, "odd.bin": 512*300 + 1, "empty.bin": 0, "big.bin": 512*66000 + 7}
	content := make(map[string][]byte)
	for name, size := range sizes {
		content[name] = b.write(t, name, size)
	}
	b.start(t)
	for name, want := range content {
		addresses := []string{"198.18.0.2", "198.18.0.10"}
		clients := map[string][]string{
			"busybox 1468":  {"busybox", "tftp", "-g", "-b", "1468", "-r", name, "-l", "OUT", "198.18.0.10"},
			"busybox 512":   {"busybox", "tftp", "-g", "-r", "/" + name, "-l", "OUT", "198.18.0.10"},
			"atftp windows": {"atftp", "--option", "blksize 1428", "--option", "windowsize 16", "--get", "-r", name, "-l", "OUT", "198.18.0.10"},
			"curl http":     {"curl", "-sSf", "-o", "OUT", "http://198.18.0.10/" + name},
			"curl http v6":  {"curl", "-sSf", "-o", "OUT", "http://[2001:db8::10]/" + name},
		}
		if len(want) < 1<<20 { // 66,000 blocks in lockstep take their time
			addresses = append(addresses, "2001:db8::10")
			clients["atftp"] = []string{"atftp", "--get", "-r", name, "-l", "OUT", "198.18.0.10"}
			if len(want) > 0 { // curl 7.88 fails at its end of an empty file
				clients["curl tftp"] = []string{"curl", "-sSf", "-o", "OUT", "tftp://198.18.0.10/" + name}
				clients["curl tftp v6"] = []string{"curl", "-sSf", "-o", "OUT", "tftp://[2001:db8::10]/" + name}
			}
		}
		for _, address := range addresses {
			got, err := lab.TFTPGet(b.client, address, name)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("tftp-hpa, %s from %s: %d bytes of %d, %v", name, address, len(got), len(want), err)
			}
		}
		for client, argv := range clients {
			if got, err := fetch(t, b.client, argv); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s, %s: %d bytes of %d, %v", client, name, len(got), len(want), err)
			}
		}
	}
	ranged := []string{"curl", "-sSf", "-r", "1000-299999", "-o", "OUT", "http://198.18.0.10/big.bin"}
	if got, err := fetch(t, b.client, ranged); err != nil || !bytes.Equal(got, content["big.bin"][1000:300000]) {
		t.Errorf("curl range: %d bytes, %v", len(got), err)
	}
	if _, err := lab.TFTPGet(b.client, "198.18.0.10", "none"); err == nil || !strings.Contains(err.Error(), "file not found") {
		t.Errorf("missing file: %v", err)
	}
	counts := b.stop(t)
	bad := uint64(0)
	for _, result := range []string{"silent", "aborted", "size_probe", "unanswered"} {
		bad += counts.TFTP.Finished[result]
	}
	if c := counts.TFTP; c.Finished["complete"] != 30 || c.Dropped["not_found"] != 1 || bad+c.Dropped["malformed"] != 0 || c.Active != 0 {
		t.Errorf("counters: %+v", c)
	}
}

// TestClientsOfEphemeralPorts: the clients of others take a transfer from a port of its own, over IPv4 and IPv6.
func TestClientsOfEphemeralPorts(t *testing.T) {
	b := newBed(t)
	lab.Need(t, "tftp", "atftp", "busybox", "curl", "tshark")
	want := b.write(t, "odd.bin", 512*300+1)
	b.start(t, envEphemeral+"=1")
	b.lan.Capture("ports")
	for _, address := range []string{"198.18.0.10", "2001:db8::10"} {
		if got, err := lab.TFTPGet(b.client, address, "odd.bin"); err != nil || !bytes.Equal(got, want) {
			t.Errorf("tftp-hpa from %s: %d bytes of %d, %v", address, len(got), len(want), err)
		}
	}
	for client, argv := range map[string][]string{
		"busybox":       {"busybox", "tftp", "-g", "-b", "1468", "-r", "odd.bin", "-l", "OUT", "198.18.0.10"},
		"atftp":         {"atftp", "--get", "-r", "odd.bin", "-l", "OUT", "198.18.0.10"},
		"atftp windows": {"atftp", "--option", "blksize 1428", "--option", "windowsize 16", "--get", "-r", "odd.bin", "-l", "OUT", "198.18.0.10"},
		"curl":          {"curl", "-sSf", "-o", "OUT", "tftp://[2001:db8::10]/odd.bin"},
	} {
		if got, err := fetch(t, b.client, argv); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes of %d, %v", client, len(got), len(want), err)
		}
	}
	if answers, err := b.lan.Decoded("udp.srcport == 69", "udp.dstport"); err != nil || len(answers) != 0 {
		t.Errorf("%d answers from port 69: %v", len(answers), err)
	}
	if c := b.stop(t).TFTP; c.Finished["complete"] != 6 || c.Active != 0 || c.Dropped["stray"] != 0 {
		t.Errorf("counters: %+v", c)
	}
}

// fetch runs a client that writes to the file OUT.
func fetch(t *testing.T, h *lab.Host, argv []string) ([]byte, error) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out")
	real := make([]string, len(argv))
	for i, a := range argv {
		real[i] = strings.ReplaceAll(a, "OUT", out)
	}
	if _, err := h.Run(t.Context(), real...); err != nil {
		return nil, err
	}
	return os.ReadFile(out)
}

// TestAnswersLeaveFromTheAddressAsked: iPXE and EDK2 take a block from the address that they asked only.
func TestAnswersLeaveFromTheAddressAsked(t *testing.T) {
	b := newBed(t)
	b.start(t)
	ask := func(from, to string) (answered net.Addr) {
		t.Helper()
		conn, err := b.client.ListenPacket("udp", net.JoinHostPort(from, "0"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		addr := net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(to), 69))
		if _, err := conn.WriteTo([]byte("\x00\x01bootstrap.ipxe\x00octet\x00"), addr); err != nil {
			t.Fatal(err)
		}
		if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		_, answered, err = conn.ReadFrom(make([]byte, 2000))
		if err != nil {
			t.Errorf("asked %s: %v", to, err)
		}
		return answered
	}
	for address, from := range map[string]string{
		"198.18.0.2": "198.18.0.50", "198.18.0.10": "198.18.0.50", "2001:db8::2": "2001:db8::50", "2001:db8::10": "2001:db8::50",
	} {
		if got := ask(from, address); got != nil && got.(*net.UDPAddr).IP.String() != address {
			t.Errorf("asked %s, answered from %v", address, got)
		}
	}
	// Nobody is asked by broadcast (RFC 1123 §4.2.3.5), nor by multicast.
	err := b.client.Do(func() error {
		for _, to := range []string{"198.18.0.255:69", "[ff02::1%eth0]:69"} {
			conn, err := net.Dial("udp", to)
			if err != nil {
				return err
			}
			defer conn.Close()
			if _, err := conn.Write([]byte("\x00\x01bootstrap.ipxe\x00octet\x00")); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	ask("198.18.0.50", "198.18.0.2") // after those
	if c := b.stop(t).TFTP; c.Dropped["group"] != 2 {
		t.Errorf("%d to groups were dropped, want 2: %+v", c.Dropped["group"], c)
	}
}

func TestCheckNamesTheProcessThatHasThePort(t *testing.T) {
	b := newBed(t)
	b.start(t)
	err := b.server.Do(func() error {
		for what, errs := range map[string][]error{"tftp": tftp.Check(tftp.Config{}), "http": tftp.CheckHTTP(tftp.HTTPConfig{})} {
			want := fmt.Sprintf("(pid %d) has the port", b.process.PID())
			if len(errs) != 1 || !strings.Contains(errs[0].Error(), want) {
				return fmt.Errorf("%s: %v, want %q", what, errs, want)
			}
			t.Log(errs[0])
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func setStreamers(v *site.View, h site.Health) {
	for name, s := range v.Streamers {
		s.Check.Health = h
		v.Streamers[name] = s
	}
}
