package tgt

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"everboot/site"
	"everboot/streamer"
)

var (
	debian  = site.TargetName{Site: "berlin", VDisk: "debian", Version: 1, Digest: "0123456789abcdef"}
	windows = site.TargetName{Site: "berlin", VDisk: "windows", Version: 12, Digest: "fedcba9876543210"}
	address = netip.MustParseAddrPort("198.18.0.21:3260")
)

func TestParseSessions(t *testing.T) {
	b, err := os.ReadFile("testdata/targets.txt")
	if err != nil {
		t.Fatal(err)
	}
	device := "iqn.2026-11.internal.everboot:device:52-54-00-00-00-0"
	want := []streamer.EngineSession{
		{Target: debian.IQN(), Initiator: device + "1", Remote: "198.18.0.21", Session: 6},
		{Target: windows.IQN(), Initiator: device + "2", Remote: "198.18.0.10", Session: 7, Connection: 1},
		{Target: windows.IQN(), Initiator: device + "3", Remote: "2001:db8::10", Session: 9},
	}
	if got := parseSessions(string(b)); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

func TestParsePortals(t *testing.T) {
	got := parsePortals("Portal: [::]:3260,1\nPortal: 127.0.0.1:41103,1\n")
	if want := []string{"[::]:3260", "127.0.0.1:41103"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// FuzzParseSessions: initiators choose their names and aliases.
func FuzzParseSessions(f *testing.F) {
	f.Add("Target 1: x\nI_T nexus: 1\nInitiator: y alias: z\nConnection: 0\nIP Address: 198.18.0.1\n")
	f.Fuzz(func(_ *testing.T, s string) {
		parseSessions(s)
		parsePortals(s)
	})
}

// TestIdentity: what initiators see is the same in every version of this program; otherwise a disk is another one after an update.
func TestIdentity(t *testing.T) {
	for _, tt := range []struct {
		name site.TargetName
		want identity
	}{
		{debian, identity{tid: 195167537, serial: "b62988cc930304f9", id: "everboot-0123456789abcdef", product: "debian", rev: "0001"}},
		{windows, identity{tid: 163797197, serial: "107172848316a691", id: "everboot-fedcba9876543210", product: "windows", rev: "0012"}},
	} {
		got := identify(tt.name)
		if got != tt.want {
			t.Errorf("got %+v, want %+v", got, tt.want)
		}
		if got.tid <= 0 || got.tid >= 1<<28 {
			t.Errorf("tid %d does not fit", got.tid)
		}
	}
	long := debian
	long.VDisk, long.Version = strings.Repeat("a", 63), 123456
	if got := identify(long); len(got.product) != 16 || len(got.rev) != 4 {
		t.Errorf("got %+v", got)
	}
}

// record is an engine that writes its commands down, and whether one fails.
func record(t *testing.T, fail string) (*Engine, *[]string) {
	t.Helper()
	e, err := New(Config{Addresses: []netip.AddrPort{address}, State: t.TempDir()}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	var commands []string
	e.run = func(_ context.Context, args ...string) (string, error) {
		line := strings.Join(args, " ")
		commands = append(commands, line)
		switch {
		case fail != "" && strings.Contains(line, fail):
			return "", errors.New("refused")
		case strings.HasSuffix(line, "--mode portal --op show"):
			return "Portal: 127.0.0.1:41103,1\n", nil
		}
		return "", nil
	}
	return e, &commands
}

func at(commands []string, part string) int {
	return slices.IndexFunc(commands, func(c string) bool { return strings.Contains(c, part) })
}

func TestNobodyGetsInBeforeAllStands(t *testing.T) {
	e, commands := record(t, "")
	err := e.configure(t.Context(), &child{}, []streamer.Export{{Target: debian, Path: "/d"}, {Target: windows, Path: "/w"}})
	if err != nil {
		t.Fatal(err)
	}
	c := *commands
	closed, opened := at(c, "--mode portal --op delete --param portal=127.0.0.1:41103"), at(c, "--mode portal --op new --param portal=198.18.0.21:3260")
	if closed < 0 || closed > at(c, "--op new --tid") || opened != len(c)-1 {
		t.Errorf("the first portal closes at %d and the real one opens at %d of\n%s", closed, opened, strings.Join(c, "\n"))
	}
	for _, target := range []site.TargetName{debian, windows} {
		tid := "--tid " + strconv.Itoa(identify(target).tid)
		last := ""
		for _, line := range c {
			if strings.Contains(line+" ", tid+" ") {
				last = line
			}
		}
		if !strings.Contains(last, "--op bind") {
			t.Errorf("the last step of %s is %s", target.IQN(), last)
		}
	}
}

func TestExportChangesOnlyWhatDiffers(t *testing.T) {
	e, commands := record(t, "")
	e.exports = map[int]streamer.Export{}
	both := []streamer.Export{{Target: debian, Path: "/d"}, {Target: windows, Path: "/w"}}
	if err := e.Export(t.Context(), both); err != nil {
		t.Fatal(err)
	}
	*commands = nil
	if err := e.Export(t.Context(), both); err != nil || len(*commands) != 0 {
		t.Errorf("the same again: %v, %v", *commands, err)
	}
	if err := e.Export(t.Context(), both[:1]); err != nil {
		t.Fatal(err)
	}
	c := *commands
	if at(c, "--op unbind") != 0 || at(c, "--mode target --op delete --force") != len(c)-1 || at(c, strconv.Itoa(identify(debian).tid)) >= 0 {
		t.Errorf("removing one:\n%s", strings.Join(c, "\n"))
	}
}

func TestFailedExportLeavesNothing(t *testing.T) {
	e, commands := record(t, "--mode logicalunit --op update")
	e.exports = map[int]streamer.Export{}
	if err := e.Export(t.Context(), []streamer.Export{{Target: debian, Path: "/d"}}); err == nil {
		t.Error("no error")
	}
	if c := *commands; at(c, "--op delete --force") != len(c)-1 || at(c, "--op bind") >= 0 || len(e.exports) != 0 {
		t.Errorf("commands:\n%s", strings.Join(c, "\n"))
	}
	if err := e.Export(t.Context(), []streamer.Export{{Target: debian, Path: "/a,b"}}); err == nil {
		t.Error("a path with a comma is taken")
	}
}

func TestConfig(t *testing.T) {
	for _, tt := range []struct {
		name string
		cfg  Config
		ok   bool
	}{
		{"good", Config{Addresses: []netip.AddrPort{address}, State: "/var/lib/everboot"}, true},
		{"no address", Config{State: "/x"}, false},
		{"any address", Config{Addresses: []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:3260")}, State: "/x"}, false},
		{"no port", Config{Addresses: []netip.AddrPort{netip.MustParseAddrPort("198.18.0.21:0")}, State: "/x"}, false},
		{"no state", Config{Addresses: []netip.AddrPort{address}}, false},
		{"long state", Config{Addresses: []netip.AddrPort{address}, State: "/" + strings.Repeat("x", 100)}, false},
		{"negative threads", Config{Addresses: []netip.AddrPort{address}, State: "/x", Threads: -1}, false},
	} {
		if err := tt.cfg.Validate(); (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}
