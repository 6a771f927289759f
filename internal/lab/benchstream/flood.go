package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"everboot/internal/iscsi"
	"everboot/internal/lab"
	"everboot/site"
)

const halfOpen = 10000

// flood opens ten thousand connections that say nothing, and looks whether a target still logs in and what the appliance is left with.
func flood(s *stage) error {
	worker, err := s.worker()
	if err != nil {
		return err
	}
	before, files := resident(worker), descriptors(worker)
	var mu sync.Mutex
	var conns []net.Conn
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range halfOpen / 8 {
				conn, err := s.host["crowd"].Dial(context.Background(), "tcp", portal)
				if err != nil {
					continue
				}
				mu.Lock()
				conns = append(conns, conn)
				mu.Unlock()
			}
		})
	}
	all.Wait()
	start := time.Now()
	session, err := s.login(portal, 1)
	if err != nil {
		return fmt.Errorf("logging in during the flood: %w", err)
	}
	took := time.Since(start)
	session.Close()
	peak := resident(worker)
	for _, conn := range conns {
		conn.Close()
	}
	if err := lab.Eventually(patience, "the connections are gone", func() bool { return descriptors(worker) <= files+2 }); err != nil {
		return err
	}
	row(fmt.Sprintf("%d connections that say nothing", len(conns)), "a login takes %v meanwhile; %d MB before, %d MB with them; descriptors back to %d of %d",
		took.Round(time.Millisecond), before>>20, peak>>20, descriptors(worker), files)
	return nil
}

func descriptors(pid int) int {
	list, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	return len(list)
}

// login opens a session of target i at an address, from the targets' host.
func (s *stage) login(address string, i int) (*iscsi.Session, error) {
	return s.loginAs([6]byte{}, address, i)
}

// loginAs is login with an ISID, which may make the director redirect: then the session is with the streamer itself.
func (s *stage) loginAs(isid [6]byte, address string, i int) (*iscsi.Session, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c := iscsi.Config{InitiatorName: site.InitiatorName(mac(i)), TargetName: s.iqn, ISID: isid, Dial: s.host["targets"].Dial}
	session, err := iscsi.Dial(ctx, address, c)
	if moved := (*iscsi.LoginError)(nil); errors.As(err, &moved) && moved.Status == iscsi.StatusMovedTemporarily {
		return iscsi.Dial(ctx, moved.Address, c)
	}
	return session, err
}
