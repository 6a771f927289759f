package vip

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"everboot/vip/vrrp"
)

// Check says what stands against a Router of this configuration on this host: Validate, the interface, its addresses and
// the rights of this process. It changes nothing. The network namespace is that of the calling thread.
func Check(cfg Config) []error {
	cfg = cfg.withDefaults()
	var errs []error
	if err := cfg.Validate(); err != nil {
		errs = append(errs, split(err)...)
	}
	if err := checkRights(); err != nil {
		errs = append(errs, err)
	}
	if cfg.Interface == "" {
		return errs
	}
	link, err := net.InterfaceByName(cfg.Interface)
	if err != nil {
		return append(errs, fmt.Errorf("vip: there is no interface %s; this host has %s", cfg.Interface, interfaceNames()))
	}
	if len(link.HardwareAddr) != 6 {
		errs = append(errs, fmt.Errorf("vip: interface %s is not an Ethernet; floating addresses need ARP", link.Name))
	}
	if link.Flags&net.FlagUp == 0 {
		errs = append(errs, fmt.Errorf("vip: interface %s is down; run: ip link set %s up", link.Name, link.Name))
	}
	if cfg.VirtualMAC {
		errs = append(errs, checkNeighbouring(link.Name)...)
	}
	own, err := ownAddresses(link, cfg.is6())
	if err == nil {
		_, err = cfg.pickPrimary(own)
	}
	if err != nil {
		errs = append(errs, split(err)...)
	}
	return errs
}

func interfaceNames() string {
	links, err := net.Interfaces()
	var names []string
	for _, l := range links {
		if l.Flags&net.FlagLoopback == 0 {
			names = append(names, l.Name)
		}
	}
	if err != nil || len(names) == 0 {
		return "none but the loopback"
	}
	return strings.Join(names, ", ")
}

// checkRights opens a raw socket for a moment, and looks up the right to change addresses, which cannot be tried harmlessly.
func checkRights() error {
	missing := func(err error) error {
		return fmt.Errorf("vip: no right to send VRRP and to change addresses: run as root, or give the program CAP_NET_RAW and CAP_NET_ADMIN: %w", err)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, vrrp.Protocol)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return missing(err)
	}
	if err != nil {
		return fmt.Errorf("vip: opening a raw socket: %w", err)
	}
	if err := unix.Close(fd); err != nil {
		return fmt.Errorf("vip: closing a raw socket: %w", err)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData // version 3 has two words
	if err := unix.Capget(&header, &caps[0]); err != nil {
		return fmt.Errorf("vip: reading the rights of this process: %w", err)
	}
	if caps[0].Effective&(1<<unix.CAP_NET_ADMIN) == 0 {
		return missing(os.ErrPermission)
	}
	return nil
}

// split takes an error of errors.Join apart.
func split(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	return []error{err}
}
