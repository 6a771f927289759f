package ports

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
)

func TestParseTables(t *testing.T) {
	const head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n"
	line := func(local, state string) string {
		return head + "  1: " + local + " 00000000:0000 " + state + " 00000000:00000000 00:00000000 00000000     0        0 4711 2 0 0\n"
	}
	tests := []struct{ table, network, want string }{
		{line("00000000:0043", "07"), "udp", "0.0.0.0:67"},
		{line("020012C6:0043", "07"), "udp", "198.18.0.2:67"},
		{line("00000000000000000000000000000000:0045", "07"), "udp", "[::]:69"},
		{line("0000000000000000FFFF0000020012C6:0050", "0A"), "tcp", "198.18.0.2:80"},
		{line("00000000:0050", "01"), "tcp", ""},
		{head, "udp", ""},
		{line("nonsense:0043", "07"), "udp", ""},
		{line("00000000", "07"), "udp", ""},
	}
	for _, tt := range tests {
		list := parse(strings.NewReader(tt.table), tt.network)
		switch {
		case tt.want == "" && len(list) == 0:
		case len(list) != 1 || list[0].Local != netip.MustParseAddrPort(tt.want) || list[0].Inode != "4711":
			t.Errorf("parse(%q) = %v, want %s", tt.table, list, tt.want)
		}
	}
}

func TestOwnerNamesThisProcess(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := netip.MustParseAddrPort(l.Addr().String()).Port()
	if got, want := Owner("tcp", port), fmt.Sprintf("(pid %d)", os.Getpid()); !strings.HasSuffix(got, want) {
		t.Errorf("Owner = %q, want it to end in %q", got, want)
	}
}
