package vip_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"everboot/internal/lab"
	vocabulary "everboot/site"
	"everboot/vip"
)

// The lab tests need routers in processes of their own, to be killed. They are this test binary, started again with a role.
const (
	envRole   = "EVERBOOT_VIP_ROLE"
	envConfig = "EVERBOOT_VIP_CONFIG" // a vip.Config as JSON
	// envConnections names a file with the connections of the address, as JSON.
	envConnections = "EVERBOOT_VIP_CONNECTIONS"
)

func TestMain(m *testing.M) {
	roles := map[string]func(vip.Config) error{"worker": beWorker, "guard": beGuard, "check": beChecker}
	role, ok := roles[os.Getenv(envRole)]
	if !ok {
		os.Exit(lab.TestMain(m))
	}
	var cfg vip.Config
	if err := json.Unmarshal([]byte(os.Getenv(envConfig)), &cfg); err != nil {
		fmt.Println("reading the configuration:", err)
		os.Exit(2)
	}
	if err := role(cfg); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

func logger() *slog.Logger { return slog.New(slog.NewTextHandler(os.Stdout, nil)) }

// beWorker runs a router until SIGTERM, and prints "state <state>" at each change.
func beWorker(cfg vip.Config) error {
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	cfg.Connections = readConnections
	r, err := vip.New(cfg, logger())
	if err != nil {
		return err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for t := range r.Changes() {
			fmt.Println("state", t.To)
		}
		status, _ := json.Marshal(r.Status())
		fmt.Println("status", string(status))
	}()
	err = r.Run(ctx)
	<-done
	return err
}

func readConnections() []vocabulary.Connection {
	var list []vocabulary.Connection
	if text, err := os.ReadFile(os.Getenv(envConnections)); err == nil {
		if err := json.Unmarshal(text, &list); err != nil {
			fmt.Println("reading the connections:", err)
		}
	}
	return list
}

// beGuard starts a worker, prints "worker <pid>", waits for its death, and prints "released <time>".
func beGuard(cfg vip.Config) error {
	g, err := vip.NewGuard(cfg, logger())
	if err != nil {
		return err
	}
	defer g.Close()
	worker := exec.Command("/proc/self/exe")
	worker.Env = append(os.Environ(), envRole+"=worker")
	worker.Stdout, worker.Stderr = os.Stdout, os.Stderr
	if err := worker.Start(); err != nil {
		return err
	}
	fmt.Println("worker", worker.Process.Pid)
	_ = worker.Wait()
	died := time.Now()
	err = g.Release()
	fmt.Println("released", time.Since(died).Microseconds())
	return err
}

// beChecker gives up the rights that VRRP needs, and prints what Check says.
func beChecker(cfg vip.Config) error {
	runtime.LockOSThread()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := unix.Capset(&header, &none[0]); err != nil {
		return err
	}
	for _, err := range vip.Check(cfg) {
		fmt.Println("check:", err)
	}
	return nil
}
