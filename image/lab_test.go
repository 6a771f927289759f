package image_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"everboot/image"
	"everboot/internal/lab"
	"everboot/internal/lab/guest"
	"everboot/internal/lab/guest/vdisk"
)

func TestMain(m *testing.M) {
	if lab.Wanted() { // outside of the lab, which has no way to Debian's mirror
		if _, _, err := vdisks(context.Background()); err != nil {
			fmt.Fprintln(os.Stderr, "making the vDisks:", err)
			os.Exit(1)
		}
	}
	os.Exit(lab.TestMain(m))
}

// vdisks returns the folders of the full and the minimal vDisk, and makes them if they are not there.
func vdisks(ctx context.Context) (full, minimal string, err error) {
	cache, err := vdisk.Cache()
	if err != nil {
		return "", "", err
	}
	progress := func(line string) { fmt.Fprintln(os.Stderr, "vDisk:", line) }
	if full, err = vdisk.Full(ctx, cache, progress); err != nil {
		return "", "", err
	}
	minimal, err = vdisk.Minimal(ctx, cache, progress)
	return full, minimal, err
}

// wantVDisks skips the test where no lab is asked for, and returns the folders of the vDisks elsewhere.
func wantVDisks(t *testing.T) (full, minimal string) {
	t.Helper()
	if !lab.Wanted() {
		t.Skip("lab tests run with EVERBOOT_LAB=1 only: this one needs a vDisk, which takes minutes to make")
	}
	full, minimal, err := vdisks(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return full, minimal
}

func TestLabInitramfsHasWhatItMust(t *testing.T) {
	full, _ := wantVDisks(t)
	lab.Need(t, "zstd", "cpio")
	list, err := exec.Command("sh", "-c", `zstd -dcq "$1" | cpio --quiet -t`, "sh", filepath.Join(full, image.InitrdFile)).Output()
	if err != nil {
		t.Fatalf("listing the initramfs: %v", err)
	}
	for _, want := range []string{
		"scripts/local-top/everboot", "scripts/local-bottom/everboot",
		"etc/everboot/cage/sbin/@iscsid", "etc/everboot/cage/sbin/iscsiadm", "etc/everboot/cage/etc/passwd",
		"libc.so.6", "libopeniscsiusr", "usr/sbin/ip", "usr/bin/busybox",
		"/iscsi_ibft.ko", "/iscsi_tcp.ko", "/sd_mod.ko", "/overlay.ko", "/virtio_net.ko",
	} {
		if !strings.Contains(string(list), want) {
			t.Errorf("%s is missing", want)
		}
	}
}

const (
	serverAddress = "198.18.0.10"
	targetName    = "iqn.2026-11.internal.everboot:berlin:debian:1:0123456789abcdef"
	diskURI       = "iscsi:" + serverAddress + ":::1:" + targetName
	// failoverLimit is under DefaultTime2Wait's default of 2 s, so that more means that a setting is lost, and over the second that iscsid
	// loses now and then: it looks 1 ms after its SYN whether it is connected, and then a second later.
	failoverLimit = 1500 * time.Millisecond
)

// bench is a boot server, two streamers with one disk, and a director that holds a login while no streamer lives.
type bench struct {
	*lab.Lab
	lan       *lab.Segment
	streamers [2]*lab.Host
	disk      string

	mu      sync.Mutex
	serving int // index of the streamer that was dialled last
}

// newBench starts everything but the streamers.
func newBench(t *testing.T, folder, script string) *bench {
	t.Helper()
	l := lab.ForTest(t)
	lab.Need(t, "tgtd", "tgtadm", "dnsmasq", "qemu-system-x86_64")
	lab.NeedFile(t, "/usr/lib/ipxe/snponly.efi")
	b := &bench{Lab: l, lan: l.Segment("lan"), disk: filepath.Join(folder, image.DiskFile)}
	server := l.Host("server")
	server.Join(b.lan, serverAddress+"/24", "2001:db8::10/64")
	for i := range b.streamers {
		b.streamers[i] = l.Host(fmt.Sprintf("s%d", i))
		b.streamers[i].Join(b.lan, fmt.Sprintf("198.18.0.2%d/24", i))
	}
	lab.RouterAdvertiser(server)
	lab.Dnsmasq(server, "--interface=eth0", "--bind-interfaces", "--dhcp-range=198.18.0.100,198.18.0.199,1h",
		"--dhcp-match=set:ipxe,175", "--dhcp-match=set:efi,option:client-arch,7", "--enable-tftp", "--tftp-root=/usr/lib/ipxe",
		"--dhcp-boot=tag:!ipxe,tag:efi,snponly.efi,,"+serverAddress, "--dhcp-boot=tag:!ipxe,tag:!efi,undionly.kpxe,,"+serverAddress,
		"--dhcp-boot=tag:ipxe,http://"+serverAddress+"/boot.ipxe")
	b.serveHTTP(t, server, folder, script)
	b.direct(t, server)
	return b
}

func (b *bench) serveHTTP(t *testing.T, server *lab.Host, folder, script string) {
	t.Helper()
	listener, err := server.Listen("tcp", serverAddress+":80")
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/", http.FileServer(http.Dir(folder)))
	mux.HandleFunc("/boot.ipxe", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, script) })
	web := &http.Server{Handler: mux}
	go web.Serve(listener)
	t.Cleanup(func() { web.Close() })
}

