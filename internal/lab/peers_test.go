package lab_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"everboot/internal/lab"
)

func TestCaptureShowsWhatWasSaid(t *testing.T) {
	_, a, _, cable := pair(t)
	lab.Need(t, "dumpcap", "tshark")
	lan := cable.Segment()
	lan.Capture("lan")
	for round := range 3 {
		if err := ping(a, "198.18.0.3"); err != nil {
			t.Fatal(err)
		}
		lines, err := lan.Decoded("icmp", "ip.src", "icmp.type")
		if err != nil {
			t.Fatal(err)
		}
		one := []string{"198.18.0.2\t8", "198.18.0.3\t0"}
		if want := slices.Repeat(one, round+1); !slices.Equal(lines, want) {
			t.Fatalf("round %d: captured %q, want %q", round, lines, want)
		}
	}
	all, err := lan.Decoded("")
	if err != nil {
		t.Fatal(err)
	}
	if text := strings.Join(all, "\n"); !strings.Contains(text, "Who has 198.18.0.3") || strings.Contains(text, "88b5") {
		t.Errorf("summary:\n%s", text)
	}
	if _, err := lan.Decoded("no such filter"); err == nil {
		t.Error("a bad filter is no error")
	}
}

func TestDHCPAndTFTPPeers(t *testing.T) {
	_, a, b, _ := pair(t)
	lab.Need(t, "dnsmasq", "udhcpc", "tftp")
	root := t.TempDir()
	want := bytes.Repeat([]byte("\x00\r\n\xff"), 10000)
	if err := os.WriteFile(filepath.Join(root, "file"), want, 0o644); err != nil {
		t.Fatal(err)
	}
	lab.Dnsmasq(b, "--enable-tftp", "--tftp-root="+root, "--dhcp-range=198.18.0.100,198.18.0.199", "--dhcp-boot=file,name,198.18.0.9")
	lease, err := lab.Udhcpc(a, "eth0")
	if err != nil {
		t.Fatal(err)
	}
	if lease.Addr().String() < "198.18.0.100" || lease["siaddr"] != "198.18.0.9" || lease["bootfile"] != "file" || lease["tftp"] != "name" || lease["serverid"] != "198.18.0.3" {
		t.Errorf("lease %v", lease)
	}
	got, err := lab.TFTPGet(a, "198.18.0.3", "file")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%d bytes came, not the %d that were sent", len(got), len(want))
	}
	if _, err := lab.TFTPGet(a, "198.18.0.3", "none"); err == nil || !strings.Contains(err.Error(), "not found") {
		t.Errorf("a missing file: %v", err)
	}
}

func TestKeepalivedPeers(t *testing.T) {
	_, a, b, _ := pair(t)
	lab.Need(t, "keepalived")
	conf := `vrrp_instance v {
  interface eth0
  version 3
  virtual_router_id 51
  priority %d
  advert_int 0.1
  virtual_ipaddress { 198.18.0.10/24 }
}
`
	first := lab.Keepalived(a, fmt.Sprintf(conf, 200))
	lab.Keepalived(b, fmt.Sprintf(conf, 100))
	if err := lab.Eventually(timeout, "a owns the address", func() bool { return a.Has("198.18.0.10") && !b.Has("198.18.0.10") }); err != nil {
		t.Fatal(err)
	}
	if err := first.Stop(timeout); err != nil {
		t.Error(err)
	}
	if err := lab.Eventually(timeout, "b owns the address", func() bool { return b.Has("198.18.0.10") && !a.Has("198.18.0.10") }); err != nil {
		t.Fatal(err)
	}
}
