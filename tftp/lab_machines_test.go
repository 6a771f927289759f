package tftp_test

import (
	"net/netip"
	"testing"
	"time"

	"everboot/internal/lab"
	"everboot/site"
)

// TestMachineBIOS: QEMU's ROM is iPXE of 2019, and undionly.kpxe is today's.
func TestMachineBIOS(t *testing.T) { machine(t, lab.BIOS) }

// TestMachineUEFI: OVMF loads snponly.efi (and asks for its size first), which runs autoexec.ipxe without an address.
func TestMachineUEFI(t *testing.T) { machine(t, lab.UEFI) }

// machine lets a target wait for a streamer, then fail at a SAN where nobody listens, again and again. The first login server is a black hole.
func machine(t *testing.T, firmware lab.Firmware) {
	b := newBed(t)
	lab.Need(t, "qemu-system-x86_64", "dnsmasq")
	b.view.Boot.Address = netip.MustParseAddr("198.18.0.77")
	b.view.Appliances = []site.Appliance{{Name: "a", Address: netip.MustParseAddr("198.18.0.2")}, {Name: "b", Address: netip.MustParseAddr("198.18.0.3")}}
	setStreamers(b.view, site.Down)
	b.publish(t)
	b.start(t)
	b.dnsmasq()
	m, err := b.lab.Machine(lab.MachineConfig{Name: "target", Segment: b.lan, Firmware: firmware, MAC: "52:54:00:00:00:01", DiskMB: 1})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"everboot: bootstrap", `asking http://198\.18\.0\.77 for the script of 52:54:00:00:00:01`, `asking http://198\.18\.0\.2 for the script`,
		`52:54:00:00:00:01 cannot boot now \(no-healthy-streamer\)`, "streamers hold its vDisk version, but none of them is up",
	} {
		if _, err := m.Expect(want, 2*time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	setStreamers(b.view, site.Up)
	b.view.Boot.Address = netip.MustParseAddr("198.18.0.10") // up, without a SAN; the script tells the bootstrap to ask it first
	b.publish(t)
	for _, want := range []string{
		`t1 boots debian version 1 \(0123456789abcdef\) from 198\.18\.0\.10`, "that failed, starting again in 1 s",
		"t1 boots debian", "that failed, starting again in 2 s", "t1 boots debian", "that failed, starting again in 4 s", `asking http://198\.18\.0\.10`,
	} {
		if _, err := m.Expect(want, 2*time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	b.expect(t, "event http 52:54:00:00:00:01 script")
	m.Stop()
	counts := b.stop(t)
	t.Logf("%+v", counts)
	if firmware == lab.UEFI && counts.TFTP.Finished["size_probe"] == 0 {
		t.Error("OVMF's question for the size was not counted as such")
	}
	if f := counts.TFTP.Finished; f["silent"]+f["aborted"] != 0 {
		t.Errorf("failed transfers: %+v", counts.TFTP)
	}
}

// dnsmasq gives addresses, and boot files at the server's own address. Its router advertisements spare iPXE a wait of 13 s.
func (b *bed) dnsmasq() {
	lab.Dnsmasq(b.server, "--dhcp-range=198.18.0.100,198.18.0.199", "--dhcp-userclass=set:ipxe,iPXE", "--dhcp-match=set:efi,option:client-arch,7",
		"--dhcp-boot=tag:ipxe,bootstrap.ipxe,,198.18.0.2", "--dhcp-boot=tag:!ipxe,tag:efi,snponly.efi,,198.18.0.2",
		"--enable-ra", "--dhcp-range=2001:db8::,ra-only,64", "--ra-param=eth0,4,0")
}