// stream starts the i-th streamer.
func (b *bench) stream(t *testing.T, i int) *lab.Process {
	t.Helper()
	host, control := b.streamers[i], fmt.Sprint(i+1)
	socket := "TGT_IPC_SOCKET=" + filepath.Join(b.Dir(), "tgt"+control)
	// It listens on the loopback address until it is configured: a login that comes too early would be refused.
	p := host.Start("tgtd", "env", socket, "tgtd", "-f", "-C", control, "--iscsi", "portal=127.0.0.1:3260")
	tgtadm := func(args ...string) error {
		_, err := host.Run(t.Context(), append([]string{"env", socket, "tgtadm", "-C", control, "--lld", "iscsi"}, args...)...)
		return err
	}
	err := lab.Eventually(10*time.Second, "tgtd answers", func() error {
		return tgtadm("--mode", "target", "--op", "new", "--tid", "1", "-T", targetName)
	})
	for _, args := range []string{
		"--mode target --op update --tid 1 --name DefaultTime2Wait --value 0",
		"--mode logicalunit --op new --tid 1 --lun 1 -b " + b.disk,
		"--mode logicalunit --op update --tid 1 --lun 1 --params readonly=1,scsi_id=everboot,scsi_sn=everboot",
		"--mode target --op bind --tid 1 -I ALL",
		"--mode portal --op new --param portal=" + b.portal(i),
	} {
		err = errors.Join(err, tgtadm(strings.Fields(args)...))
	}
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (b *bench) portal(i int) string { return fmt.Sprintf("198.18.0.2%d:3260", i) }

// direct forwards each connection to the first streamer that answers.
func (b *bench) direct(t *testing.T, server *lab.Host) {
	t.Helper()
	listener, err := server.Listen("tcp", serverAddress+":3260")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			go b.forward(t.Context(), server, client)
		}
	}()
}

func (b *bench) forward(ctx context.Context, server *lab.Host, client net.Conn) {
	defer client.Close()
	const hold = 14 * time.Second // less than the login_timeout of the target
	for end := time.Now().Add(hold); time.Now().Before(end) && ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
		for i := range b.streamers {
			streamer, err := server.Dial(ctx, "tcp", b.portal(i))
			if err != nil {
				continue
			}
			defer streamer.Close()
			b.mu.Lock()
			b.serving = i
			b.mu.Unlock()
			go func() { io.Copy(streamer, client); streamer.Close() }()
			io.Copy(client, streamer)
			return
		}
	}
}

func (b *bench) server() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.serving
}

