package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"everboot/internal/lab"
	"everboot/site"
	"everboot/tftp"

	"golang.org/x/sync/errgroup"

	pin "github.com/pin/tftp/v3"
)

// envServe makes this program a server: "everboot ROOT" or "pin ROOT".
const envServe = "EVERBOOT_TFTPBENCH_SERVE"

// atftpd is where make deps unpacks it.
const atftpd = "build/atftpd/usr/sbin/atftpd"

// peers are the servers that are measured, the first is ours.
var peers = []string{"everboot", "dnsmasq", "tftpd-hpa", "atftpd", "pin/tftp"}

// start starts a server on a host, if it is pinned on the server's processor, and returns its process.
func start(h *lab.Host, peer, root string, pinned bool) (*lab.Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	var settings lab.Settings
	var argv []string
	if pinned {
		argv = []string{"taskset", "-c", strconv.Itoa(serverCPU)}
	}
	switch peer {
	case "everboot", "pin/tftp":
		settings.Env = []string{"GOMAXPROCS=2", envServe + "=" + peer + " " + root}
		argv = append(argv, self)
	case "dnsmasq":
		argv = append(argv, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--enable-tftp", "--tftp-root="+root, "--tftp-max=2000",
			"--user=root", "--pid-file=")
	case "tftpd-hpa":
		argv = append(argv, "in.tftpd", "--foreground", "--address", "0.0.0.0:69", "--user", "root", "--secure", root)
	case "atftpd":
		argv = append(argv, atftpd, "--daemon", "--no-fork", "--maxthread", "2000", "--user", "root.root", "--bind-address", serverAddress, "--logfile", "-", root)
	default:
		return nil, fmt.Errorf("no server %q", peer)
	}
	return h.StartWith(settings, strings.ReplaceAll(peer, "/", "-"), argv...), nil
}

// serve is this program as a server.
func serve(what string) error {
	kind, root, _ := strings.Cut(what, " ")
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if kind == "pin/tftp" {
		return servePin(ctx, root)
	}
	view := site.Empty("bench", "")
	files, err := tftp.NewFiles(tftp.FilesConfig{Root: root, IPXE: filepath.Join(root, "none")}, func() *site.View { return view })
	if err != nil {
		return err
	}
	log, none := slog.New(slog.NewTextHandler(os.Stdout, nil)), func() *site.View { return view }
	s, err := tftp.NewServer(tftp.Config{PerClient: 4096}, files, nil, log)
	if err != nil {
		return err
	}
	web, err := tftp.NewHTTP(tftp.HTTPConfig{}, files, none, nil, log)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.Run(ctx) })
	group.Go(func() error { return web.Run(ctx) })
	return group.Wait()
}

func servePin(ctx context.Context, root string) error {
	s := pin.NewServer(func(name string, rf io.ReaderFrom) error {
		f, err := os.Open(filepath.Join(root, filepath.Clean("/"+name)))
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = rf.ReadFrom(f)
		return err
	}, nil)
	s.SetBlockSize(1468)
	s.SetTimeout(time.Second) // its first retransmission comes after 5 s else
	context.AfterFunc(ctx, s.Shutdown)
	return s.ListenAndServe(":69")
}

// cpu returns the processor time of a process and of its children that have ended.
func cpu(pid int) time.Duration {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	var ticks int64
	for _, f := range fields[11:15] { // utime, stime, cutime, cstime
		n, _ := strconv.ParseInt(f, 10, 64)
		ticks += n
	}
	return time.Duration(ticks) * time.Second / 100
}
