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
	for round := range 2 {
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

func TestISCSIPeers(t *testing.T) {
	_, a, b, _ := pair(t)
	lab.Need(t, "tgtd", "tgtadm", "iscsi-ls", "iscsi-inq", "iscsi-perf")
	dir := t.TempDir()
	env := "TGT_IPC_SOCKET=" + dir + "/ipc"
	disk := filepath.Join(dir, "disk")
	if err := os.WriteFile(disk, make([]byte, 1<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	b.StartWith(lab.Settings{Env: []string{env}}, "tgtd", "tgtd", "-f", "--iscsi", "portal=198.18.0.3:3260")
	tgtadm := func(args string) error {
		_, err := b.Run(t.Context(), append([]string{"env", env, "tgtadm", "--lld", "iscsi"}, strings.Fields(args)...)...)
		return err
	}
	if err := lab.Eventually(timeout, "tgtd answers", func() error { return tgtadm("--op show --mode sys") }); err != nil {
		t.Fatal(err)
	}
	const iqn = "iqn.2026-01.test:disk"
	for _, args := range []string{
		"--op new --mode target --tid 1 -T " + iqn,
		"--op new --mode logicalunit --tid 1 --lun 1 -b " + disk,
		"--op update --mode logicalunit --tid 1 --lun 1 --params scsi_sn=serial-7",
		"--op bind --mode target --tid 1 -I ALL",
	} {
		if err := tgtadm(args); err != nil {
			t.Fatal(err)
		}
	}
	urls, err := lab.ISCSITargets(a, "198.18.0.3:3260")
	if err != nil || len(urls) != 1 || !strings.Contains(urls[0], iqn) {
		t.Fatalf("targets %q, %v", urls, err)
	}
	serial, err := lab.ISCSIInquiry(a, "iscsi://198.18.0.3:3260/"+iqn+"/1", 0x80)
	if err != nil || !strings.Contains(serial, "serial-7") {
		t.Errorf("serial %q, %v", serial, err)
	}
	load := lab.ISCSILoad(a, "load", "iscsi://198.18.0.3:3260/"+iqn+"/1")
	if err := lab.Eventually(timeout, "figures", func() bool { return strings.Contains(load.Log(), "iops") }); err != nil {
		t.Errorf("%v: %q", err, load.Log())
	}
	load.Kill()
}