// target powers a machine on and returns a way to read the last report of its guest program.
func (b *bench) target(t *testing.T, firmware lab.Firmware) (last func() guest.Report, worst func() time.Duration) {
	t.Helper()
	m, err := b.Machine(lab.MachineConfig{Name: "t1", Segment: b.lan, MAC: "52:54:00:00:00:01", Firmware: firmware, MemoryMB: 768})
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var report guest.Report
	var longest time.Duration // since worst was called
	m.Lines(func(_ time.Time, line string) {
		if r, ok := guest.Parse(line); ok {
			mu.Lock()
			defer mu.Unlock()
			report = r
			longest = max(longest, r.WindowLongest)
		}
	})
	last = func() guest.Report { mu.Lock(); defer mu.Unlock(); return report }
	worst = func() time.Duration { mu.Lock(); defer mu.Unlock(); was := longest; longest = 0; return was }
	begun := time.Now()
	if err := lab.Eventually(5*time.Minute, "the target reads its vDisk", func() bool { return last().Reads > 0 }); err != nil {
		t.Fatalf("%v; its console ends with:\n%s", err, m.Console()[max(0, len(m.Console())-2000):])
	}
	t.Logf("%s: power-on to the first report of reads: %.1f s", firmware, time.Since(begun).Seconds())
	return last, worst
}

// goesOn waits until the guest has read a hundred blocks more.
func goesOn(t *testing.T, last func() guest.Report) {
	t.Helper()
	from := last().Reads
	if err := lab.Eventually(time.Minute, "the target reads on", func() bool { return last().Reads > from+100 }); err != nil {
		t.Fatal(err)
	}
}

const kernelScript = "#!ipxe\nset initiator-iqn iqn.2026-11.internal.everboot:device:${net0/mac:hexhyp}\n" +
	"sanhook --drive 0x80 " + diskURI + "\n" +
	"kernel http://" + serverAddress + "/" + image.KernelFile + " initrd=initrd.img " + image.DefaultCmdline + "\n" +
	"initrd http://" + serverAddress + "/" + image.InitrdFile + "\nboot\n"

func TestLabTargetOutlivesItsStreamers(t *testing.T) {
	_, minimal := wantVDisks(t)
	b := newBench(t, minimal, kernelScript)
	streamers := [2]*lab.Process{b.stream(t, 0), b.stream(t, 1)}
	last, worst := b.target(t, lab.BIOS)
	goesOn(t, last)
	for range 3 {
		usual, victim := worst(), b.server()
		streamers[victim].Kill()
		goesOn(t, last)
		stall := worst()
		t.Logf("streamer %d killed: the longest read took %v, before that %v", victim, stall, usual)
		if stall > failoverLimit+usual {
			t.Errorf("a failover took %v", stall)
		}
		streamers[victim] = b.stream(t, victim)
	}

	const outage = 20 * time.Second // longer than a login is held
	for _, p := range streamers {
		p.Kill()
	}
	time.Sleep(outage)
	b.stream(t, 0)
	goesOn(t, last)
	t.Logf("no streamer for %v: the longest read took %v", outage, worst())
	if r := last(); r.Errors != 0 || r.Mismatches != 0 {
		t.Errorf("the guest says: %s", r)
	}
}

// TestLabVDiskStartsByItself boots the whole Debian by the boot loader on its disk, until systemd has started the guest program.
func TestLabVDiskStartsByItself(t *testing.T) {
	const script = "#!ipxe\nset initiator-iqn iqn.2026-11.internal.everboot:device:${net0/mac:hexhyp}\nsanboot --drive 0x80 " + diskURI + "\n"
	for _, firmware := range []lab.Firmware{lab.BIOS, lab.UEFI} {
		t.Run(string(firmware), func(t *testing.T) {
			full, _ := wantVDisks(t)
			b := newBench(t, full, script)
			b.stream(t, 0)
			last, _ := b.target(t, firmware)
			goesOn(t, last)
			if r := last(); r.Errors != 0 || r.Mismatches != 0 {
				t.Errorf("the guest says: %s", r)
			}
		})
	}
}
