package vip

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
)

// withoutIPv6 is an MTU with which Linux gives an interface no IPv6: a host that hears router advertisements would make itself an address of
// the virtual MAC. Nothing but ARP leaves by the macvlan: answers go by the routes, which know its parent only.
const withoutIPv6 = 1279

// virtualTable keeps the addresses on a macvlan with the virtual MAC address. The macvlan is there, and up, as long as the router runs: to make
// one or to set it up takes the kernel up to a tenth of a second, which no take-over has. Without an address it says nothing.
type virtualTable struct {
	*addressTable // of the macvlan; its link is nil until it is known
	parent        *addressTable
	index         int // of the parent
	name          string
	mac           net.HardwareAddr
	router        bool // this process is to make it; the guard's is not
	touched       bool // by this process: otherwise it is some other's
}

func openVirtualTable(link *net.Interface, cfg Config, parent *addressTable) *virtualTable {
	return &virtualTable{
		addressTable: &addressTable{handle: parent.handle, addrs: parent.addrs},
		parent:       parent, index: link.Index, name: virtualName(link, cfg.VRID), mac: virtualMAC(cfg.VRID),
	}
}

// Hold implements table. Each time it sees to it that the macvlan is there and up.
func (t *virtualTable) Hold(lifetime time.Duration) error {
	if t.link == nil || t.handle.LinkSetUp(t.link) != nil { // somebody has removed it
		if err := t.make(); err != nil {
			return err
		}
	}
	return t.addressTable.Hold(lifetime)
}

// make finds the macvlan, or makes it, and sets it up.
func (t *virtualTable) make() error {
	t.touched = true
	found, err := t.find()
	if err != nil {
		return err
	}
	if !found {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.ParentIndex, attrs.HardwareAddr, attrs.MTU = t.name, t.index, t.mac, withoutIPv6
		// In private mode the kernel would keep from the parent what comes from this MAC address on another node: after a partition
		// neither of two owners would hear of the other.
		if err := t.handle.LinkAdd(&netlink.Macvlan{LinkAttrs: attrs, Mode: netlink.MACVLAN_MODE_VEPA}); err != nil {
			return fmt.Errorf("making the interface %s with %s: %w", t.name, t.mac, err)
		}
		if found, err = t.find(); err != nil || !found {
			return errors.Join(err, fmt.Errorf("the interface %s was removed as soon as it was made", t.name))
		}
	}
	if err := t.handle.LinkSetUp(t.link); err != nil {
		return fmt.Errorf("setting %s up: %w", t.name, err)
	}
	return nil
}

// find looks for the macvlan. One that is not as it should be is removed.
func (t *virtualTable) find() (bool, error) {
	l, err := t.handle.LinkByName(t.name)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		t.link = nil
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("looking for the interface %s: %w", t.name, err)
	}
	a := l.Attrs()
	if l.Type() == "macvlan" && a.ParentIndex == t.index && a.HardwareAddr.String() == t.mac.String() && a.MTU == withoutIPv6 {
		t.link = &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Index: a.Index}}
		return true, nil
	}
	t.link = nil
	if err := t.handle.LinkDel(l); err != nil {
		return false, fmt.Errorf("removing the interface %s, which is not as it should be: %w", t.name, err)
	}
	return false, nil
}

// Drop implements table: it takes the addresses off the macvlan, and off the parent, where another configuration may have left them.
func (t *virtualTable) Drop() (int, error) {
	t.touched = true
	removed, err := t.parent.Drop()
	found, findErr := t.find()
	if found {
		n, dropErr := t.addressTable.Drop()
		return removed + n, errors.Join(err, dropErr)
	}
	if findErr == nil && t.router {
		findErr = t.make()
	}
	return removed, errors.Join(err, findErr)
}

// Held implements table.
func (t *virtualTable) Held() (int, error) {
	if found, err := t.find(); err != nil || !found {
		return 0, err
	}
	return t.addressTable.Held()
}

// Close removes the macvlan, if this process had to do with it, and closes the netlink socket.
func (t *virtualTable) Close() error {
	var err error
	if t.touched {
		if found, _ := t.find(); found { // one that cannot be found cannot be removed
			err = t.handle.LinkDel(t.link)
		}
	}
	return errors.Join(err, t.parent.Close())
}

// virtualSender sends advertisements from the virtual MAC address.
type virtualSender struct {
	conn *packet.Conn
	mac  net.HardwareAddr
}

// Send sends a message.
func (s virtualSender) Send(message []byte, from, to netip.Addr) error {
	f := advertisementFrame(s.mac, message, from, to)
	_, err := s.conn.WriteTo(f, &packet.Addr{HardwareAddr: f[:6]})
	return err
}

// strictFilter is the rp_filter that drops what did not come in where the answer would go out.
const strictFilter = 1

// checkNeighbouring says which settings of the kernel would undo a virtual MAC address on this host. It changes none: they concern
// whatever else the host does.
func checkNeighbouring(link string) []error {
	var errs []error
	effective := func(of, key string) int {
		most := 0
		for _, scope := range []string{"all", of} {
			text, err := os.ReadFile(filepath.Join("/proc/sys/net/ipv4/conf", scope, key))
			if err != nil {
				errs = append(errs, fmt.Errorf("vip: virtual_mac: %w", err))
			}
			n, _ := strconv.Atoi(strings.TrimSpace(string(text))) // the kernel's own figures
			most = max(most, n)
		}
		return most
	}
	want := func(bad bool, setting, why string) {
		if bad {
			errs = append(errs, fmt.Errorf("vip: virtual_mac: %s; run: sysctl -w %s, and write it into a file of /etc/sysctl.d", why, setting))
		}
	}
	want(effective(link, "arp_ignore") == 0 || effective("default", "arp_ignore") == 0, "net.ipv4.conf.all.arp_ignore=1",
		"interface "+link+" would answer for the floating addresses with its own MAC address")
	want(effective(link, "arp_announce") < 2, "net.ipv4.conf.all.arp_announce=2",
		"questions of interface "+link+" would draw the floating addresses to its own MAC address")
	want(effective("default", "rp_filter") == strictFilter, "net.ipv4.conf.default.rp_filter=2",
		"the kernel would drop what comes in for the floating addresses (rp_filter)")
	return errs
}
